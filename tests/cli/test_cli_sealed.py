"""Encoding, reference and readers of an update, as ``fl-node show`` and ``fl-node log`` tell them."""

from __future__ import annotations

import hashlib

import pytest

from fl_node.cli import sealed
from fl_node.cli.reading import _words
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.memory import MemoryChain, memory_account
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import ZERO32, Encoding, Flag, Member, Role, Rule, Update, UpdatePublished, UpdateRef

FULL_EVERY = 10


def key(peer: int) -> bytes:
    return hashlib.sha256(b"key %d" % peer).digest()[:31] + b"\x11"


@pytest.fixture
def index() -> LedgerIndex:
    """1#1 is whole and sealed for peers 1 and 2; 1#2 is a change of it, in the clear. Peer 3 has no usable key."""
    members = [Member(memory_account(1), "north"), Member(memory_account(2), "auditor", Role.READ)]
    members.append(Member(memory_account(3), "hollow"))
    chain = MemoryChain(members, spec_digest=ZERO32, genesis_content=ZERO32, genesis_weights=ZERO32)
    ledgers = {peer: chain.ledger(memory_account(peer)) for peer in (1, 2, 3)}
    for peer, recipient in ((1, key(1)), (2, key(2)), (3, (1).to_bytes(32, "little"))):
        ledgers[peer].announce(1, recipient, ZERO32, "")
    for sequence, flags, encoding, refers_to in (
        (1, Flag.ENCRYPTED, Encoding.SAFETENSORS, 0),
        (2, Flag(0), Encoding.INT8_DELTA | 0x80, UpdateRef(1, 1).packed()),
    ):
        head = chain.tip().head
        digest = hashlib.sha256(b"%d" % sequence).digest()
        update = Update(
            *(digest, flags, digest, digest, digest, head.size, head.root, sequence, sequence, 500_000, 400_000, 9, 9),
            *(Rule.GENESIS, encoding, refers_to, head.size if flags else 0),
        )
        ledgers[1].publish(update, [])
    found = LedgerIndex(":memory:", chain.ledger())
    found.sync()
    return found


def update_of(index: LedgerIndex, sequence: int) -> tuple[Prefix, UpdateEntry]:
    prefix = Prefix(index.entries())
    return prefix, prefix.update(UpdateRef(1, sequence))


def test_whom_an_update_is_sealed_for(index: LedgerIndex) -> None:
    prefix, entry = update_of(index, 1)
    told = sealed.told(prefix, entry, FULL_EVERY)
    assert (told["encoding_name"], told["refers_to_update"], told["encrypted"]) == ("f32", None, True)
    assert told["readers"] == [1, 2] and set(told["skipped"]) == {"3"}
    words = sealed.in_words(entry, told, wanted=True)
    assert words["sealed_at"] == f"readable by members and auditors as of entry {entry.update.sealed_at - 1}"
    assert words["readers"] == "peer 1, peer 2" and "no usable X25519 key" in words["skipped"]
    assert words["refers_to"] == "the genesis" and words["flags"] == "encrypted"


@pytest.mark.parametrize("wanted", [True, False])
def test_an_update_in_the_clear_says_so(index: LedgerIndex, wanted: bool) -> None:
    prefix, entry = update_of(index, 2)
    told = sealed.told(prefix, entry, FULL_EVERY)
    assert (told["encoding_name"], told["refers_to_update"], told["readers"]) == ("int8-delta+zstd", "1#1", None)
    words = sealed.in_words(entry, told, wanted=wanted)
    assert words["sealed_at"].startswith("in the clear: anybody can read it")
    assert ("the spec asks for encryption" in words["sealed_at"]) is wanted
    assert words["encoding"] == "int8-delta+zstd, what changed since 1#1" and words["flags"] == "none"


def test_a_reference_too_far_back_is_told(index: LedgerIndex) -> None:
    prefix, entry = update_of(index, 2)
    told = sealed.told(prefix, entry, 0)
    assert "more than 0 references away" in told["reference_trouble"]
    assert sealed.in_words(entry, told, wanted=True)["refers_to"] == told["reference_trouble"]


def test_a_line_of_the_log_says_how_it_is_written(index: LedgerIndex) -> None:
    lines = [_words(entry) for entry in index.entries() if isinstance(entry.body, UpdatePublished)]
    assert [line.rsplit("(", 1)[1] for line in lines] == ["f32, encrypted)", "int8-delta+zstd, in the clear)"]
