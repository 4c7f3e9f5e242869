"""Real peers over TLS, each with a certificate of its own: they merge each other, and count what went between them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from consortium import Consortium, found, free_port

from fl_node.__main__ import main
from fl_node.chains import DevChain
from fl_node.content.fetch import Fetcher
from fl_node.content.meter import FILE_NAME, Meter
from fl_node.errors import ContentUnavailable
from fl_node.prefix import Prefix
from fl_node.records import PeerAnnounced, UpdatePublished

pytestmark = pytest.mark.xdist_group("node-transport")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Consortium, dict[str, object]]]:
    """Two peers that took part to the end. The second has no genesis of its own, and gets it from the first."""
    ports = [str(free_port()) for _ in range(2)]
    with DevChain.start("anvil") as chain:
        made = found(
            tmp_path_factory.mktemp("transport"), chain, 2, rounds={"planned": 2, "linger_s": 20.0, "mode": "sync"}
        )
        tls = ("--tls", "generated")
        first = made.run(1, *tls, "--port", ports[0])
        first.until(lambda: made.entries()[-1].kind == "PeerAnnounced")
        genesis = made.file.with_suffix(".genesis.safetensors")
        kept = genesis.read_bytes()
        genesis.unlink()
        second = made.run(2, *tls, "--port", ports[1])
        second.until(lambda: second.events("ready"))
        genesis.write_bytes(kept)
        unpinned = ""
        with Fetcher(("127.0.0.0/8",)) as fetcher:
            try:
                fetcher.document("/checkpoint", 1 << 16, first.events("ready")[0]["endpoint"])
            except ContentUnavailable as refused:
                unpinned = str(refused)
        assert (second.wait(), first.wait()) == (0, 0), first.stderr + second.stderr
        ended = [run.events("ended")[0] for run in (first, second)]
        yield made, {"unpinned": unpinned, "ended": ended, "ports": ports}


def test_pins_are_announced_and_nobody_gets_in_without(played: tuple[Consortium, dict[str, object]]) -> None:
    made, told = played
    said = [entry.body for entry in made.entries() if isinstance(entry.body, PeerAnnounced)]
    for number, state in enumerate(made.states, start=1):
        mine = [body for body in said if body.peer == number]
        assert all(any(body.tls_pin) and body.endpoint.startswith("https://127.0.0.1:") for body in mine)
        assert (state / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert "CERTIFICATE_VERIFY_FAILED" in str(told["unpinned"])


def test_they_merged_each_other(played: tuple[Consortium, dict[str, object]]) -> None:
    made, _ = played
    updates = [entry.body for entry in made.entries() if isinstance(entry.body, UpdatePublished)]
    merged = {(body.peer, parent.peer) for body in updates for parent in body.parents if parent.share_ppm}
    assert {(1, 2), (2, 1)} <= merged
    assert not [entry for entry in made.entries() if entry.kind == "UpdateObjected"]


def test_what_one_sent_the_other_received(played: tuple[Consortium, dict[str, object]]) -> None:
    made, told = played
    tables = [Meter(state / FILE_NAME).table() for state in made.states]
    for own, other in ((0, 1), (1, 0)):
        sent = {row["kind"]: row["bytes"] for row in tables[own]["sent"] if row["peer"] == other + 1}
        received = {row["kind"]: row["bytes"] for row in tables[other]["received"] if row["peer"] == own + 1}
        assert sent["update"] == received["update"] > 0
        assert sent.get("genesis", 0) == received.get("genesis", 0)
    assert [row["bytes"] for row in tables[1]["received"] if row["kind"] == "genesis"] == [
        made.file.with_suffix(".genesis.safetensors").stat().st_size
    ]
    ended = told["ended"]
    assert isinstance(ended, list)
    for table, end in zip(tables, ended, strict=True):
        assert end["sent_bytes"] == table["sent_bytes"]
        assert end["received_bytes"] == table["received_bytes"] + table["wasted_bytes"]


def test_the_command_tells_it(played: tuple[Consortium, dict[str, object]], capsys: pytest.CaptureFixture[str]) -> None:
    made, _ = played
    state = str(made.states[0])
    assert main(["traffic", "--state", state, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    table = Meter(Path(state) / FILE_NAME).table()
    assert {key: told[key] for key in table} == table
    assert sum(row["bytes"] for row in told["rows"] if row["direction"] == "sent") == told["sent_bytes"]
    assert main(["traffic", "--state", state]) == 0
    text = capsys.readouterr().out
    assert "peer 2" in text and "update" in text and f"{told['sent_bytes']:,}" in text
    assert main(["traffic", "--state", f"{state}-absent"]) == 2


def test_a_restart_keeps_the_key_and_announces_nothing(played: tuple[Consortium, dict[str, object]]) -> None:
    made, told = played
    before = [entry.body for entry in made.entries() if isinstance(entry.body, PeerAnnounced)]
    ports = told["ports"]
    assert isinstance(ports, list)
    again = made.run(1, "--tls", "generated", "--port", ports[0])
    assert again.wait() == 0, again.stderr
    assert [entry.body for entry in made.entries() if isinstance(entry.body, PeerAnnounced)] == before
    assert Prefix(made.entries()).peer(1).announcement == before[0]
