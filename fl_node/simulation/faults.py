"""What goes wrong in a simulation, and to whom: drawn from the run's seed, so that the same run has the same faults."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fl_node.errors import UsageError
from fl_node.simulation.attacks import Attack, parse_attack


@dataclass(frozen=True, slots=True)
class Faults:
    """What a simulation asks for. ``stragglers``, ``churn`` and ``malicious`` say how many peers: below 1 a fraction of
    them, rounded to the nearest number; from 1 on that many.

    ``dropout``: probability that a peer misses a round. ``straggle``: a straggler takes as many ticks for a round.
    ``churn``: half of these peers (the larger half) leave in the second half of the planned rounds, the other half join
    late, in the first. ``attack``: see :mod:`fl_node.simulation.attacks`.

    Raises:
        UsageError: a number out of range, an unknown attack.
    """

    dropout: float = 0.0
    stragglers: float = 0.0
    straggle: int = 3
    churn: float = 0.0
    malicious: float = 0.0
    attack: str = "sign-flip"

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"--dropout {self.dropout:g}: expected a probability from 0, below 1")
        if not 2 <= self.straggle <= 1000:
            raise UsageError(f"--straggle {self.straggle}: expected a whole number of ticks from 2 to 1000")
        for flag in ("stragglers", "churn", "malicious"):
            value = getattr(self, flag)
            if not (math.isfinite(value) and value >= 0) or (value >= 1 and value != int(value)):
                raise UsageError(
                    f"--{flag} {value:g}: expected a fraction of the peers from 0, below 1, or a whole number of them"
                )
        parse_attack(self.attack)

    def any(self) -> bool:
        """Whether anything is to go wrong."""
        return bool(self.dropout or self.stragglers or self.churn or self.malicious)


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays which part in one run, by peer number. ``joins``: the round at which a peer is admitted; ``leaves``:
    the last round that it plays."""

    seed: int
    dropout: float
    straggle: int
    attack: Attack
    malicious: frozenset[int] = frozenset()
    slow: frozenset[int] = frozenset()
    joins: Mapping[int, int] = field(default_factory=dict)
    leaves: Mapping[int, int] = field(default_factory=dict)

    def misses(self, peer: int, round_number: int) -> bool:
        """Whether a peer sits a round out."""
        if not self.dropout:
            return False
        drawn = hashlib.sha256(f"fl-node dropout {self.seed} {peer} {round_number}".encode()).digest()
        return int.from_bytes(drawn[:8], "big") < self.dropout * 2.0**64


def cast(faults: Faults, peers: int, planned: int, seed: int) -> Cast:
    """Draw who plays which part among peers 1 to ``peers``.

    Raises:
        UsageError: nobody honest is left, or nobody who is there from beginning to end.
    """
    malicious = how_many(faults.malicious, peers)
    slow = how_many(faults.stragglers, peers)
    churning = how_many(faults.churn, peers)
    for flag, value, count in (
        ("malicious", faults.malicious, malicious),
        ("churn", faults.churn, churning),
    ):
        if count >= peers:
            raise UsageError(f"--{flag} {value:g} of {peers} peers are {count}; expected fewer than there are peers")
    if slow > peers:
        raise UsageError(f"--stragglers {faults.stragglers:g} of {peers} peers; expected at most {peers}")
    generator = np.random.Generator(np.random.PCG64([seed, 0xFA017]))
    numbers = np.arange(1, peers + 1)
    bad = generator.permutation(numbers)[:malicious]
    late = generator.permutation(numbers)[:slow]
    joining = churning // 2
    staying = numbers[: peers - joining]
    leaving = generator.permutation(staying)[: churning - joining]
    middle = max(1, planned // 2)
    return Cast(
        seed=seed,
        dropout=faults.dropout,
        straggle=faults.straggle,
        attack=parse_attack(faults.attack),
        malicious=frozenset(bad.tolist()),
        slow=frozenset(late.tolist()),
        joins={int(number): int(generator.integers(1, middle + 1)) for number in numbers[peers - joining :]},
        leaves={int(number): int(generator.integers(middle, planned + 1)) for number in leaving},
    )


def without_effect(faults: Faults, peers: int) -> tuple[str, ...]:
    """What was asked for and happens to nobody among so many peers."""
    told = []
    for flag in ("stragglers", "churn", "malicious"):
        value = getattr(faults, flag)
        if value and not how_many(value, peers):
            told.append(f"--{flag} {value:g} of {peers} peers is nobody; use a larger fraction, or a number of peers")
    for flag, given, needed in (
        ("attack", faults.attack != Faults().attack, "malicious"),
        ("straggle", faults.straggle != Faults().straggle, "stragglers"),
    ):
        if given and not getattr(faults, needed):
            told.append(f"--{flag} {getattr(faults, flag)} without --{needed} has no effect")
    return tuple(told)


def how_many(value: float, peers: int) -> int:
    """A fraction below 1 as a number of peers; a number from 1 on is one."""
    return int(value) if value >= 1 else int(value * peers + 0.5)
