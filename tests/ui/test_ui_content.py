"""Content by CID: only what the log names, checked, in both forms, and nothing that a browser would run."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ui_demo import Left
from ui_logs import digest, explored
from ui_scribe import Scribe

from fl_node.content import car
from fl_node.content.cid import Cid
from fl_node.content.gateway import Gateway
from fl_node.content.memory import MemoryStore
from fl_node.errors import ContentError
from fl_node.records import Flag, PeerAnnounced
from fl_node.spec import parse_federation
from ledger_ui.pages import content

SPEC = """\
format = 1
name = "served"

[content]
fetch_timeout_s = 2.0
allow_networks = ["127.0.0.0/8"]
"""
SMALL, LARGE, PAGE = b"weights", bytes(range(256)) * 16_000, b"<html><script>alert(1)</script>"


class Served:
    """A ledger by hand whose one peer serves what it names."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.store = MemoryStore()
        self.gateway = Gateway(self.store)
        told = Scribe(parse_federation(SPEC.encode()).digest)
        told.admit("north")
        told.say(PeerAnnounced(1, 1, bytes(32), bytes(32), self.gateway.endpoint))
        self.small, self.large, self.page = (self.store.add(data) for data in (SMALL, LARGE, PAGE))
        self.secret = self.store.add(b"served, but named by nobody")
        told.publish(1, 1, 1, content=self.small.digest, report=hashlib.sha256(b'{"a": 1}').digest())
        told.publish(1, 2, 2, content=self.large.digest, flags=Flag.DAG_PB)
        told.publish(1, 3, 3, content=self.page.digest)
        told.publish(1, 4, 4, content=digest("gone"))
        self.one = explored(folder, told, SPEC.encode(), **{"harvest": True, **options})

    def get(self, cid: object, query: str = "", *, hold: bool = False, **more: Any) -> Any:
        """``hold``: the answer is not read, and not closed."""
        answer = self.one.get(f"/content/{cid}{query}", **more)
        if not hold:
            assert answer.data is not None
            answer.close()
        return answer


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    with made.gateway:
        yield made
    made.one.stop()


def test_the_file_and_its_blocks(served: Served) -> None:
    for cid, data in ((served.small, SMALL), (served.large, LARGE)):
        raw = served.get(cid)
        assert raw.status_code == 200 and raw.data == data
        assert raw.headers["Content-Length"] == str(len(data))
        packed = served.get(cid, "?format=car")
        dag, whole = car.read(packed.data, 1 << 30)
        assert dag.root == cid and whole == data
        assert packed.headers["Content-Length"] == str(len(packed.data))
        assert packed.headers["Content-Type"].startswith("application/vnd.ipld.car; version=1")
    assert served.large.codec == "dag-pb"


def test_a_browser_keeps_it_and_does_not_run_it(served: Served) -> None:
    answer = served.get(served.page)
    assert answer.data == PAGE and answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{served.page}.bin"'
    assert answer.headers["Content-Security-Policy"].startswith("sandbox;")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_only_what_the_log_names(served: Served) -> None:
    for name in (served.secret, Cid("raw", digest("x")), Cid("dag-pb", served.small.digest), "x", "..%2f..%2fetc"):
        answer = served.get(name)
        assert answer.status_code == 404, name
    assert "names no content" in served.get(served.secret).text
    assert served.get(served.small, "?format=html").status_code == 400


def test_what_nobody_gives(served: Served) -> None:
    answer = served.get(Cid("raw", digest("gone")))
    assert answer.status_code == 404 and "has not got" in answer.text and "stays as it is" in answer.text


def test_the_spec_is_here_whoever_serves_it(served: Served) -> None:
    answer = served.get(Cid("raw", hashlib.sha256(SPEC.encode()).digest()))
    assert answer.data == SPEC.encode()


def test_a_report_that_is_kept_outlives_its_peers(served: Served) -> None:
    cid = served.store.add(b'{"a": 1}')
    served.one.shown.harvester.reports()
    served.gateway.close()
    answer = served.get(cid)
    assert answer.data == b'{"a": 1}' and answer.headers["Content-Disposition"].endswith('.json"')
    with served.one.shown.store.writing() as db:
        db.execute("UPDATE reports SET body = x'00'")
    assert served.get(cid).status_code == 404, "what was altered here is not passed on"


def test_too_large_a_file(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "MOST_BYTES", 1 << 20)
    assert served.get(served.large).status_code == 413
    assert served.get(served.small).status_code == 200


def test_only_some_at_a_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "_ROOM", threading.BoundedSemaphore(1))
    first = served.get(served.large, hold=True)
    assert served.get(served.small).status_code == 503
    first.close()
    for _ in range(3):
        assert served.get(served.small).status_code == 200, "room is given back, once each"
    assert served.get(Cid("raw", digest("gone"))).status_code == 404
    assert served.get(served.small).status_code == 200


def test_another_sites_page_cannot_have_anything_fetched(served: Served) -> None:
    assert served.get(served.small, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_without_harvest_no_peer_is_asked(tmp_path: Path) -> None:
    made = Served(tmp_path, harvest=False)
    with made.gateway:
        assert made.get(made.small).status_code == 404
        assert made.get(Cid("raw", hashlib.sha256(SPEC.encode()).digest())).status_code == 200
    made.one.stop()


def test_bytes_that_a_liar_serves_are_not_passed_on(served: Served) -> None:
    dag, data = served.store._files[served.small]
    served.store._files[served.small] = (dag, b"forged!")
    answer = served.get(served.small)
    assert answer.status_code == 404 and "other bytes" in answer.text
    served.store._files[served.small] = (dag, data)
    dag, data = served.store._files[served.large]
    served.store._files[served.large] = (dag, data[:-1] + b"!")
    with pytest.raises(ContentError):  # the connection breaks off before its end
        served.get(served.large)


def test_over_a_real_federation(left: Left, tmp_path: Path) -> None:
    one = left.explorer(tmp_path)
    with one.shown.store.reading() as db:
        row = db.execute("SELECT content, report FROM updates WHERE peer = 2 AND sequence = 1").fetchone()
    weights = one.get(f"/content/{Cid('raw', row['content'])}").data
    assert hashlib.sha256(weights).digest() == row["content"]
    report = one.get(f"/content/{Cid('raw', row['report'])}").data
    assert hashlib.sha256(report).digest() == row["report"]
    genesis = (left.folder / "federation.genesis.safetensors").read_bytes()
    assert one.get(f"/content/{Cid('raw', hashlib.sha256(genesis).digest())}").data == genesis
    one.stop()
