"""What a hostile log, a hostile page elsewhere and a hostile reader can do to an explorer: nothing."""

from __future__ import annotations

import base64
import csv
import html.parser
import io
import sqlite3
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from ui_logs import HOSTILE, Explored, explored, founded, over, played
from ui_scribe import hostile as hostile_log

from fl_node.records import UpdateRef
from ledger_ui.admission import MOST_QUERY
from ledger_ui.app import POLICY
from ledger_ui.assets import Assets
from ledger_ui.registry import PAGES

SECRET = "correct horse battery"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def addresses(one: Explored, ref: str = "1-1") -> list[str]:
    """Every page of one federation, in every format."""
    found = []
    for page in PAGES.values():
        rule = page.rule.replace("<ref>", ref).replace("<int:index>", "1").replace("<int:number>", "1")
        assert "<" not in rule, rule
        suffixes = ("", ".json") if page.listing is None else ("", ".json", ".csv", ".jsonl")
        found += [rule + suffix for suffix in suffixes]
    return found


@pytest.fixture(scope="module")
def shut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explored]:
    """An explorer with a secret, and with the names by which it may be addressed."""
    names = ("explorer.example", "127.0.0.1", "::1")
    one = over(founded(["a"]), tmp_path_factory.mktemp("shut"), secret=SECRET, hosts=names)
    yield one
    one.stop()


# ---- headers --------------------------------------------------------------------------------------------------------


def test_every_answer_is_guarded(world: Explored) -> None:
    slug = world.shown.slug
    asked = [f"/{slug}{path}" for path in addresses(world)]
    asked += ["/", "/index.json", "/api", "/about", "/about.json", "/openapi.json", "/static/app.css", "/static/app.js"]
    asked += ["/nothing", "/nothing.json", "/static/nothing", f"/{slug}/nothing", f"/{slug}/updates?what=1"]
    asked += [f"/{slug}/search?q=3%232", f"/{slug}/updates/99-99", "/?" + "x" * (MOST_QUERY + 1)]
    seen = set()
    for path in asked:
        for method in ("GET", "HEAD", "POST"):
            answer = world.client.open(path, method=method)
            seen.add(answer.status_code)
            headers = answer.headers
            assert headers["Content-Security-Policy"] == POLICY, path
            assert {name: headers[name] for name in HEADERS} == HEADERS, path
            assert "Set-Cookie" not in headers, path
            assert "Cache-Control" in headers or answer.status_code in (302, 405), path
            answer.close()
    assert {200, 302, 400, 404, 405, 414} <= seen
    assert not seen & {500, 501, 502}


def test_the_policy_allows_nothing_inline_and_nobody_else() -> None:
    assert "unsafe" not in POLICY and "http" not in POLICY and "*" not in POLICY
    for directive in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert directive in POLICY


def test_only_get_and_head_but_for_verify_now(world: Explored) -> None:
    for path in [f"/{world.shown.slug}{one}" for one in addresses(world)] + ["/", "/api", "/static/app.css"]:
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY"):
            answer = world.client.open(path, method=method)
            assert answer.status_code == 405, (method, path)
            assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD"}, (method, path)


def test_head_is_get_without_a_body(world: Explored) -> None:
    for path in addresses(world, "3-2"):
        got, head = world.get(path), world.client.head(f"/{world.shown.slug}{path}")
        assert (head.status_code, head.content_type) == (got.status_code, got.content_type), path
        assert head.data == b"" and head.headers.get("ETag") == got.headers.get("ETag"), path


# ---- who may ask ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["explorer.example", "EXPLORER.example:8600", "127.0.0.1:1", "[::1]", "[::1]:8600"])
def test_its_own_names(shut: Explored, host: str) -> None:
    assert shut.client.get("/", headers={"Host": host, **bearer(SECRET)}).status_code == 302


@pytest.mark.parametrize(
    "host",
    ["evil.example", "explorer.example.evil.example", "127.0.0.1.evil.example", "127.0.0.2", "", "a b", "[::2]", "::1"],
)
def test_another_name_is_told_nothing(shut: Explored, host: str) -> None:
    for path in ("/", f"/{shut.shown.slug}/updates.json", "/static/app.css"):
        answer = shut.client.get(path, headers={"Host": host, **bearer(SECRET)})
        assert answer.status_code == 421, path
        assert shut.shown.slug not in answer.text and "four clinics" not in answer.text


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def basic(told: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(told.encode()).decode()}


OURS = {"Host": "127.0.0.1"}


@pytest.mark.parametrize("given", [bearer(SECRET), basic(f"anybody:{SECRET}"), basic(f":{SECRET}")])
def test_who_knows_the_secret(shut: Explored, given: dict[str, str]) -> None:
    answer = shut.get("/updates.json", headers={**OURS, **given})
    assert answer.status_code == 200
    assert "Authorization" in answer.headers["Vary"]


@pytest.mark.parametrize(
    "given",
    [
        {},
        bearer(""),
        bearer(SECRET[:-1]),
        bearer(SECRET + "x"),
        bearer(SECRET.upper()),
        basic(SECRET),
        basic(f"{SECRET}:"),
        basic("a:b"),
        {"Authorization": SECRET},
        {"Authorization": f"Digest {SECRET}"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + base64.b64encode(b"\xff:\xfe").decode()},
        {"Authorization": "Basic"},
        {"Authorization": "Bearer \xe4\xff"},
    ],
)
def test_who_does_not_is_told_nothing(shut: Explored, given: dict[str, str]) -> None:
    for path in (
        "/",
        "/nothing",
        f"/{shut.shown.slug}",
        f"/{shut.shown.slug}/updates.csv",
        "/openapi.json",
        "/static/app.css",
    ):
        answer = shut.client.get(path, headers={**OURS, **given})
        assert answer.status_code == 401, path
        assert [one.split()[0] for one in answer.headers.getlist("WWW-Authenticate")] == ["Basic", "Bearer"]
        assert shut.shown.slug not in answer.text and "four clinics" not in answer.text
        assert answer.headers["Cache-Control"] == "no-store"


def test_a_user_and_password_are_one_secret(tmp_path: Path) -> None:
    one = over(founded(["a"]), tmp_path, secret="ada:a long password")
    try:
        assert one.get("/updates", headers=basic("ada:a long password")).status_code == 200
        assert one.get("/updates", headers=basic("eve:a long password")).status_code == 401
    finally:
        one.stop()


# ---- strangers' text -----------------------------------------------------------------------------------------------


class Scanned(html.parser.HTMLParser):
    """Elements and attributes of a page, and what in them could run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.bad: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag == "script" and not (known.get("src") or "").startswith("/static/"):
            self.bad.append(f"script {known}")
        if tag in ("iframe", "object", "embed", "base", "style", "img"):
            self.bad.append(tag)
        for name, value in attrs:
            told = (value or "").strip().lower()
            if name.startswith("on") or name == "style":
                self.bad.append(f"{tag} {name}")
            if name in ("href", "src", "action", "formaction") and not told.startswith(("/", "#")):
                self.bad.append(f"{tag} {name}={value}")
            self.texts.append(value or "")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def hidden(text: str) -> list[str]:
    """Characters that steer or hide; line ends of our own templates are none."""
    return [one for one in text if (unicodedata.category(one)[0] == "C" and one != "\n") or one in "\u2028\u2029\ufffd"]


def test_hostile_text_is_only_ever_text(hostile: Explored) -> None:
    pages = [one for one in addresses(hostile) if "." not in one.rsplit("/", 1)[-1]]
    pages += [f"/entries/{index}" for index in range(hostile.json("/entries.json")["federation"]["size"])]
    pages += [f"/updates/{row['update'].replace('#', '-')}" for row in hostile.json("/updates.json")["rows"]]
    pages += [f"/peers/{number}" for number in (*range(1, 13), 2**32 - 1)]
    pages += [f"/sites/{number}" for number in range(1, 13)]
    pages += [
        "/search?q=%3Cscript%3E",
        "/updates?site=1",
        "/search?q=%22%20onload=%22",
        "/updates?q=%3Cscript%3E",
        "/%3Cscript%3E",
    ]
    shown = literal = 0
    for path in pages:
        answer = hostile.get(path)
        if answer.status_code == 302:
            continue
        scanned = Scanned(answer.text)
        assert not scanned.bad, (path, scanned.bad)
        assert not [text for text in scanned.texts if hidden(text)], path
        shown += sum("<script>alert(1)</script>" in text for text in scanned.texts)
        literal += sum("{{ 7 * 7 }}{% raw %}" in text for text in scanned.texts)
        assert (
            "<script>alert" not in answer.text and "<img src=x" not in answer.text and 'onload="' not in answer.text
        ), path
    assert shown > 5 and literal > 5


def test_hostile_names_reach_json_as_they_are(hostile: Explored) -> None:
    names = {row["name"] for row in hostile.json("/sites.json?limit=500")["rows"]}
    assert set(HOSTILE) - {""} <= names


def test_no_cell_of_any_list_is_a_formula(hostile: Explored) -> None:
    lists = [page.rule for page in PAGES.values() if page.listing is not None]
    assert {"/updates", "/entries", "/sites", "/peers"} <= set(lists)
    cells = 0
    for rule in lists:
        answer = hostile.get(f"{rule}.csv")
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert answer.headers["Content-Disposition"].startswith("attachment; filename=")
        for row in csv.reader(io.StringIO(answer.text, newline="")):
            for cell in row:
                first = next((one for one in cell if unicodedata.category(one)[0] not in "CZM"), "")
                assert first not in ("=", "+", "@", "＝", "＋", "＠"), (rule, cell)
                assert first != "-" or cell.lstrip("-").replace(".", "", 1).isdigit(), (rule, cell)
                cells += cell.startswith("'")
    assert cells > 3


def test_headers_cannot_be_injected(hostile: Explored) -> None:
    for name in (*HOSTILE, "x\r\nSet-Cookie: a=b", "3-1\r\nX: y"):
        told = quote(name, safe="")
        for path in (f"/search?q={told}", f"/{told}", f"/updates/{told}", f"/content/{told}"):
            answer = hostile.get(path)
            assert answer.status_code in (200, 302, 400, 404), (path, answer.status_code)
            for key, value in answer.headers:
                assert "\r" not in value and "\n" not in value and key not in ("Set-Cookie", "X"), path
            if answer.status_code == 302:
                assert f"{answer.headers['Location']}/".startswith(f"/{hostile.shown.slug}/"), path


# ---- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example/updates",
        "//evil.example",
        "/\\evil.example",
        "/%2f%2fevil.example",
        "/%5cevil.example",
        "/https://evil.example",
        "///",
        "/./",
        "/%2e%2e/",
    ],
)
def test_nobody_is_sent_to_a_stranger(world: Explored, path: str) -> None:
    answer = world.client.get("/", environ_overrides={"PATH_INFO": unquote(path)})
    location = answer.headers.get("Location", "/")
    assert answer.status_code == 404 or location == f"/{world.shown.slug}"
    assert location.startswith("/") and not location.startswith(("//", "/\\"))


@pytest.mark.parametrize(
    "name",
    [
        "../app.py",
        "..%2fapp.py",
        "%2e%2e/app.py",
        "..\\app.py",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "app.css/..",
        "app.css%00",
        "vendor",
        "vendor/",
        "vendor/../app.css",
        "",
        "nothing.css",
        "app.css.",
        "APP.CSS",
    ],
)
def test_only_static_files_are_static(world: Explored, name: str) -> None:
    answer = world.client.get(f"/static/{name}")
    assert answer.status_code == 404
    assert "def " not in answer.text and "root:" not in answer.text


@pytest.mark.parametrize(
    "tail",
    [
        "%00",
        "%ff%fe",
        "%",
        "%zz",
        "%u0041",
        "\x00",
        "%0d%0a",
        "a" * 5000,
        "9" * 5000,
        "-1",
        "1e9",
        "0x1",
        "%D9%A3",
        "１",
        "1.0",
    ],
)
def test_odd_addresses_are_told_so(world: Explored, hostile: Explored, tail: str) -> None:
    for one in (world, hostile):
        for path in ("/updates/", "/entries/", "/peers/", "/sites/", "/rounds/", "/content/", "/updates/1-", "/"):
            for suffix in ("", ".json"):
                answer = one.get(f"{path}{tail}{suffix}")
                assert answer.status_code in (400, 404), (path, tail, answer.status_code)
                if suffix and path != "/content/":
                    assert answer.content_type == "application/problem+json"
                    assert answer.get_json()["status"] == answer.status_code


@pytest.mark.parametrize(
    "value",
    ["-1", "9" * 30, "1e400", "nan", "inf", "%00", "%ff", "０", "0x10", "1;2", "' OR 1=1 --", "%F0%9F%92%A5", "null"],
)
def test_odd_values_are_told_so(world: Explored, value: str) -> None:
    asked = 0
    for page in PAGES.values():
        if "<" in page.rule:
            continue
        for name, field in page.query.model_fields.items():
            answer = world.get(f"{page.rule}.json?{field.alias or name}={value}")
            assert answer.status_code in (200, 400), (page.rule, name, value, answer.status_code)
            asked += answer.status_code == 400
    assert asked > 10


def test_parameters_are_known_and_given_once(world: Explored) -> None:
    twice = world.get("/updates.json?peer=1&peer=2")
    assert (twice.status_code, twice.get_json()["title"]) == (400, "Asked twice")
    unknown = world.get("/updates.json?pear=1").get_json()
    assert unknown["status"] == 400 and "pear" in unknown["detail"] and "peer" in unknown["detail"]
    wrong = world.get("/updates.json?peer=two").get_json()
    assert wrong["status"] == 400 and "peer: got two" in wrong["detail"]
    assert world.get("/updates.json?peer=").status_code == 200
    assert world.get("/updates.json?" + "&".join(f"a{n}=1" for n in range(2000))).status_code == 414
    assert world.get("/updates.json?from=1").status_code == 400


# ---- caches and failures -------------------------------------------------------------------------------------------


def test_every_page_has_a_tag_and_is_not_sent_twice(tmp_path: Path) -> None:
    told = hostile_log()
    one = explored(tmp_path, told)
    try:
        tags = {}
        for path in addresses(one):
            answer = one.get(path)
            if path.endswith((".csv", ".jsonl")):
                assert answer.headers["Cache-Control"] == "no-store" and "ETag" not in answer.headers
                continue
            if answer.status_code != 200:
                continue
            tag = tags[path] = answer.headers["ETag"]
            assert tag.startswith('W/"'), path
            assert answer.headers["Cache-Control"] == "private, no-cache"
            for given in (tag, tag.removeprefix("W/"), f'"other", {tag}'):
                again = one.get(path, headers={"If-None-Match": given})
                assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tag), path
            assert one.get(path, headers={"If-None-Match": '"other"'}).status_code == 200, path
        assert len(tags) == len(set(tags.values())) > 15
        told.publish(6, 2, 4, (6, 1, 1_000_000))
        one.look()
        for path, tag in tags.items():
            again = one.get(path, headers={"If-None-Match": tag})
            assert (again.status_code, again.headers["ETag"] != tag) == (200, True), path
    finally:
        one.stop()


def test_what_is_not_there_has_no_tag(world: Explored) -> None:
    answer = world.get("/updates/99-99", headers={"If-None-Match": "*"})
    assert answer.status_code == 404 and "ETag" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store"


def test_pages_differ_by_what_was_asked(world: Explored) -> None:
    tag = world.get("/updates.json?peer=1").headers["ETag"]
    assert world.get("/updates.json?peer=2", headers={"If-None-Match": tag}).status_code == 200


def test_static_files_are_read_once_and_kept_for_ever_by_their_digest(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "a.css").write_text("body {}")
    (tmp_path / "secret.pem").write_text("no")
    reads = []
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or real(path))
    assets = Assets(tmp_path)
    first = assets.find("a.css")
    assert first is not None and assets.find("a.css") is first and len(reads) == 1
    assert assets.version("a.css") == first.digest[:12]
    (tmp_path / "a.css").write_text("body { color: red }")
    changed = assets.find("a.css")
    assert changed is not None and changed.digest != first.digest and len(reads) == 2
    assert assets.find("secret.pem") is None and assets.version("b.css") == ""
    (tmp_path / "a.css").unlink()
    assert assets.find("a.css") is None


def test_only_the_right_digest_is_kept(world: Explored) -> None:
    page = world.get("/updates").text
    address = next(part for part in page.split('"') if part.startswith("/static/app.css?v="))
    kept = world.client.get(address)
    assert kept.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert world.client.get(address, headers={"If-None-Match": kept.headers["ETag"]}).status_code == 304
    for other in ("/static/app.css", "/static/app.css?v=", "/static/app.css?v=0123"):
        assert world.client.get(other).headers["Cache-Control"] == "no-cache"


def test_an_index_that_cannot_be_read_is_a_503(tmp_path: Path, monkeypatch: Any) -> None:
    one = over(founded(["a"]), tmp_path)

    def broken(*_: Any) -> Any:
        raise sqlite3.OperationalError("disk I/O error at /home/somebody")

    try:
        monkeypatch.setattr(type(one.shown.store), "reading", broken)
        for path in ("/updates", "/updates.json", "/nothing", "/entries/1.json"):
            answer = one.get(path)
            assert answer.status_code in (503, 404), path
            assert "somebody" not in answer.text
            if answer.status_code == 503:
                assert answer.headers["Retry-After"]
    finally:
        monkeypatch.undo()
        one.stop()


def test_a_list_that_is_not_read_to_its_end_hinders_nobody(tmp_path: Path) -> None:
    one = over(played(), tmp_path)
    try:
        begun = one.get("/entries.csv")
        assert one.get("/updates.json").status_code == 200
        begun.close()
        assert one.json("/updates/3-2.json")["update"]["update"] == str(UpdateRef(3, 2))
    finally:
        one.stop()


def test_an_address_with_a_slash_too_many_leads_to_the_page(world: Explored) -> None:
    home = f"/{world.shown.slug}"
    for path in ("/", "/updates/", "/updates/2-2/"):
        answer = world.get(path)
        assert (answer.status_code, answer.headers["Location"]) == (302, f"{home}{path.rstrip('/')}"), path
    assert world.get("/a%0d%0ab%3fc/").headers["Location"] == f"{home}/a%0D%0Ab%3Fc"
    for path in ("/elsewhere.example/", f"/elsewhere.example{home}/"):
        assert world.client.get(path).status_code == 404, path
    told = world.get("/rounds/x")
    assert told.status_code == 404 and "Nothing here has this address" in told.text
