"""Objections and merges of what is objected to are the same as a look at every entry finds."""

from __future__ import annotations

import hashlib
import random

from fl_node.audit.reports import had_by, loose_words, words_to_check
from fl_node.audit.spoken import merged_by, objections_by
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.memory import MemoryChain, memory_account
from fl_node.prefix import Prefix
from fl_node.records import Flag, Member, Parent, Reason, Update, UpdateObjected, UpdatePublished, UpdateRef

PEERS = 4


def noisy_log(seed: int) -> Prefix:
    """Rounds in which peers merge some updates of the round before, with share 0 now and then, and object to others."""
    dice = random.Random(seed)
    chain = MemoryChain([Member(memory_account(n), f"site-{n}") for n in range(1, PEERS + 1)])
    ledgers = {n: chain.ledger(memory_account(n)) for n in range(1, PEERS + 1)}

    def content(peer: int, round_: int) -> bytes:
        return hashlib.sha256(bytes([peer, round_])).digest()

    for round_ in range(1, 8):
        for peer, ledger in ledgers.items():
            others = sorted(dice.sample(range(1, PEERS + 1), dice.randint(1, 3))) if round_ > 1 else []
            shares = [1_000_000] + [0] * (len(others) - 1)
            parents = [
                Parent(n, round_ - 1, content(n, round_ - 1)[:4], s) for n, s in zip(others, shares, strict=False)
            ]
            head = chain.tip().head
            kinds = content(peer, round_), Flag(0), *[bytes([9]) * 32] * 3
            ledger.publish(Update(*kinds, head.size, head.root, round_, round_, 1, 1, 1, 1, 1), parents)
        for peer, ledger in ledgers.items():
            target = UpdateRef(dice.randint(1, PEERS), dice.randint(1, round_))
            if target.peer != peer and not objected(chain, peer, target):
                ledger.object(target, dice.choice([Reason.UNAVAILABLE, Reason.MALFORMED]))
    ledgers[1].object(UpdateRef(1, 1), Reason.WITHDRAWN)
    return whole(chain)


def whole(chain: MemoryChain) -> Prefix:
    with LedgerIndex(":memory:", chain.ledger()) as index:
        index.sync()
        return Prefix(index.entries())


def objected(chain: MemoryChain, peer: int, target: UpdateRef) -> bool:
    return any(word.peer == peer for word in whole(chain).objections(target))


def test_each_is_found_where_a_look_at_every_entry_finds_it() -> None:
    for seed in range(3):
        prefix = noisy_log(seed)
        facts = list(prefix.facts())
        words = [
            fact for fact in facts if isinstance(fact.body, UpdateObjected) and fact.body.target.peer != fact.body.peer
        ]
        assert len(words) > 10
        for peer in range(PEERS + 2):
            for start, stop in ((0, prefix.size), (7, 31), (20, 20)):
                expected = [fact for fact in words if fact.body.peer == peer and start <= fact.index < stop]
                assert objections_by(prefix, peer, start, stop) == expected
        for ref in {fact.body.target for fact in words}:
            first: dict[int, tuple[UpdateRef, int]] = {}
            for fact in facts:
                merging = fact.body
                if isinstance(merging, UpdatePublished) and any(p.ref == ref and p.share_ppm for p in merging.parents):
                    first.setdefault(merging.peer, (merging.ref, fact.index))
            assert list(merged_by(prefix, ref).items()) == sorted(first.items())
            told = [
                f"{merging} merged at entry {index}" for n, (merging, index) in sorted(first.items()) if n != ref.peer
            ]
            assert list(had_by(prefix, ref, 0)) == told


def test_every_objection_is_told_once() -> None:
    prefix = noisy_log(5)
    told = [
        word
        for facts in prefix.peers()
        for update in prefix.updates(facts.number)
        for word in words_to_check(prefix, update)
    ]
    told += loose_words(prefix)
    entries = sorted(word.index for _, word in told)
    assert entries == [
        fact.index
        for fact in prefix.facts()
        if isinstance(fact.body, UpdateObjected) and fact.body.target.peer != fact.body.peer
    ]


def test_a_longer_log_is_looked_at_anew() -> None:
    prefix = noisy_log(1)
    part = prefix.upto(prefix.size // 2)
    assert len(objections_by(part, 2, 0, part.size)) < len(objections_by(prefix, 2, 0, prefix.size))
    assert all(fact.index < part.size for fact in objections_by(part, 2, 0, prefix.size))
