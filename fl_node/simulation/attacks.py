"""What a hostile peer does. It plays the same rounds as everybody, with one step replaced.

sign-flip[:S]         publishes base - S (trained - base), S = 1 by default
scaled-sign-flip[:S]  the same with S = 10
gaussian[:SIGMA]      publishes its base with noise N(0, SIGMA^2) on every weight, SIGMA = 10 by default
label-flip            trains honestly, but every label c of its rows reads classes - 1 - c
inflated-claim        publishes its base untrained and claims a score of 100 %
copycat               publishes the weights of another peer's latest update as its own
stale-replay          publishes what it trained first again and again

Sign flips and noise: Blanchard et al. 2017, https://arxiv.org/abs/1703.02757; Li et al. 2019,
https://arxiv.org/abs/1811.03761.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fl_node.errors import UsageError
from fl_node.suggest import did_you_mean

#: Name: the default strength; 0 where there is none to give.
ATTACKS: Final[Mapping[str, float]] = {
    "sign-flip": 1.0,
    "scaled-sign-flip": 10.0,
    "gaussian": 10.0,
    "label-flip": 0.0,
    "inflated-claim": 0.0,
    "copycat": 0.0,
    "stale-replay": 0.0,
}


@dataclass(frozen=True, slots=True)
class Attack:
    """A parsed attack."""

    name: str
    strength: float = 0.0

    @property
    def trains(self) -> bool:
        """Whether the peer trains before its step is replaced."""
        return self.name not in ("gaussian", "inflated-claim", "copycat")

    @property
    def flips_labels(self) -> bool:
        return self.name == "label-flip"

    @property
    def inflates(self) -> bool:
        return self.name == "inflated-claim"


def parse_attack(text: str) -> Attack:
    """Parse ``NAME`` or ``NAME:STRENGTH``. Raises UsageError that names the attacks."""
    name, colon, argument = text.strip().partition(":")
    default = ATTACKS.get(name)
    if default is None:
        hint = did_you_mean(name, ATTACKS) or ";"
        raise UsageError(f"--attack {text}: unknown attack {name!r}{hint} expected one of {', '.join(ATTACKS)}")
    if not colon:
        return Attack(name, default)
    try:
        strength = float(argument)
    except ValueError:
        strength = math.nan
    if not default or not 0.0 < strength <= 1e6:
        takes = "a number above 0, at most 1000000, after the colon" if default else "no number"
        raise UsageError(f"--attack {text}: {name} takes {takes}")
    return Attack(name, strength)
