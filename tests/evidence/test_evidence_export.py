"""What goes into a pack of one update, of a round, of everything; and what is told of what could not be had."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from given import Given
from packs import MANIFEST, failed, lines_of, taken_apart, verified
from signed_ledger import key

from fl_node.audit.means import Means
from fl_node.audit.memory import MemoryTransactions, StoreBlobs
from fl_node.audit.verdicts import Result
from fl_node.content import car
from fl_node.content.cid import Cid
from fl_node.content.memory import MemoryStore
from fl_node.content.names import cid_of_update
from fl_node.content.protocol import Held
from fl_node.content.unixfs import CHUNK_BYTES, build
from fl_node.errors import ChainUnavailable, ContentUnavailable, LedgerError, MalformedEvidence, UsageError
from fl_node.evidence import limits
from fl_node.evidence.container import Container, Packer
from fl_node.evidence.contents import PackBlobs
from fl_node.evidence.layout import ALL, Scope
from fl_node.evidence.read import open_pack, opened
from fl_node.evidence.write import export
from fl_node.ledger.checkpoint import Checkpoint, sign
from fl_node.records import PeerAdmitted, PeerRetired, UpdateRef
from fl_node.spec import Deployment, parse_federation


@pytest.fixture
def means(played: Given) -> Means:
    return played.means()


def of_update(text: str) -> Scope:
    return Scope("update", update=UpdateRef.parse(text))


def names(path: Path, folder: str) -> set[str]:
    return {name.partition("/")[2].partition(".")[0] for name in taken_apart(path) if name.startswith(folder + "/")}


def test_one_update_comes_with_what_its_base_follows_from(means: Means, tmp_path: Path) -> None:
    out = tmp_path / "one.zip"
    made = export(means, of_update("2#2"), out, blobs=True)
    update = means.prefix.update(UpdateRef(2, 2))
    assert len(update.parents) > 1 and made.updates == 1 and not made.missing
    needed = [update, *(means.prefix.update(parent.ref) for parent in update.parents)]
    assert names(out, "blobs") == {str(cid_of_update(one.update)) for one in needed}
    assert names(out, "reports") == {str(Cid("raw", one.update.report)) for one in needed}
    files = taken_apart(out)
    assert len(lines_of(files, "log")) == len(means.entries)

    # Everything that speaks of these, the opening, and admissions and retirements of all who wrote any of it.
    wanted = {0, *(one.index for one in needed)}
    wanted |= {entry.index for one in needed for entry in means.log.mentions(one.ref)}
    peers = {getattr(means.entries[index].body, "peer", None) for index in wanted}
    wanted |= {
        entry.index
        for entry in means.entries
        if isinstance(entry.body, PeerAdmitted | PeerRetired) and entry.body.peer in peers
    }
    assert [line["index"] for line in lines_of(files, "proofs/inclusion")] == sorted(wanted)
    hashes = [means.entries[index].tx_hash.hex() for index in sorted(wanted)]
    assert [line["hash"] for line in lines_of(files, "transactions")] == list(dict.fromkeys(hashes))
    assert {line["old"] for line in lines_of(files, "proofs/consistency")} == {
        update.update.seen,
        20,
        len(means.entries),
    }

    found = verified(out)
    assert [str(one.ref) for one in found.updates] == ["2#2"] and failed(found) == set()
    by_check = {one.check: one.result for one in found.updates[0].findings}
    assert {by_check[check] for check in ("included", "bytes", "commitment", "merge", "selection", "report")} == {
        Result.OK
    }


def test_a_round(means: Means, tmp_path: Path) -> None:
    out = tmp_path / "round.zip"
    made = export(means, Scope("round", round=3), out)
    of_round = means.prefix.of_round(3)
    assert made.updates == len(of_round) == 5 and made.blobs == 0 and not names(out, "blobs")
    found = verified(out)
    assert {one.ref for one in found.updates} == {one.ref for one in of_round} and failed(found) == set()
    for one in found.updates:
        results = {finding.check: finding.result for finding in one.findings}
        assert results["bytes"] is results["merge"] is Result.UNKNOWN and results["report"] is Result.OK
    assert any("without weights" in note for note in found.notes)
    assert json.loads(taken_apart(out)[MANIFEST[0]])["scope"] == {"kind": "round", "round": 3}


def test_a_scope_that_names_nothing(means: Means, tmp_path: Path) -> None:
    for scope in (of_update("9#9"), of_update("2#99"), Scope("round", round=99), Scope("round", round=0)):
        with pytest.raises(UsageError, match="none is among the 46 entries"):
            export(means, scope, tmp_path / "none.zip")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_and_nothing_half_written(means: Means, tmp_path: Path) -> None:
    out = tmp_path / "pack.zip"
    out.write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists"):
        export(means, ALL, out)
    assert out.read_bytes() == b"mine"

    class Broken:
        def signed(self, hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
            raise LedgerError("in the middle")

    with pytest.raises(LedgerError, match="in the middle"):
        export(replace(means, transactions=Broken()), ALL, out, force=True)
    assert out.read_bytes() == b"mine" and list(tmp_path.iterdir()) == [out]
    export(means, ALL, out, force=True)
    assert failed(verified(out)) == set()
    with pytest.raises(UsageError, match="cannot write"):
        export(means, ALL, tmp_path / "missing" / "pack.zip")
    for place in (Path("/dev/full"), tmp_path):
        with pytest.raises(UsageError, match=r"exists; expected a new file: name another with --out$"):
            export(means, ALL, place, force=True)
    assert Path("/dev/full").is_char_device()


# ---- what could not be had -------------------------------------------------------------------------------------------


def without(played: Given, *gone: Cid) -> StoreBlobs:
    store = MemoryStore()
    for cid, data in played.blobs.items():
        if cid not in gone:
            store.add(data)
    return StoreBlobs({1: store})


def test_gone_bytes_are_told_and_the_rest_is_written(played: Given, means: Means, tmp_path: Path) -> None:
    update = means.prefix.update(UpdateRef(3, 1))
    gone = cid_of_update(update.update), Cid("raw", update.update.report), Cid("raw", means.identity.genesis_content)
    out = tmp_path / "pack.zip"
    made = export(replace(means, blobs=without(played, *gone)), ALL, out, blobs=True)
    assert [what.partition(":")[0] for what in made.missing] == ["the genesis", "weights of 3#1", "report of 3#1"]
    assert made.blobs == 17 and "genesis.safetensors" not in taken_apart(out)
    assert failed(verified(out)) == set()


def test_no_weights_at_all_make_no_pack(means: Means, tmp_path: Path) -> None:
    nobody = replace(means, blobs=StoreBlobs({1: MemoryStore()}))
    with pytest.raises(ContentUnavailable, match=r"none of 18 updates' weights .* without --blobs"):
        export(nobody, ALL, tmp_path / "pack.zip", blobs=True)
    assert not list(tmp_path.iterdir())
    made = export(nobody, ALL, tmp_path / "pack.zip")
    assert len(made.missing) == 19 and failed(verified(tmp_path / "pack.zip")) == set()


def test_without_transactions_spec_or_chain(played: Given, means: Means, tmp_path: Path) -> None:
    class Down:
        def signed(self, hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
            raise ChainUnavailable("it does not answer")

    some = dict(list(played.raws.items())[3:])
    sources = ((MemoryTransactions(some), "3 of 42"), (MemoryTransactions({}), "42 of 42"), (Down(), "does not answer"))
    for number, (transactions, words) in enumerate(sources):
        out = tmp_path / f"{number}.zip"
        made = export(replace(means, transactions=transactions, federation=None), ALL, out)
        assert made.missing[0].startswith("the spec: nobody")
        assert words in made.missing[1] and len(made.missing) == 2
        with open_pack(out) as again:
            assert again.federation is None
        assert failed(verified(out)) == set()


def test_a_log_that_moved_meanwhile(means: Means, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="the log moved"):
        export(replace(means, entries=means.entries[:-1]), ALL, tmp_path / "pack.zip")
    assert not list(tmp_path.iterdir())


# ---- what must not, and what must get into it ------------------------------------------------------------------------


def test_the_deployed_file_without_credentials(means: Means, tmp_path: Path) -> None:
    assert means.federation is not None
    deployment = Deployment(
        chain_id=means.identity.chain_id,
        contract=means.identity.address,
        first_block=means.identity.first_block,
        rpc="https://me:secret@rpc.example/secret/v3?key=secret",
    )
    for rpc, kept in ((deployment.rpc, "https://rpc.example"), ('https://a"b/secret', ""), ("//[::1/secret", "")):
        out = tmp_path / f"{len(kept)}{len(rpc)}.zip"
        given = replace(means.federation, deployment=deployment.model_copy(update={"rpc": rpc}))
        export(replace(means, federation=given), ALL, out)
        found = parse_federation(taken_apart(out)["federation.toml"])
        assert found.spec_bytes == means.federation.spec_bytes and found.deployment is not None
        assert found.deployment.rpc == kept
        assert b"secret" not in out.read_bytes()


def test_checkpoints_that_contradict_the_log_are_evidence_too(means: Means, tmp_path: Path) -> None:
    said = means.checkpoints[0].checkpoint
    forked = sign(replace(said, root=bytes(32)), key("peer 3"))
    beyond = sign(replace(said, size=900, root=bytes(32)), key("peer 3"))
    elsewhere = sign(Checkpoint(1, said.contract, 7, bytes(32), 1, bytes(32), 1, bytes(32)), key("peer 3"))
    given = (*means.checkpoints, beyond, forked, elsewhere, forked)
    out = tmp_path / "pack.zip"
    export(replace(means, checkpoints=given), ALL, out)
    with open_pack(out) as again:
        sizes = [one.checkpoint.size for one in again.checkpoints]
        assert sizes == sorted(sizes) and {one.note for one in again.checkpoints} == {one.note for one in given}
    found = verified(out)
    assert failed(found) == {("", "consistent")}
    # Each by itself, and that two of one size contradict each other.
    assert sum(one.result is Result.FAILED for one in found.findings) == 4


def test_more_than_a_pack_may_hold(means: Means, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_ENTRIES", 45)
    with pytest.raises(MalformedEvidence, match="46 entries, a pack 45"):
        export(means, ALL, tmp_path / "pack.zip")
    monkeypatch.undo()
    monkeypatch.setattr(limits, "MOST_LOG_BYTES", 1000)
    with pytest.raises(MalformedEvidence, match="the log has"):
        export(means, ALL, tmp_path / "pack.zip")
    assert not list(tmp_path.iterdir())


def test_many_lines_are_divided_and_come_back(
    played: Given, means: Means, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_LINES", 7)
    monkeypatch.setattr(limits, "MOST_LINES_BYTES", 70_000)
    monkeypatch.setattr(limits, "MOST_LINE_BYTES", 100_000)
    out = tmp_path / "pack.zip"
    export(means, ALL, out, blobs=True)
    files = taken_apart(out)
    assert sum(name.startswith("log/") for name in files) == 7
    assert sum(name.startswith("transactions/") for name in files) == 6
    assert failed(verified(out)) == set()
    with opened(out) as pack:
        assert list(pack.means.entries) == list(means.entries)
        hashes = [entry.tx_hash for entry in means.entries]
        assert dict(pack.means.transactions.signed(hashes)) == played.raws


# ---- large files -----------------------------------------------------------------------------------------------------


def test_large_files_lie_on_disk_while_they_are_held(tmp_path: Path) -> None:
    """9 MiB with blocks that repeat, as they are and as a CAR: mapped, equal, gone from the folder at once."""
    data = os.urandom(4 * CHUNK_BYTES) + bytes(5 * CHUNK_BYTES) + b"end"
    dag = build(data)

    def leaf(_: Cid, index: int) -> list[memoryview]:
        offset, length = dag.leaf_span(index)
        return [memoryview(data)[offset : offset + length]]

    written = b"".join(car.write(dag, leaf))
    path, scratch = tmp_path / "large.zip", tmp_path / "scratch"
    scratch.mkdir()
    with path.open("w+b") as sink:
        packer = Packer(sink)
        packer.add("blobs/large.car", [written], len(written))
        packer.add("genesis.safetensors", [data], len(data))
        packer.finish()
    with Container(path) as container:
        first, second = container.members.values()
        held: list[Held] = []
        for whole, cars in (({}, {dag.root: first}), ({dag.root: second}, {})):
            blobs = PackBlobs(container, whole, cars, scratch)
            held += [blobs.hold(dag.root, len(data)), blobs.hold(dag.root, len(data))]
    for one in held:
        assert not one.in_memory and bytes(one.data) == data
        one.forget()
        assert bytes(one.data) == data
    assert not list(scratch.iterdir())
