"""Logs of federations that merge as they should: shares sum to a million, parents are before their children."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from logs import Log, content

from fl_node.merging.selection import select
from fl_node.prefix import Prefix
from fl_node.records import PPM, Parent, Rule, UpdatePublished, UpdateRef
from fl_node.spec import Spec

#: Names of sites that try to be more than names.
HOSTILE = (
    "</text><script>alert(1)</script>",
    '" onload="alert(1)',
    '"];evil->site [label="',
    "back\\slash\\",
    "\\N\\G\\L",
    "&lt;&amp;&#65;",
    "line\nbreak\x1b[2J",
    "\u202egnp.exe\u2028",
    "]]>--><!--",
    "<b>'quoted'</b>",
)


def shared(weights: Mapping[UpdateRef, int]) -> tuple[Parent, ...]:
    """Parents with shares in proportion, what is left over to the first."""
    total = sum(weights.values())
    shares = {ref: weight * PPM // total for ref, weight in sorted(weights.items())}
    if shares:
        shares[next(iter(shares))] += PPM - sum(shares.values())
    return tuple(
        Parent(ref.peer, ref.sequence, content(ref.peer, ref.sequence)[:4], share) for ref, share in shares.items()
    )


def alike(refs: Iterable[UpdateRef]) -> tuple[Parent, ...]:
    return shared(dict.fromkeys(refs, 1))


def ruled(log: Log, rule: int) -> None:
    """Let the entry written last name this rule."""
    entry = log.entries[-1]
    assert isinstance(entry.body, UpdatePublished)
    body = replace(entry.body, update=replace(entry.body.update, rule=rule))
    log.entries[-1] = replace(entry, body=body)


def in_step(peers: int, rounds: int, dice: random.Random, sites: Sequence[str] = (), rule: Rule = Rule.FEDAVG) -> Log:
    """Everybody merges everybody's update of the round before, with weights by chance; the last round is closing."""
    log = Log()
    for number in range(peers):
        log.admit(sites[number] if number < len(sites) else "")
    latest: dict[int, UpdateRef] = {}
    for number in range(1, rounds + 1):
        before = dict(latest)
        for peer in range(1, peers + 1):
            parents = shared({ref: dice.choice((50, 100, 300)) for ref in before.values()}) if before else ()
            latest[peer] = log.publish(peer, number, parents=parents, final=number == rounds)
            if before:
                ruled(log, rule)
        log.at(log.time_s + 10)
    return log


def one_by_one(peers: int, rounds: int, fan_in: int) -> Log:
    """Nobody waits: each merges the latest of the peers before it in the order of the log."""
    log = Log(peers)
    latest: list[UpdateRef] = []
    for number in range(1, rounds + 1):
        for peer in range(1, peers + 1):
            ref = log.publish(peer, number, parents=alike(latest[-fan_in:]))
            latest = [other for other in latest if other.peer != peer] + [ref]
    return log


class Played:
    """A federation whose peers choose by the spec's policy, an update at a time."""

    def __init__(self, rules: Spec, log: Log) -> None:
        self.rules, self.log = rules, log
        self._prefix = log.prefix

    @property
    def prefix(self) -> Prefix:
        self._prefix = self._prefix.extend(self.log.entries[self._prefix.size :])
        return self._prefix

    def play(self, peer: int, number: int, *, final: bool = False, samples: int = 100, **more: int) -> UpdateRef:
        """The peer's update of a round, made from all of the log so far, with equal shares."""
        now_s = self.log.time_s
        chosen = select(self.rules, self.prefix, peer, number, now_s=now_s)
        parents = alike(entry.ref for entry in chosen.candidates)
        return self.log.publish(peer, number, final=final, samples=samples, parents=parents, **more)

    def round(self, number: int, *peers: int, final: bool = False) -> None:
        """Peers play one round, ten seconds after what was last."""
        self.log.at(self.log.time_s + 10)
        for peer in peers:
            self.play(peer, number, final=final)

    def wait(self, seconds: int) -> None:
        """Time goes by, as an entry that changes nothing tells."""
        self.log.at(self.log.time_s + seconds)
        self.log.announce(1, len(self.log.entries), "http://x")
