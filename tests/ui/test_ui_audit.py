"""The audit page, "verify now" and evidence packs."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ui_demo import Left
from ui_logs import Explored, closing, over, played
from ui_reports import Audits, finding, printed

from fl_node.audit.verdicts import CHECKS

OWN = {"Sec-Fetch-Site": "same-origin"}
JSON = {"Accept": "application/json"}


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Explored]:
    yield from closing(over(played(), tmp_path, verify=True))


@pytest.fixture
def audits(monkeypatch: pytest.MonkeyPatch) -> Audits:
    return Audits(monkeypatch)


def post(one: Explored, path: str, **headers: str) -> Any:
    return one.client.post(
        f"/{one.shown.slug}{path}", headers={name.replace("_", "-"): v for name, v in headers.items()}
    )


def audited(one: Explored, audits: Audits) -> None:
    """An audit of the whole log with results of every kind."""
    found = {
        "1#1": [finding("bytes"), finding("merge", "failed", "base 0a1b is not 2c3d")],
        "1#2": [finding("bytes"), finding("merge", "failed", "base 9f8e is not 7a6b")],
        "2#1": [
            finding("bytes", "unknown", "nobody gives bafkreigr7a6egvta47a4dnqb67hxjeawrvhloocgq5xmcqkb2pnp2yxhuq")
        ],
        "3#1": [finding("originality", "suspicious", "it is <b>much</b> like 1#1")],
        "4#1": [finding("score", "outlier", "claims 99 %, others 41 %"), finding("bytes")],
        "6#1": [finding("bytes"), finding("merge")],
    }
    audits.code, audits.says = 40, printed(one, found)
    assert post(one, "/audit/verify", **OWN).status_code == 303
    assert one.shown.jobs.work()


# ---- the page ------------------------------------------------------------------------------------------------------


def test_before_any_audit_nothing_is_claimed(one: Explored) -> None:
    page = one.json("/audit.json")
    assert page["last"] is None and page["audited"] == 0 and page["groups"] == [] and not page["current"]
    text = one.get("/audit").text
    assert "No update has been audited here yet" in text and "neither that all is well" in text
    assert page["command"] == "fl-node audit --federation federation.toml"


def test_failures_first_and_those_that_say_the_same_together(one: Explored, audits: Audits) -> None:
    audited(one, audits)
    page = one.json("/audit.json")
    assert [(group["result"], group["check"], group["updates"]) for group in page["groups"]] == [
        ("failed", "merge", 2),
        ("suspicious", "originality", 1),
        ("unknown", "bytes", 1),
        ("outlier", "score", 1),
    ]
    assert page["groups"][0]["first"] == ["1#1", "1#2"] and page["groups"][0]["detail"] == "base 0a1b is not 2c3d"
    assert page["groups"][0]["repeat"] == "repeat merge"
    assert page["audited"] == 6 and page["updates"] == 31 and page["current"]
    assert page["verdicts"] == {"failed": 2, "suspicious": 1, "unknown": 1, "outlier": 1, "ok": 1}
    assert page["last"]["verdict"] == "failed" and page["last"]["root"] == page["federation"]["root"]
    assert [one["result"] for one in page["federation_findings"]] == ["unknown", "ok"] and page["notes"] == ["a note"]
    merge = next(check for check in page["checks"] if check["check"] == "merge")
    assert merge["results"] == {"failed": 2, "ok": 1}
    text = one.get("/audit").text
    assert "&lt;b&gt;much&lt;/b&gt;" in text and "<b>much</b>" not in text
    assert text.index("originality</th>") > text.index("merge</th>")


def test_filters_are_in_the_address(one: Explored, audits: Audits) -> None:
    audited(one, audits)
    by_result = one.json("/audit.json?result=unknown")["groups"]
    assert [group["check"] for group in by_result] == ["bytes"]
    fine = one.json("/audit.json?result=ok&check=bytes")["groups"]
    assert [(group["check"], group["updates"]) for group in fine] == [("bytes", 4)]
    assert one.json("/audit.json?check=score")["groups"][0]["result"] == "outlier"
    assert one.json("/audit.json?result=failed&check=bytes")["groups"] == []
    for wrong in ("result=good", "check=nonsense", "page=3"):
        assert one.get(f"/audit.json?{wrong}").status_code == 400


def test_every_finding_as_csv_and_json_lines(one: Explored, audits: Audits) -> None:
    audited(one, audits)
    rows = list(csv.DictReader(io.StringIO(one.get("/audit.csv").text)))
    assert [(row["update"], row["check"], row["result"]) for row in rows] == [
        ("1#1", "merge", "failed"),
        ("2#1", "bytes", "unknown"),
        ("3#1", "originality", "suspicious"),
        ("4#1", "score", "outlier"),
        ("1#2", "merge", "failed"),
    ]
    lines = one.get("/audit.jsonl?result=ok").text.splitlines()
    assert len(lines) == 5 and {json.loads(line)["result"] for line in lines} == {"ok"}


def test_that_the_log_went_on_is_said(one: Explored, audits: Audits) -> None:
    audited(one, audits)
    assert one.world is not None
    one.world.admit("another")
    one.look()
    assert not one.json("/audit.json")["current"] and "The log has changed since" in one.get("/audit").text
    assert "Verify the whole log again" in one.get("/audit").text


def test_a_result_that_stands_has_no_button(one: Explored, audits: Audits) -> None:
    audits.says = printed(one, {"1#1": [finding("bytes")]}, about="ok")
    for path in ("/updates/1-1/verify", "/audit/verify"):
        post(one, path, **OWN)
        one.shown.jobs.work()
    page = one.json("/audit.json")
    assert page["verify_url"] == "" and "that result stands" in page["why_not"]
    text = one.get("/updates/1-1").text
    assert "this result stands" in text and "<form method" not in text
    assert one.world is not None
    one.world.admit("another")
    one.look()
    assert one.json("/audit.json")["verify_url"] and "Verify again" in one.get("/updates/1-1").text


def test_what_is_under_way_is_told_on_the_page_and_by_the_version(one: Explored, audits: Audits) -> None:
    before = one.get("/audit").headers["ETag"]
    post(one, "/updates/1-1/verify", **OWN)
    page = one.json("/audit.json")
    assert [(run["scope"], run["state"]) for run in page["under_way"]] == [("update 1#1", "queued")]
    assert one.get("/audit").headers["ETag"] != before
    assert "Under way" in one.get("/audit").text


# ---- the panel of one update ---------------------------------------------------------------------------------------


def test_the_panel_goes_from_a_button_to_badges(one: Explored, audits: Audits) -> None:
    before = one.get("/updates/1-1").text
    assert "Verify now" in before and "has not audited this update yet" in before
    assert "fl-node audit --federation federation.toml --from" in before
    post(one, "/updates/1-1/verify", **OWN)
    assert "Waiting to be verified" in one.get("/updates/1-1").text
    audits.code = 40
    audits.says = printed(one, {"1#1": [finding("bytes"), finding("merge", "failed", "base differs")]})
    one.shown.jobs.work()
    after = one.get("/updates/1-1").text
    assert "Verify again" in after and "Within ten minutes" in after
    assert "base differs" in after and "repeat merge" in after
    for check in CHECKS:
        if check.name != "opening":
            assert check.name in after
    assert "Not proved" in after and "not checked" in after


def test_a_failed_audit_says_why(one: Explored, audits: Audits) -> None:
    audits.code, audits.words = 11, "the chain at http://127.0.0.1:9 does not answer"
    post(one, "/updates/1-1/verify", **OWN)
    one.shown.jobs.work()
    text = one.get("/updates/1-1").text
    assert "gave no result" in text and "does not answer" in text


# ---- verify now ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:81"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        {"Origin": "http://[::1"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/updates/1-1/verify", "/audit/verify"])
def test_other_sites_cannot_have_anything_audited(one: Explored, path: str, headers: dict[str, str]) -> None:
    answer = one.client.post(f"/{one.shown.slug}{path}", headers=headers)
    assert answer.status_code == 403 and "Origin: http://localhost" in answer.text
    assert one.json("/audit.json")["under_way"] == []


def test_our_own_pages_can(one: Explored) -> None:
    answer = post(one, "/updates/1-1/verify", **OWN)
    assert answer.status_code == 303
    assert answer.headers["Location"] == f"/{one.shown.slug}/updates/1-1#verdicts"
    told = post(one, "/updates/2-1/verify", Origin="http://localhost", **JSON)
    assert told.status_code == 202
    assert told.get_json() == {
        "scope": "update 2#1",
        "state": "queued",
        "detail": "",
        "url": f"/{one.shown.slug}/updates/2-1",
    }
    assert not any(name == "Set-Cookie" for name, _ in answer.headers)


def test_get_does_nothing(one: Explored) -> None:
    for path in ("/updates/1-1/verify", "/audit/verify"):
        answer = one.get(path)
        assert answer.status_code == 405 and "POST" in answer.headers["Allow"]


@pytest.mark.parametrize("ref", ["99-1", "1-99", "x", "1", "1-1-1", "-1--1", "1%231x"])
def test_of_an_update_that_is_not_there(one: Explored, ref: str) -> None:
    assert post(one, f"/updates/{ref}/verify", **OWN).status_code == 404


def test_too_many_are_told_when_to_come_back(one: Explored) -> None:
    for ref in ("1-1", "1-2", "1-3", "2-1", "2-2", "2-3", "3-1", "4-1"):
        assert post(one, f"/updates/{ref}/verify", **OWN).status_code == 303
    answer = post(one, "/updates/4-2/verify", **OWN)
    assert answer.status_code == 429 and answer.headers["Retry-After"] == "30" and "8 are waiting" in answer.text


def test_an_explorer_that_audits_nothing_says_so(tmp_path: Path) -> None:
    one = over(played(), tmp_path, verify=False)
    assert post(one, "/updates/1-1/verify", **OWN).status_code == 403
    assert post(one, "/audit/verify", **OWN).status_code == 403
    assert one.get("/audit/pack.zip?all=1").status_code == 403
    page = one.json("/audit.json")
    assert page["verify_url"] == page["pack_url"] == "" and "--no-verify" in page["why_not"]
    text = one.get("/audit").text
    assert "<form method" not in text and "fl-node export" in text
    assert "<form method" not in one.get("/updates/1-1").text
    one.stop()


def test_a_log_that_is_too_long_is_left_to_the_reader(one: Explored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger_ui.pages.audit.MOST_UPDATES", 10)
    assert post(one, "/audit/verify", **OWN).status_code == 413
    assert "31 updates" in one.json("/audit.json")["why_not"]


def test_a_kept_result_is_given_at_once(one: Explored, audits: Audits) -> None:
    audits.says = printed(one, {"1#1": [finding("bytes")]})
    post(one, "/updates/1-1/verify", **OWN)
    one.shown.jobs.work()
    again = post(one, "/updates/1-1/verify", **OWN, **JSON)
    assert again.status_code == 200 and again.get_json()["state"] == "done" and len(audits.asked) == 1


# ---- packs ---------------------------------------------------------------------------------------------------------


def test_a_pack_that_is_asked_wrongly(one: Explored) -> None:
    for query, status in (
        ("", 400),
        ("round=1&all=1", 400),
        ("all=2", 400),
        ("update=1-1&blobs=yes", 400),
        ("update=%0a1-1", 400),
        ("round=99", 404),
        ("update=99-1", 404),
        ("round=-1", 400),
    ):
        assert one.get(f"/audit/pack.zip?{query}").status_code == status, query
    assert one.json("/audit.json")["under_way"] == []


def test_another_sites_page_cannot_have_packs_made(one: Explored) -> None:
    answer = one.get("/audit/pack.zip?all=1", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403 and one.json("/audit.json")["under_way"] == []


def test_a_pack_in_the_making_looks_again_by_itself(
    one: Explored, audits: Audits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger_ui.pages.audit._WAIT_S", 0.0)
    audits.says = '{"missing": ["report of 1#1"]}'
    for _ in range(2):
        answer = one.get("/audit/pack.zip?round=1&blobs=1")
        assert answer.status_code == 202 and answer.headers["Refresh"] == "3" and "being made" in answer.text
    assert one.get("/audit/pack.zip?round=1&blobs=1", headers=JSON).get_json()["state"] == "queued"
    assert one.shown.jobs.work() and not one.shown.jobs.work()
    ((*command, out),) = audits.asked
    assert command == ["export", "--federation", str(one.file), "--json", "--round", "1", "--blobs", "--out"]
    answer = one.get("/audit/pack.zip?round=1&blobs=1")
    assert answer.status_code == 200 and answer.data == b"PK made" and answer.mimetype == "application/zip"
    name = f"{one.shown.slug}-round-1-blobs.zip"
    assert answer.headers["Content-Disposition"] == f"attachment; filename={name}"
    assert "report of 1#1" in one.get("/audit").text
    assert not Path(out).exists()


def test_at_another_root_it_is_another_pack(one: Explored, audits: Audits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger_ui.pages.audit._WAIT_S", 0.0)
    audits.says = '{"missing": []}'
    one.get("/audit/pack.zip?all=1")
    one.shown.jobs.work()
    assert one.get("/audit/pack.zip?all=1").status_code == 200
    assert one.world is not None
    one.world.admit("another")
    one.look()
    assert one.get("/audit/pack.zip?all=1").status_code == 202


def test_a_pack_that_cannot_be_made_says_why(one: Explored, audits: Audits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger_ui.pages.audit._WAIT_S", 0.0)
    audits.code, audits.words = 11, "the chain at http://127.0.0.1:9 does not answer"
    one.get("/audit/pack.zip?all=1")
    one.shown.jobs.work()
    answer = one.get("/audit/pack.zip?all=1")
    assert answer.status_code == 503 and "does not answer" in answer.text and "<html" in answer.text


def test_a_pack_that_is_too_large_is_left_to_the_reader(one: Explored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger_ui.pages.audit.MOST_PACKED", {True: 3, False: 20})
    assert one.get("/audit/pack.zip?round=1&blobs=1").status_code == 413
    assert one.get("/audit/pack.zip?all=1").status_code == 413
    assert "fl-node export" in one.get("/audit/pack.zip?all=1").text


# ---- over a real federation ----------------------------------------------------------------------------------------


def test_a_real_audit_and_a_real_pack(left: Left, tmp_path: Path) -> None:
    one = left.explorer(tmp_path, monitor=False)
    one.shown.start()
    assert post(one, "/updates/1-2/verify", **OWN).status_code == 303
    assert post(one, "/audit/verify", **OWN).status_code == 303
    deadline = time.monotonic() + 60
    while one.json("/audit.json")["under_way"] and time.monotonic() < deadline:
        time.sleep(0.2)
    page = one.json("/audit.json")
    assert [run["state"] for run in page["recent"]] == ["done", "done"], page["recent"]
    assert page["current"] and page["audited"] == page["updates"] == 9
    bytes_ = next(check for check in page["checks"] if check["check"] == "bytes")
    assert bytes_["results"] == {"ok": 9}
    assert not {"failed", "suspicious", "contradicted"} & page["verdicts"].keys()
    panel = one.json("/updates/1-2.json")
    assert "ok" in json.dumps(panel)

    answer = one.get("/audit/pack.zip?update=1-2&blobs=1")
    while answer.status_code == 202 and time.monotonic() < deadline:
        time.sleep(0.2)
        answer = one.get("/audit/pack.zip?update=1-2&blobs=1")
    assert answer.status_code == 200
    pack = tmp_path / "pack.zip"
    pack.write_bytes(answer.data)
    one.stop()
    command = [sys.executable, "-m", "fl_node", "verify", str(pack), "--json", "--fail-on", "failed"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert "1#2" in {update["update"] for update in told["updates"]}
