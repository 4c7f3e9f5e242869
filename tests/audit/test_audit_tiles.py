"""An audit without a chain: the log from a gateway's tiles under a checkpoint, while the federation goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from bare_means import bare
from worlds import an_update

from fl_node import keys
from fl_node.audit.checkpoints import checkpoints
from fl_node.audit.open_means import Where, means_of
from fl_node.audit.run import Scope, audit
from fl_node.audit.tiled import from_tiles
from fl_node.audit.verdicts import Result
from fl_node.content.gateway import Gateway
from fl_node.content.memory import MemoryStore
from fl_node.errors import ChainUnavailable, ContentUnavailable
from fl_node.ledger import checkpoint
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.memory import MemoryChain, MemoryLedger
from fl_node.ledger.note_folder import NoteFolder
from fl_node.log_routes import log_routes
from fl_node.records import ZERO32, LedgerHead, Member, Role
from fl_node.spec import Deployment, deployed_bytes

SIGNER = keys.from_private_key(b"\x07" * 32)
SPEC = b'format = 1\n[content]\nallow_networks = ["127.0.0.0/8"]\nretention_rounds = 1\n'
DEAD = "http://127.0.0.1:1"


@dataclass
class Peer:
    """One peer on a made-up chain, with a gateway that serves its log and what it signed, and no content."""

    ledger: MemoryLedger
    log: LedgerIndex
    notes: NoteFolder
    endpoint: str
    file: Path

    def publish(self, count: int) -> None:
        for _ in range(count):
            self.log.sync()
            sequence = len(self.log.updates()) + 1
            self.ledger.publish(an_update(self.ledger.head(), sequence, sequence), ())
        self.log.sync()

    def sign(self, size: int | None = None) -> Path:
        return self.notes.keep_own(checkpoint.sign(checkpoint.at(self.log, size), SIGNER))


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    chain = MemoryChain([Member(SIGNER.address, "site-1", Role.ALL)], spec_digest=hashlib.sha256(SPEC).digest())
    ledger, notes = chain.ledger(SIGNER.address), NoteFolder(tmp_path / "notes")
    file = tmp_path / "federation.toml"
    identity = chain.identity
    file.write_bytes(
        deployed_bytes(SPEC, Deployment(chain_id=31337, contract=identity.address, first_block=1, rpc=DEAD))
    )
    with LedgerIndex(tmp_path / "log.sqlite", ledger) as log:
        log.sync()
        with Gateway(MemoryStore(), routes=log_routes(log, notes)) as gateway:
            ledger.announce(1, ZERO32, ZERO32, gateway.endpoint)
            log.sync()
            yield Peer(ledger, log, notes, gateway.endpoint, file)


def looked(peer: Peer, note: Path, *checks: str) -> tuple[int, int, dict[str, set[Result]]]:
    """Size of the log, number of checkpoints, and results by check."""
    with means_of(Where(peer.file, tiles=peer.endpoint, checkpoints=[note])) as means:
        report = audit(means, Scope(checks=frozenset(checks)))
        found: dict[str, set[Result]] = {}
        for finding in report.all_findings():
            found.setdefault(finding.check, set()).add(finding.result)
        return means.log.size, len(means.checkpoints), found


def test_what_was_signed_since_is_no_contradiction(peer: Peer) -> None:
    peer.publish(2)
    given = peer.file.with_name("given.note")
    given.write_bytes(peer.sign().read_bytes())
    peer.publish(3)
    peer.sign()
    expected = {"consistent": {Result.OK}, "included": {Result.OK}}
    assert looked(peer, given, "consistent", "included") == (peer.log.size - 3, 1, expected)
    # The larger one, once it is given, is what the log is held against.
    larger = peer.notes.folder / f"own-{peer.log.size:012d}.note"
    assert looked(peer, larger, "consistent", "included") == (peer.log.size, 1, expected)


def test_who_had_to_keep_something_until_when_is_not_known_without_a_chain(peer: Peer) -> None:
    peer.publish(1)
    given = peer.file.with_name("given.note")
    given.write_bytes(peer.sign().read_bytes())
    peer.publish(5)  # beyond the retention of the first
    assert looked(peer, given, "available")[2] == {"available": {Result.UNKNOWN}}


def test_one_that_was_given_and_is_not_the_log_s_fails(peer: Peer) -> None:
    peer.publish(2)
    other = checkpoint.at(peer.log, 2)
    forged = replace(other, root=b"\x05" * 32)
    lie, given = peer.file.with_name("lie.note"), peer.file.with_name("given.note")
    lie.write_bytes(checkpoint.sign(forged, SIGNER).note)
    given.write_bytes(peer.sign().read_bytes())
    with means_of(Where(peer.file, tiles=peer.endpoint, checkpoints=[given, lie])) as means:
        assert [finding.result for finding in checkpoints(means)].count(Result.FAILED) == 1


def test_an_address_and_a_checkpoint_will_do(peer: Peer) -> None:
    peer.publish(1)
    given, contract = peer.sign(), peer.ledger.identity.address
    asked = Where(Path("none"), rpc=DEAD, contract=contract, tiles=peer.endpoint)
    with means_of(replace(asked, checkpoints=[given])) as means:
        assert (means.identity.chain_id, means.identity.address, means.log.size) == (31337, contract, peer.log.size)
        assert means.federation is None and means.blocks is None
    with pytest.raises(ChainUnavailable), means_of(asked):
        pass


def test_a_checkpoint_of_another_ledger_does_not_stand_in_for_the_chain(peer: Peer) -> None:
    peer.publish(1)
    other = replace(checkpoint.at(peer.log), contract=SIGNER.address, size=100)
    note = peer.file.with_name("other.note")
    note.write_bytes(checkpoint.sign(other, SIGNER).note)
    with pytest.raises(ChainUnavailable), means_of(Where(peer.file, tiles=peer.endpoint, checkpoints=[note])):
        pass
    given = Where(peer.file, tiles=peer.endpoint, checkpoints=[note, peer.sign()])
    with means_of(given) as means:
        assert means.log.size == peer.log.size
        assert [finding.result for finding in checkpoints(means)] == [Result.FAILED, Result.OK]


def test_what_the_auditor_names_counts_whoever_serves_it_too(peer: Peer) -> None:
    peer.publish(2)
    regulator = keys.from_private_key(b"\x09" * 32)
    false = checkpoint.sign(replace(checkpoint.at(peer.log, 2), root=b"\x05" * 32), regulator)
    lie, given = peer.notes.folder.with_name("lie.note"), peer.sign()
    lie.write_bytes(false.note)
    given.write_bytes(false.note)  # now the gateway serves it
    good = peer.file.with_name("good.note")
    good.write_bytes(checkpoint.sign(checkpoint.at(peer.log), SIGNER).note)

    def results(*named: Path) -> list[Result]:
        with means_of(Where(peer.file, tiles=peer.endpoint, checkpoints=[*named])) as means:
            return [finding.result for finding in checkpoints(means)]

    assert results(good) == [Result.OK, Result.UNKNOWN]  # a stranger's
    assert results(good, lie) == [Result.OK, Result.FAILED]


class Reader:
    """What is asked of a chain, of the made-up one."""

    def __init__(self, peer: Peer) -> None:
        self._chain = peer.ledger.chain
        self.identity = peer.ledger.identity

    def head(self, depth: int = 0, fresh: bool = False) -> LedgerHead:
        return self._chain.tip(depth).head

    def head_at(self, number: int) -> LedgerHead:
        block = self._chain.block(number)
        assert block is not None
        return block.head


def test_a_gateway_that_is_behind_gives_what_it_signed(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_node.log_routes._FRESH_S", 0.0)
    peer.publish(2)
    size = peer.log.size
    reader: Any = Reader(peer)
    peer.ledger.publish(an_update(peer.ledger.head(), 3, 3), ())  # the peer has not looked since
    with pytest.raises(ContentUnavailable, match="has not got /checkpoint"):
        from_tiles(peer.endpoint, reader, (), 0)
    peer.sign()
    index, on_chain = from_tiles(peer.endpoint, reader, (), 0)
    with index:
        assert (index.size, index.root(), on_chain) == (size, peer.log.root(), size + 1)
        (found,) = [one for one in checkpoints(replace(bare(index), on_chain=on_chain)) if "on_chain" in one.data]
        assert found.result is Result.UNKNOWN and found.asked
        assert not [one for one in checkpoints(replace(bare(index), on_chain=size)) if "on_chain" in one.data]
