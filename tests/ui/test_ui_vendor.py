"""Libraries by others: what the manifest says of them is so, and pages load nothing else."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from ui_logs import Explored

from ledger_ui.app import HERE
from ledger_ui.registry import PAGES
from ledger_ui.vendored import FOLDER, Vendored, vendored

ARGUMENTS = {"ref": "2-2", "number": "2", "index": "9", "cid": "none", "name": "none"}


class Loads(HTMLParser):
    """What a page makes a browser fetch or run, by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        source = given.get("href") if tag == "link" else given.get("src")
        if tag in ("link", "script", "img", "iframe", "source", "video", "audio", "embed", "object", "use", "image"):
            self.addresses += [source or given.get("href") or given.get("data") or ""]
        if tag == "script" and source is None:
            self.inline.append("script")
        self.inline += [f"{tag} {name}" for name in given if name == "style" or name.startswith("on")]
        if tag == "style":
            self.inline.append("style")


def loads(html: str) -> Loads:
    found = Loads()
    found.feed(html)
    return found


@pytest.mark.parametrize("one", vendored(), ids=lambda one: one.name)
def test_each_is_as_the_manifest_says(one: Vendored) -> None:
    raw = (FOLDER / one.file).read_bytes()
    assert (len(raw), hashlib.sha256(raw).hexdigest()) == (one.bytes, one.sha256)
    licence = (FOLDER / one.licence_file).read_bytes()
    assert hashlib.sha256(licence).hexdigest() == one.licence_sha256
    assert one.licence in ("ISC", "BSD-3-Clause", "MIT")
    assert b"Copyright" in licence and b"permission" in licence.lower()
    assert one.source.endswith(f"/{one.name}/-/{one.name.rpartition('/')[2]}-{one.version}.tgz")
    assert one.integrity.startswith("sha512-")
    assert one.version.encode() in raw[:200], "the file names its version"


def test_nothing_else_lies_there() -> None:
    named = {name for one in vendored() for name in (one.file, one.licence_file)}
    assert {path.name for path in FOLDER.iterdir()} == {*named, "VENDOR.json"}


def test_pages_load_files_of_ours_only(world: Explored) -> None:
    seen = set()
    for page in PAGES.values():
        path = re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", lambda part: ARGUMENTS[part[1]], page.rule)
        answer = world.get(path)
        html = loads(answer.text)
        assert html.inline == [], path
        for address in html.addresses:
            if address.startswith("#"):
                continue  # a part of the page itself
            parts = urlsplit(address)
            assert not parts.scheme and not parts.netloc and parts.path.startswith("/static/"), (path, address)
            assert (HERE / parts.path.lstrip("/")).is_file(), (path, address)
            assert world.client.get(address).status_code == 200, address
            seen.add(parts.path)
    assert "/static/app.js" in seen


def test_no_static_file_names_an_address_to_load() -> None:
    """Styles and scripts of ours fetch nothing by an address of their own."""
    for path in (HERE / "static").rglob("*"):
        if path.suffix in (".css", ".js") and path.parent != FOLDER:
            text = path.read_text("utf-8")
            assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/)", text), path.name


def test_a_page_that_loads_from_elsewhere_would_be_found() -> None:
    told = loads('<script src="https://cdn.example/x.js"></script><p style="x" onclick="y"><script>1</script>')
    assert told.addresses[0].startswith("https:") and told.inline == ["p style", "p onclick", "script"]
