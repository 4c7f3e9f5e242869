"""Real peers: what they sign and serve beside their rounds, and what is left when their chain is rewritten."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from consortium import PASSWORD, Consortium, found
from worlds import an_update

from fl_node import keys
from fl_node.__main__ import main
from fl_node.chains import DevChain, call
from fl_node.content.blockstore import Blockstore
from fl_node.content.cid import Cid
from fl_node.content.fetch import Fetcher
from fl_node.ledger import checkpoint, tree
from fl_node.ledger.note_folder import NoteFolder
from fl_node.ledger.tiles import MAX_TILE_BYTES, TileLog
from fl_node.records import LedgerOpened

pytestmark = pytest.mark.xdist_group("node-checkpoints")
EVERY = "4"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Consortium, dict[str, Any]]]:
    """Two peers that took part to the end; what the first served while it waited for the second; a chain to rewrite."""
    with DevChain.start("anvil") as chain:
        made = found(tmp_path_factory.mktemp("checkpoints"), chain, 2)
        before = call(chain.rpc_url, "evm_snapshot")
        first = made.run(1, "--checkpoint-every", EVERY)
        first.until(lambda: first.events("checkpoint"))
        served = {"snapshot": before, **look(made, first.events("ready")[0]["endpoint"])}
        second = made.run(2, "--checkpoint-every", EVERY, fault="slow_training", given=(0.3,))
        assert (second.wait(), first.wait()) == (0, 0), first.stderr + second.stderr
        served["events"] = [event["kind"] for run in (first, second) for event in run.events()]
        yield made, served


def look(made: Consortium, endpoint: str) -> dict[str, Any]:
    with Fetcher(("127.0.0.0/8",)) as fetcher:

        def get(path: str) -> bytes:
            return fetcher.document(f"/{path}", MAX_TILE_BYTES, endpoint)

        note = checkpoint.parse(get("checkpoint"))
        logs = list(TileLog(get, note.checkpoint.size, note.checkpoint.root).logs())
        spec = fetcher.fetch(Cid("raw", made.federation.digest), 1 << 20, [endpoint])
        return {"note": note, "notes": get("checkpoints"), "logs": logs, "tile": get("tile/0/000.p/3"), "spec": spec}


def entries_before(made: Consortium, size: int) -> list[Any]:
    return made.entries()[:size]


def test_a_gateway_serves_checkpoints_tiles_and_the_spec(played: tuple[Consortium, dict[str, Any]]) -> None:
    made, served = played
    note = served["note"]
    assert note.signers == (keys.load(made.states[0] / "key.json", PASSWORD).address,)
    assert checkpoint.parse_all(served["notes"]) == [note]
    written = entries_before(made, note.checkpoint.size)
    assert [(log.topics, log.data) for log in served["logs"]] == [(entry.topics, entry.data) for entry in written]
    assert served["tile"] == b"".join(tree.entry_leaf(entry.topics, entry.data) for entry in written[:3])
    opened = written[0].body
    assert isinstance(opened, LedgerOpened)
    assert hashlib.sha256(served["spec"]).digest() == opened.spec_digest
    assert bytes(served["spec"]) == made.federation.spec_bytes


def test_each_has_the_other_s_checkpoints(played: tuple[Consortium, dict[str, Any]]) -> None:
    made, served = played
    assert not {kind for kind in served["events"] if kind.startswith("alarm") or kind == "checkpoint-failed"}
    folders = [NoteFolder(state / "checkpoints") for state in made.states]
    accounts = [keys.load(state / "key.json", PASSWORD).address for state in made.states]
    size = len(made.entries())
    for folder in folders:
        assert folder.own_sizes()[-1] >= size - 2 * int(EVERY), "signed to the end"
        assert folder.damaged() == [] and folder.conflicts() == [] and folder.incidents() == []
    # The second looked when it signed; the first may have been done by then.
    assert list(folders[1].others()) == [accounts[0]]


def test_the_spec_is_kept_for_ever(played: tuple[Consortium, dict[str, Any]], tmp_path: Path) -> None:
    made, _ = played
    shutil.copytree(made.states[0] / "content", tmp_path / "content")
    store = Blockstore(tmp_path / "content")
    try:
        store.gc(10**6)
        assert store.has(Cid("raw", made.federation.digest))
        (pin,) = [pin for pin in store.pins() if pin.label == "spec"]
        assert pin.round is None
    finally:
        store.close()


def command(
    made: Consortium, capsys: pytest.CaptureFixture[str], *argv: str, state: Path | None = None
) -> tuple[int, Any, str]:
    """Exit code, JSON from stdout, stderr."""
    where = ["--federation", str(made.file), "--state", str(state or made.states[0])]
    code = main(["checkpoint", argv[0], *(where if argv[0] != "list" else where[2:]), "--json", *argv[1:]])
    told = capsys.readouterr()
    return code, json.loads(told.out) if told.out else None, told.err


def test_commands_in_words(
    played: tuple[Consortium, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, _ = played
    monkeypatch.setenv("FL_NODE_PASSWORD", PASSWORD)

    def said(*argv: str, code: int = 0) -> tuple[str, str]:
        where = ["--state", str(made.states[1])]
        assert main(["checkpoint", argv[0], *where, *argv[1:]]) == code
        told = capsys.readouterr()
        assert "Traceback" not in told.err and "defect" not in told.err
        return told.out, told.err

    note, narration = said("sign")
    signed = checkpoint.parse(note.encode())
    assert signed.checkpoint.size == len(made.entries()) and f"signed {signed.checkpoint.size} entries" in narration
    file, stranger, altered = (str(tmp_path / name) for name in ("ours", "stranger", "altered"))
    assert said("sign", "--out", file)[0] == "" and Path(file).read_text() == note
    Path(stranger).write_bytes(checkpoint.sign(signed.checkpoint, keys.from_private_key(b"\x07" * 32)).note)
    Path(altered).write_text(note.replace("\nblock ", "\nblock 1"))
    words, _ = said("verify", file, stranger)
    assert "peer 2 (site-2)" in words and "not a member" in words and words.count("the log extends it") == 2
    words, _ = said("verify", "--offline", file)
    assert signed.signers[0] in words and "extends" not in words
    words, complaint = said("verify", file, altered, code=40)
    assert "does not verify" in words and "altered is no checkpoint, or was altered" in complaint
    longer = checkpoint.sign(replace(signed.checkpoint, size=10**6), keys.from_private_key(b"\x07" * 32))
    Path(stranger).write_bytes(longer.note)
    assert "shorter than signed" in said("verify", stranger, code=40)[1]
    assert said("verify", str(tmp_path / "absent"), code=2)[1].startswith("fl-node: cannot read")
    words, _ = said("list")
    own = NoteFolder(made.states[1] / "checkpoints")
    assert len([line for line in words.splitlines() if line.startswith("own")]) == len(own.own_sizes())
    assert "has no checkpoints yet" in _listed(tmp_path / "empty", capsys)


def _listed(state: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["checkpoint", "list", "--state", str(state)]) == 0
    return capsys.readouterr().out


def test_a_chain_that_its_operator_rewrites_leaves_proofs(
    played: tuple[Consortium, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, served = played
    monkeypatch.setenv("FL_NODE_PASSWORD", PASSWORD)
    own = NoteFolder(made.states[0] / "checkpoints")
    size = next(size for size in own.own_sizes() if size >= 8)
    ours = str(own.folder / f"own-{size:012d}.note")
    code, told, _ = command(made, capsys, "verify", ours)
    assert code == 0 and told["ok"] and told["checkpoints"][0]["holds"]
    assert told["checkpoints"][0]["signers"][0] == {
        "account": keys.load(made.states[0] / "key.json", PASSWORD).address,
        "peer": 1,
        "site": "site-1",
    }
    code, signed, _ = command(made, capsys, "sign")
    assert code == 0 and signed["size"] == len(made.entries())

    # The operator goes back to the beginning and lets the same members have done something else.
    assert call(made.chain.rpc_url, "evm_revert", served["snapshot"])
    for state in made.states:
        (state / "outbox.db").unlink()
    number = 0
    while len(made.entries()) < size:
        number += 1
        for peer in (1, 2):
            ledger = made.peer_ledger(peer)
            if ledger.head().size < size:
                ledger.publish(an_update(ledger.head(), number, number), ())
            ledger.close()

    code, _, complaint = command(made, capsys, "sign")
    assert code == 40 and "not the one that was signed before" in complaint and "Traceback" not in complaint
    assert len(own.incidents()) == 1
    code, told, complaint = command(made, capsys, "verify", ours)
    assert code == 40 and "have the root" in complaint and told["checkpoints"][0]["holds"] is False

    # Somebody who knows the new history only signs it; the two notes of one size are the proof, without any chain.
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    shutil.copy(made.states[1] / "key.json", fresh / "key.json")
    code, theirs, _ = command(made, capsys, "sign", "--out", str(tmp_path / "theirs.note"), state=fresh)
    assert code == 0 and theirs["size"] == size
    proof = tmp_path / "proof.notes"
    proof.write_bytes(Path(ours).read_bytes() + (tmp_path / "theirs.note").read_bytes())
    for files in ([ours, str(tmp_path / "theirs.note")], [str(proof)]):
        code, told, complaint = command(made, capsys, "verify", "--offline", *files)
        assert code == 40 and f"two roots of {size} entries" in complaint
        assert len(told["conflicts"]) == 1 and told["conflicts"][0]["signed_both"] == []
    # The same key on both sides convicts itself.
    again = tmp_path / "again"
    again.mkdir()
    shutil.copy(made.states[0] / "key.json", again / "key.json")
    assert command(made, capsys, "sign", "--out", str(tmp_path / "again.note"), state=again)[0] == 0
    code, told, _ = command(made, capsys, "verify", "--offline", ours, str(tmp_path / "again.note"))
    assert code == 40 and told["conflicts"][0]["signed_both"] == [signed["signers"][0]["account"]]
    code, told, _ = command(made, capsys, "list")
    assert code == 0 and len(told["incidents"]) == 1 and told["own"] and told["damaged"] == []


def test_what_the_chain_has_not_now_is_neither_signed_nor_vouched_for(
    played: tuple[Consortium, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A chain that was cut looks as an endpoint that is behind does, until it grows again."""
    made, _ = played
    monkeypatch.setenv("FL_NODE_PASSWORD", PASSWORD)
    fresh = tmp_path / "state"
    fresh.mkdir()
    shutil.copy(made.states[1] / "key.json", fresh / "key.json")
    ledger = made.peer_ledger(2)
    ledger.announce(ledger.peer(2).epoch + 1, bytes(32), bytes(32), "")
    before = call(made.chain.rpc_url, "evm_snapshot")
    ledger.announce(ledger.peer(2).epoch + 1, bytes(32), bytes(32), "")
    ledger.close()
    note = tmp_path / "longer.note"
    assert command(made, capsys, "sign", "--out", str(note), state=fresh)[0] == 0
    assert call(made.chain.rpc_url, "evm_revert", before)
    for action in (("sign",), ("verify", str(note))):
        code, told, complaint = command(made, capsys, *action, state=fresh)
        assert (code, told) == (11, None) and "which is before block" in complaint
