"""Bytes by counterpart and kind: what is counted on both sides, what is kept, and how it is told."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_node.__main__ import main
from fl_node.content import cid_of, open_store
from fl_node.content import meter as meter_module
from fl_node.content.fetch import Fetcher
from fl_node.content.gateway import Gateway
from fl_node.content.http_server import text
from fl_node.content.meter import KINDS, Meter, Row, claimed, kind_of
from fl_node.content.unixfs import CHUNK_BYTES, build
from fl_node.errors import ContentMismatch, ContentUnavailable

from .test_fetch import answer, stranger

LOOPBACK = ("127.0.0.0/8",)
LARGE = os.urandom(3 * CHUNK_BYTES + 9)
SMALL = os.urandom(3000)


def settled(look: Callable[[], object], wanted: object) -> None:
    """The gateway counts after it has sent: the reader may be earlier."""
    deadline = time.monotonic() + 10
    while look() != wanted:
        assert time.monotonic() < deadline, (look(), wanted)
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["memory", "embedded"])
def test_both_sides_count_the_same(kind: str, tmp_path: Path) -> None:
    giving, taking = Meter(), Meter()
    source, mine = open_store(kind, tmp_path / "source"), open_store("embedded", tmp_path / "mine")
    report, genesis = os.urandom(500), os.urandom(CHUNK_BYTES + 1)
    for data, label in ((LARGE, "own"), (SMALL, "own"), (report, "report"), (genesis, "genesis"), (b"toml", "spec")):
        source.add(data, label=label)
    routes = {"/checkpoint": lambda _: text(200, "note"), "/tile/": lambda _: text(200, "t" * 63)}
    with (
        Gateway(source, meter=giving, routes=routes) as gateway,
        Fetcher(LOOPBACK, claim=3, meter=taking) as fetcher,
    ):
        at = [gateway.endpoint]
        taking.identify({gateway.endpoint: 2}.get)
        for data, label in ((LARGE, "fetched"), (SMALL, "fetched"), (genesis, "genesis"), (b"toml", "spec")):
            fetcher.fetch_into(mine, cid_of(data), len(data), at, label=label)
        fetcher.fetch(cid_of(report), 500, at, kind="report")
        fetcher.document("/checkpoint", 100, gateway.endpoint)
        fetcher.document("/tile/0/000", 100, gateway.endpoint)
        inner = sum(len(block) for block in build(LARGE).nodes.values())
        sizes = {
            "update": len(LARGE) + inner + len(SMALL),
            "report": 500,
            "genesis": len(genesis) + sum(len(block) for block in build(genesis).nodes.values()),
            "spec": 4,
            "checkpoint": 5,
            "log": 64,
        }
        rows = [{"peer": 3, "kind": kind, "bytes": size} for kind, size in sorted(sizes.items())]
        settled(lambda: giving.table()["sent"], rows)
    assert giving.table() == {
        "sent_bytes": sum(sizes.values()),
        "received_bytes": 0,
        "wasted_bytes": 0,
        "sent": rows,
        "received": [],
    }
    assert taking.table() == {
        "sent_bytes": 0,
        "received_bytes": sum(sizes.values()),
        "wasted_bytes": 0,
        "sent": [],
        "received": [{**row, "peer": 2} for row in rows],
    }


def test_a_block_that_the_reader_did_not_take_is_not_counted_whole() -> None:
    store, meter = open_store("memory", Path()), Meter()
    cid = store.add(os.urandom(40 * CHUNK_BYTES))
    with Gateway(store, meter=meter) as gateway:
        with socket.create_connection((gateway.host, gateway.port), timeout=10) as leaving:
            leaving.sendall(f"GET /ipfs/{cid}?format=car HTTP/1.1\r\n\r\n".encode())
            leaving.recv(1000)
        deadline = time.monotonic() + 20
        while not meter.rows() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sum(row.num_bytes for row in meter.rows()) < 40 * CHUNK_BYTES


def test_what_came_to_nothing_is_wasted() -> None:
    meter = Meter()
    altered = bytes([SMALL[0] ^ 1]) + SMALL[1:]

    def short(connection: socket.socket, _: bytes) -> None:
        connection.sendall(answer(SMALL)[:-1000])
        connection.close()

    with Fetcher(LOOPBACK, meter=meter, timeout_s=5.0) as fetcher:
        lying = stranger(lambda connection, _: connection.sendall(answer(altered)))
        with lying as liar, pytest.raises(ContentMismatch):
            fetcher.fetch(cid_of(SMALL), 10_000, [liar], kind="update")
        with stranger(short) as quitter, pytest.raises(ContentUnavailable):
            fetcher.fetch(cid_of(SMALL), 10_000, [quitter], kind="update")
    assert meter.rows() == sorted(
        [Row("received", None, liar, "update", 0, 3000), Row("received", None, quitter, "update", 0, 2000)],
        key=lambda row: row.place,
    )
    assert (meter.table()["received_bytes"], meter.table()["wasted_bytes"]) == (0, 5000)


@pytest.mark.parametrize(
    ("header", "number"),
    [("3", 3), (None, None), ("0", None), ("-1", None), ("1e3", None), ("٣", None), ("9" * 5000, None), ("3, 4", None)],
)
def test_a_claim_is_a_number_or_nothing(header: str | None, number: int | None) -> None:
    assert claimed(header) == number


def test_kinds() -> None:
    assert {kind_of(label) for label in ("own", "fetched", "latest")} == {"update"}
    assert (kind_of("report"), kind_of("genesis"), kind_of("spec"), kind_of("doctor")) == (
        "report",
        "genesis",
        "spec",
        "other",
    )


def test_counts_survive_a_restart_and_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "traffic.json"
    first = Meter(path)
    first.sent("192.0.2.7", None, "update", 10)
    first.sent("192.0.2.7", 4, "report", 5)
    first.received("http://x:1", "update", 7, 2)
    first.close()
    assert path.stat().st_mode & 0o777 == 0o600
    second = Meter(path)
    second.sent("192.0.2.7", 4, "report", 5)
    assert (second.since, second.rows()) == (
        first.since,
        [
            Row("sent", 4, "", "report", 10, 0),
            Row("sent", None, "192.0.2.7", "update", 10, 0),
            Row("received", None, "http://x:1", "update", 7, 2),
        ],
    )
    assert (second.sent_bytes, second.received_bytes) == (5, 0)  # of this run
    for damage in ("", "{}", '{"format": 9}', '{"format": 1, "since": 1, "rows": [[1]]}', "[" * 10_000):
        path.write_text(damage)
        assert Meter(path).rows() == []
    unwritable = Meter(tmp_path / "absent" / "traffic.json")
    unwritable.sent("192.0.2.7", None, "update", 10)
    unwritable.close()


def test_it_is_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter_module, "_SAVE_S", 0.0)
    meter = Meter(tmp_path / "traffic.json")
    meter.sent("192.0.2.7", 1, "update", 10)
    assert json.loads((tmp_path / "traffic.json").read_text())["rows"] == [["sent", 1, "", "update", 10, 0]]


def test_the_table_is_bounded_and_loses_no_byte() -> None:
    meter = Meter()
    for number in range(1, 201):
        meter.sent("", number, "update", number)
        meter.received(f"http://192.0.2.1:{number}", "report", 1)
    table = meter.table()
    assert table["sent_bytes"] == sum(row["bytes"] for row in table["sent"]) == 200 * 201 // 2
    assert len(table["sent"]) <= 64 and table["sent"][-1]["peer"] is None
    peers = [row["peer"] for row in table["sent"][:-1]]
    assert peers == sorted(peers) and peers[-1] == 200 and min(peers) > 100  # the largest are named
    assert table["received"] == [{"peer": None, "kind": "report", "bytes": 200}]


def test_strangers_with_many_names_take_no_memory_and_hide_no_member() -> None:
    meter = Meter()
    for number in range(1, 11):
        meter.sent("", number, "update", 1_000_000)
    for number in range(5000):
        meter.sent("192.0.2.9", 1000 + number, KINDS[number % 7], 1)
        meter.sent(f"192.0.2.{number}", None, "other", 1)
    rows = meter.rows()
    assert len(rows) <= 1024 + len(KINDS)
    assert sum(row.num_bytes for row in rows) == 10 * 1_000_000 + 10_000
    assert [row.num_bytes for row in rows if row.peer is not None and row.peer <= 10] == [1_000_000] * 10


def test_threads_lose_nothing() -> None:
    meter = Meter()

    def count() -> None:
        for _ in range(2000):
            meter.sent("", 1, "update", 1)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.sent_bytes == meter.table()["sent_bytes"] == 16_000


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"junk", "no whole JSON text: line 1, column 1"),
        (b'{"format": 9, "since": 0, "rows": []}', "its format is 9, expected 1"),
        (b'{"format": 1, "since": 1e999, "rows": []}', "no time"),
        (b'{"format": 1, "since": 0, "rows": [3]}', "no counts as a peer writes them"),
        (b"[]", "no counts as a peer writes them"),
        (b"\xff", "no counts as a peer writes them"),
    ],
)
def test_damaged_counts_are_told_and_counted_anew(
    data: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / meter_module.FILE_NAME
    (tmp_path / "node.toml").write_text("")
    assert main(["traffic", "--state", str(tmp_path)]) == 0
    assert "nothing was counted yet" in capsys.readouterr().out
    file.write_bytes(data)
    meter = Meter(file)
    assert words in meter.damage and meter.rows() == []
    assert main(["traffic", "--state", str(tmp_path)]) == 20
    out, err = capsys.readouterr()
    assert out == "" and f"{file} are damaged" in err and words in err and "Error" not in err
    meter.sent("1.2.3.4", 3, "update", 5)
    meter.close()
    assert Meter(file).damage == "" and main(["traffic", "--state", str(tmp_path)]) == 0
