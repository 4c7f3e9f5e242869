"""Random logs and specs for selection: what a contract might hold after people, faults and clocks had their way."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from logs import Log, content, spec

from fl_node.records import Flag, Parent, PeerAnnounced, Reason, Role, UpdatePublished, UpdateRef

SELECTIONS = ("all-latest", "newer-than-merged", "top-k", "best", "above-own", "random-k", "ring", "graph")
GRAPHS = ("ring", "line", "star", "full", "grid", "random-regular", "small-world", "edges")
ROLES = (Role.ALL, Role.ALL, Role.ALL, Role.ALL, Role.PUBLISH, Role.READ | Role.ATTEST)


def random_spec(dice: random.Random, selection: str | None = None, mode: str | None = None):
    """A spec whose keys go together."""
    selection = selection or dice.choice(SELECTIONS)
    mode = "async" if selection == "ring" else mode or dice.choice(("async", "sync"))
    attested = dice.random() < 0.4
    merging = {
        "selection": selection,
        "k": dice.randint(1, 6),
        "scores": "attested" if attested else "claimed",
        "measure": dice.choice(("score", "improvement")),
        "attesting_sites": dice.randint(1, 2),
        "unattested": dice.choice(("leave-out", "zero")),
        "min_samples": dice.choice((0, 0, 40)),
        "max_staleness": dice.randint(1, 4),
        "objection_quorum": dice.randint(1, 2),
        "silent_s": dice.choice((0.5, 7.0, 10.1)),
    }
    if selection == "graph":
        merging |= {"graph": dice.choice(GRAPHS), "degree": dice.randint(1, 5), "rewire": dice.choice((0.0, 0.3, 1.0))}
        if merging["graph"] == "edges":
            merging["edges"] = tuple((dice.randint(1, 9), dice.randint(1, 9)) for _ in range(6))
    if selection == "ring":
        merging["rings"] = dice.choice(((), ((1, 2, 3), (4, 3, 5)), ((2, 1), (3, 4, 5, 6))))
        merging["initiator"] = dice.randint(1, 4)
    return spec(
        merging=merging,
        rounds={"mode": mode, "quorum": dice.choice((1.0, 0.6)), "deadline_s": 30.0},
        attestation={"mode": dice.choice(("all", "sample")), "k": dice.randint(1, 4), "every": dice.choice((1, 1, 2))},
    )


def random_log(dice: random.Random, peers: int, steps: int, log: Log | None = None) -> Log:
    """Updates, attestations, objections, retirements and admissions as the contract would take them."""
    log = log or Log()
    for _ in range(peers):
        log.admit(f"site-{dice.randint(1, peers)}", dice.choice(ROLES))
    published: list[UpdateRef] = []
    spoken: set[tuple[str, int, UpdateRef]] = set()
    retired: set[int] = set()
    for _ in range(steps):
        log.at(log.time_s + dice.choice((0, 0, 1, 3, 11)))
        peer, what = dice.randint(1, log.members), dice.random()
        if peer in retired:
            continue
        prefix = log.prefix
        roles = prefix.peer(peer).roles
        if what < 0.5 and roles & Role.PUBLISH:
            published.append(_published(dice, log, prefix, peer))
        elif what < 0.75 and published and roles & Role.ATTEST:
            wanted = [ref for ref in dice.sample(published, min(4, len(published))) if ref.peer != peer]
            wanted = [ref for ref in wanted if ("attest", peer, ref) not in spoken]
            spoken |= {("attest", peer, ref) for ref in wanted}
            if wanted:
                base = dice.randint(0, 9) * 100_000
                log.attest(peer, *wanted, score=dice.randint(0, 10) * 100_000, base_score=base)
        elif what < 0.9 and published:
            ref = dice.choice(published[-8:])
            if ("object", peer, ref) not in spoken:
                spoken.add(("object", peer, ref))
                reason = Reason.WITHDRAWN if ref.peer == peer else dice.choice(list(Reason)[:3])
                log.object(peer, ref, reason)
        elif what < 0.93:
            retired.add(peer)
            log.retire(peer, from_index=dice.randint(1, len(log.entries)))
        elif what < 0.95:
            log.admit(roles=dice.choice(ROLES))
        else:
            log.announce(peer, 1, "http://x")
    return log


def orderly_log(dice: random.Random, peers: int, rounds: int, log: Log | None = None) -> Log:
    """Round after round as honest peers play them, with some late, some silent, and most attested by most."""
    log = log or Log()
    for _ in range(peers):
        log.admit(f"site-{dice.randint(1, peers)}", dice.choice(ROLES))
    for round_number in range(1, rounds + 1):
        fresh = []
        for peer in dice.sample(range(1, log.members + 1), log.members):
            facts = log.prefix.peer(peer)
            latest = log.prefix.latest(peer)
            if facts.publishes and dice.random() < 0.9 and (latest is None or latest.round < round_number):
                log.at(log.time_s + dice.choice((0, 1, 2, 16)))
                score, base = dice.randint(0, 10) * 100_000, dice.randint(0, 10) * 100_000
                fresh.append(
                    log.publish(peer, round_number, score=score, base_score=base, samples=dice.choice((10, 50)))
                )
        for peer in dice.sample(range(1, log.members + 1), log.members):
            if log.prefix.peer(peer).active and log.prefix.peer(peer).roles & Role.ATTEST and dice.random() < 0.8:
                for ref in fresh:
                    if ref.peer != peer and dice.random() < 0.9:
                        log.attest(peer, ref, score=dice.randint(0, 10) * 100_000, base_score=500_000)
        for ref in fresh:
            if dice.random() < 0.1:
                by = dice.randint(1, log.members)
                log.object(by, ref, Reason.WITHDRAWN if by == ref.peer else dice.choice(list(Reason)[:3]))
        if dice.random() < 0.15 and log.prefix.peer(peers).active:
            log.retire(peers, from_index=len(log.entries) - 2)
    return log


class SealedLog(Log):
    """A log of encrypted updates: keys of all kinds, announced at once, late, twice or never; updates sealed by logs
    old and new, that refer to earlier ones, or to what the rules do not allow. By dice of its own."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._epochs: dict[int, int] = {}
        super().__init__()

    def admit(self, site: str = "", roles: Role = Role.ALL) -> int:
        number = super().admit(site, roles)
        if self._dice.random() < 0.8:
            self.announce(number, 1, "http://x")
        return number

    def announce(self, peer: int, epoch: int, endpoint: str) -> int:
        self._epochs[peer] = self._epochs.get(peer, 0) + 1
        return self.add(PeerAnnounced(peer, self._epochs[peer], self._key(), bytes(32), endpoint))

    def publish(self, peer: int, round_number: int, **more: Any) -> UpdateRef:
        # Others' news come in between.
        if self._dice.random() < 0.3:
            other = self._dice.randint(1, self.members)
            if self.prefix.peer(other).active:
                self.announce(other, 1, "http://x")
        ref = super().publish(peer, round_number, **more)
        entry = self.entries[-1]
        assert isinstance(entry.body, UpdatePublished)
        at = self._dice.choice((entry.index, entry.index, entry.index - 1, self._dice.randint(0, entry.index)))
        flags = entry.body.update.flags | (Flag.ENCRYPTED if self._dice.random() < 0.9 else Flag(0))
        update = replace(entry.body.update, flags=flags, sealed_at=at, refers_to=self._reference(ref))
        self.entries[-1] = replace(entry, body=replace(entry.body, update=update))
        return ref

    def _key(self) -> bytes:
        what = self._dice.random()
        if what < 0.7:
            return self._dice.randbytes(31) + b"\x01"
        if what < 0.8:
            return b"one key for several".ljust(32, b"\x01")
        return self._dice.choice((bytes(32), *UNUSABLE))

    def _reference(self, ref: UpdateRef) -> int:
        what = self._dice.random()
        if what < 0.5 or ref.sequence < 2:
            return 0
        if what < 0.9:
            return UpdateRef(ref.peer, ref.sequence - 1).packed()
        return self._dice.choice((ref, UpdateRef(ref.peer % 3 + 1, 1), UpdateRef(ref.peer, 2**32 - 1))).packed()


#: Public keys that nobody can encrypt to: of small order, and beyond the field.
UNUSABLE = tuple(
    number.to_bytes(32, "little")
    for number in (
        1,
        2**255 - 20,
        2**255 - 19,
        2**256 - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
)


def _published(dice: random.Random, log: Log, prefix, peer: int) -> UpdateRef:
    mine = prefix.updates(peer)
    lowest, highest = (mine[-1].round if mine else 0) + 1, prefix.highest_round + 1
    others = [entry for facts in prefix.peers() for entry in prefix.updates(facts.number)]
    chosen = sorted(dice.sample(others, min(len(others), 3)), key=lambda entry: entry.ref)
    parents = tuple(
        Parent(e.ref.peer, e.ref.sequence, content(*_pair(e.ref))[:4], dice.choice((0, 500_000))) for e in chosen
    )
    earliest = mine[-1].index + 1 if mine else 1
    return log.publish(
        peer,
        dice.choice((highest, lowest, highest)) if lowest <= highest else lowest,
        final=dice.random() < 0.06,
        samples=dice.choice((10, 50, 100)),
        score=dice.randint(0, 10) * 100_000,
        base_score=dice.randint(0, 10) * 100_000,
        parents=parents,
        seen=dice.choice((len(log.entries), dice.randint(earliest, len(log.entries)))),
    )


def _pair(ref: UpdateRef) -> tuple[int, int]:
    return ref.peer, ref.sequence
