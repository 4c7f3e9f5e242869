"""What training costs in privacy: (epsilon, delta) of everything that a peer has drawn noise for.

Neighbours. ``example``: two data sets, one of which has one row more. ``update``: any two data sets, since that a peer
publishes at all is no secret; a clipped change can then differ by twice ``clip_norm``, so the noise counts half.

Accountants. Where every row is in every batch, the composition of Gaussian mechanisms is one Gaussian mechanism, whose
curve is known exactly. With Poisson sampling it is Opacus's numerical composition of privacy loss random variables
(Gopi, Lee, Wutschitz 2021, https://arxiv.org/abs/2106.02848), its upper bound; or, where that gives up or is larger,
Rényi's (Mironov, Talwar, Zhang 2019, https://arxiv.org/abs/1908.10530). A history of any settings composes.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from fl_node.errors import SpecError, UsageError

Mechanism: TypeAlias = Literal["example", "update"]
#: (noise multiplier, sample rate, steps) of one training or of several alike.
Stretch: TypeAlias = tuple[float, float, int]

NAMES: Final = {"example": "prv", "update": "gaussian"}
MOST_NOISE: Final = 10_000.0
_LEAST_NOISE: Final = 0.05
_TOLERANCE: Final = 0.002
_MOST_EPSILON: Final = 1e9
#: Steps beyond which time counts more than the last half per cent.
_LONG: Final = 50_000
#: Which warnings are shown is a matter of the process, and a simulation trains in threads.
_ONE_AT_A_TIME: Final = threading.RLock()
#: Opacus's orders, and larger ones, without which no epsilon below 0.2 can be shown.
_ORDERS: Final = (*(1.0 + tenth / 10.0 for tenth in range(1, 100)), *range(12, 64), 96, 128, 256, 512, 1024, 4096)


def epsilon(mechanism: Mechanism, history: Iterable[Stretch], delta: float) -> float:
    """An upper bound of the epsilon of a whole history, at ``delta``; 0 of none.

    Raises:
        UsageError: Opacus is needed and not installed.
    """
    scale = 0.5 if mechanism == "update" else 1.0
    alike: dict[tuple[float, float], int] = {}
    for noise, rate, steps in history:
        key = noise * scale, min(rate, 1.0)
        alike[key] = alike.get(key, 0) + steps
    return _composed(tuple((noise, rate, steps) for (noise, rate), steps in sorted(alike.items())), delta)


def least_noise(mechanism: Mechanism, rate: float, steps: int, delta: float, most_epsilon: float) -> float:
    """The least noise multiplier, up to 0.2% above, with which so many steps stay within an epsilon.

    Raises:
        SpecError: there is none below 10,000.
        UsageError: Opacus is needed and not installed.
    """
    scale = 2.0 if mechanism == "update" else 1.0
    # A hair above, so that the same sum in another order is no more than the epsilon.
    return scale * _least_noise(min(rate, 1.0), steps, delta, most_epsilon) * (1.0 + 1e-6)


def trainings_left(
    mechanism: Mechanism, history: Iterable[Stretch], training: Stretch, delta: float, most_epsilon: float, most: int
) -> int:
    """How many more trainings of one kind stay within an epsilon; ``most`` at most."""
    before, (noise, rate, steps) = tuple(history), training

    def fits(count: int) -> bool:
        return epsilon(mechanism, (*before, (noise, rate, steps * count)), delta) <= most_epsilon

    if most < 1 or fits(most):
        return max(0, most)
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@lru_cache(maxsize=4096)
def _composed(history: tuple[Stretch, ...], delta: float) -> float:
    if not history:
        return 0.0
    if all(rate >= 1.0 for _, rate, _ in history):
        return gaussian_epsilon(math.sqrt(sum(steps / noise**2 for noise, _, steps in history)), delta)
    bound = _renyi(history, delta)
    return min(bound, _numerical(history, delta, bound))


@lru_cache(maxsize=1024)
def _least_noise(rate: float, steps: int, delta: float, most_epsilon: float) -> float:
    def enough(find: Callable[[float], float], low: float, high: float) -> float:
        """By bisection, between one that is too little and one that is enough."""
        while high > low * (1.0 + _TOLERANCE):
            middle = math.sqrt(low * high)
            low, high = (low, middle) if find(middle) <= most_epsilon else (middle, high)
        return high

    def quick(noise: float) -> float:
        return (
            gaussian_epsilon(math.sqrt(steps) / noise, delta) if rate >= 1.0 else _renyi(((noise, rate, steps),), delta)
        )

    def tight(noise: float) -> float:
        return _composed(((noise, rate, steps),), delta)

    high = _LEAST_NOISE
    while quick(high) > most_epsilon:
        high *= 2.0
        if high > MOST_NOISE:
            raise SpecError(
                f"privacy.epsilon = {most_epsilon:g} at delta {delta:g}: {steps:,} steps with batches of "
                f"{rate:.3g} of the rows would need noise of more than {MOST_NOISE:,.0f} times privacy.clip_norm; "
                "expected a larger epsilon, or fewer rounds, epochs or rows in a step"
            )
    if high == _LEAST_NOISE:
        return high
    high = enough(quick, high / 2.0, high)
    if rate >= 1.0:
        return high
    low = high
    while low > _LEAST_NOISE and tight(low) <= most_epsilon:
        high, low = low, low * 0.85
    return enough(tight, low, high)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The epsilon of a Gaussian mechanism of sensitivity over noise ``mu``, exactly; of k of them it is
    sqrt(mu_1^2 + ... + mu_k^2) (Dong, Roth, Su 2022, https://arxiv.org/abs/1905.02383, corollary 3.3).

    delta(epsilon) = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu): Balle, Wang 2018,
    https://arxiv.org/abs/1805.06530, theorem 8; solved by bisection.
    """
    low, high = 0.0, 1.0
    if _gaussian_delta(0.0, mu) <= delta:
        return 0.0
    while _gaussian_delta(high, mu) > delta:
        low, high = high, 2.0 * high
        if high > _MOST_EPSILON:
            return high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2.0
        low, high = (middle, high) if _gaussian_delta(middle, mu) > delta else (low, middle)
    return high


def _gaussian_delta(found: float, mu: float) -> float:
    """With e^epsilon phi(b) = phi(a), the second term is phi(a) times the Mills ratio of b, which does not overflow."""
    a, b = mu / 2.0 - found / mu, mu / 2.0 + found / mu
    if b < 25.0:
        mills = math.sqrt(math.pi / 2.0) * math.exp(b * b / 2.0) * math.erfc(b / math.sqrt(2.0))
    else:
        mills = (1.0 - 1.0 / b**2 + 3.0 / b**4 - 15.0 / b**6) / b
    return 0.5 * math.erfc(-a / math.sqrt(2.0)) - math.exp(-a * a / 2.0) / math.sqrt(2.0 * math.pi) * mills


def _renyi(history: tuple[Stretch, ...], delta: float) -> float:
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the best order is at an end of the range only makes the bound looser
        accountant = accountants().RDPAccountant()
        accountant.history = list(history)
        return float(accountant.get_epsilon(delta, alphas=_ORDERS))


def _numerical(history: tuple[Stretch, ...], delta: float, bound: float) -> float:
    """To about 0.2% of ``bound``, 0.5% of a very long history; infinite where it cannot be computed."""
    part = 0.002 if sum(steps for _, _, steps in history) <= _LONG else 0.005
    error = min(0.5, max(5e-4, part * bound))
    if not math.isfinite(bound) or bound > 500.0:
        return math.inf
    with _ONE_AT_A_TIME, warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        accountant = accountants().PRVAccountant()
        accountant.history = list(history)
        try:
            found = float(accountant.get_epsilon(delta, eps_error=error))
        except (RuntimeError, ValueError, MemoryError):
            return math.inf
    return found if math.isfinite(found) and found > 0.0 else math.inf


def accountants() -> Any:
    """Opacus's module of that name.

    Raises:
        UsageError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from opacus import accountants as found  # type: ignore[import-untyped]
    except ImportError as cause:
        raise UsageError(
            f"privacy.mechanism = 'example' needs Opacus, which cannot be imported ({cause}); install it with "
            "pip install 'fl-node[private]'"
        ) from cause
    return found
