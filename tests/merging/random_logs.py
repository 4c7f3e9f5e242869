"""Random logs and specs for selection: what a contract might hold after people, faults and clocks had their way."""

from __future__ import annotations

import random

from logs import Log, content, spec

from fl_node.records import Parent, Reason, Role, UpdateRef

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


def random_log(dice: random.Random, peers: int, steps: int) -> Log:
    """Updates, attestations, objections, retirements and admissions as the contract would take them."""
    log = Log()
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


def orderly_log(dice: random.Random, peers: int, rounds: int) -> Log:
    """Round after round as honest peers play them, with some late, some silent, and most attested by most."""
    log = Log()
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
