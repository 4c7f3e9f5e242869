"""Learned trust: a peer's row of the federation's trust matrix, and how it moves with the peer's own validation loss.

The row lives on the ledger. A round starts from the shares that this peer recorded last, steps along the gradient of
its validation loss, and records where it arrived; so nothing private has to be kept, a crash or a reorganised chain
neither loses nor doubles a step, and anybody can check that a recorded row keeps the spec's floor and has not moved
faster than the spec allows. What moved it, the validation rows, is private: the shares are taken as recorded.

Averaging by a row-stochastic matrix of trust is DeGroot's model of consensus (Reaching a Consensus, JASA 69, 1974).
Learning the row by gradient follows the idea of personalised federated learning by one's own validation loss (FedFomo,
Zhang et al. 2020, arXiv 2012.08565). What differs: FedFomo weighs each model by how much it alone improves the loss,
one forward pass per model, and forgets; here one backward pass at the merged model gives the slope of every share at
once, and the row persists, has a floor, a prior and a bounded change.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Final

import numpy as np

from fl_node.merging.halving import halving_sum
from fl_node.merging.shares import capped, floored, largest_remainder
from fl_node.merging.weights import Tensors
from fl_node.prefix import Prefix
from fl_node.records import PPM, Parent, Rule
from fl_node.spec import Spec

_BLOCK: Final = 1 << 16
#: Below this a loss is as good as zero: nothing is left to learn from it, and nothing to divide by.
_LEAST_LOSS: Final = 1e-6


def recorded_trust(prefix: Prefix, own_peer: int) -> dict[int, int]:
    """The trust that a peer's updates in this prefix recorded last, for every peer it ever had in a row: the share
    times the number of parents in that row, so 1,000,000 is an equal part. Costs one look at each own update."""
    found: dict[int, int] = {}
    for entry in prefix.updates(own_peer):
        if entry.update.rule == Rule.TRUST:
            for parent in entry.parents:
                found[parent.peer] = parent.share_ppm * len(entry.parents)
    return found


def reference_row(spec: Spec, recorded: Mapping[int, int], peers: Iterable[int]) -> dict[int, int]:
    """Where a round's row starts: what was recorded last, brought to these candidates. In ppm, summing to 1,000,000.

    A peer that never was in a row enters at an equal part, so the first row of all is equal. No share is below
    :func:`floor_ppm`. Exact, in integers: a function of the log alone.

    Args:
        recorded: of :func:`recorded_trust`.
        peers: numbers of the K candidates' publishers, K >= 1, distinct.
    """
    numbers = sorted(peers)
    keys = [_key(number) for number in numbers]
    shares = largest_remainder([recorded.get(number, PPM) for number in numbers], keys)
    return dict(zip(numbers, floored(shares, spec.trust.floor_ppm, keys), strict=True))


def floor_ppm(spec: Spec, count: int) -> int:
    """The least share among ``count`` candidates: the spec's, or an equal part where that is less."""
    return min(spec.trust.floor_ppm, PPM // count)


def moved(
    spec: Spec,
    row: Mapping[int, int],
    slopes: Mapping[int, float],
    loss: float,
    samples: Mapping[int, int],
    pull: float | None = None,
) -> dict[int, float]:
    """One gradient step from a row: the candidates' weights afterwards, a softmax, not yet bounded.

    With shares s = softmax(z) and the merged model theta = sum of s_k theta_k, the validation loss L has the slope
    ``a_k = <dL/dtheta, theta_k - theta>`` in the direction of model k, and by the chain rule ``dL/dz_k = s_k a_k``. The
    step is ``-learning_rate * K s_k a_k / L``, at most ``max_step`` in size: relative to the loss, so that it means the
    same early and late, and times K, so that it means the same for few and many candidates. Then z_k goes
    ``prior_pull`` of its way to ``log(samples of k)``, whose softmax are the shares that ``fedavg`` would give.

    Args:
        row: shares in ppm of the K candidates by peer number; none is 0 unless the spec's floor is.
        slopes: a_k by peer number (:func:`slope`).
        loss: L, in nats.
        samples: training samples that candidates claim, capped here by ``merging.sample_cap``.
        pull: instead of ``trust.prior_pull``; 0 for the second and later steps of a round.
    """
    towards = spec.trust.prior_pull if pull is None else pull
    count = len(row)
    scale = spec.trust.learning_rate * count / max(loss, _LEAST_LOSS)
    logits = {}
    for peer, share in row.items():
        part = max(share, 1) / PPM
        step = min(max(-scale * part * slopes[peer], -spec.trust.max_step), spec.trust.max_step)
        logit = math.log(part) + step
        prior = math.log(max(1, capped(samples[peer], spec.merging.sample_cap)))
        logits[peer] = logit + towards * (prior - logit)
    most = max(logits.values())
    weights = {peer: math.exp(logit - most) for peer, logit in logits.items()}
    total = sum(weights.values())
    return {peer: weight / total for peer, weight in weights.items()}


def bounded_row(spec: Spec, weights: Mapping[int, float], reference: Mapping[int, int]) -> dict[int, int]:
    """Weights as shares in ppm that :func:`check_row` accepts: the nearest ones with the floor, the bound on change
    against the reference, and the sum. Nearest in the Euclidean sense, up to rounding."""
    numbers = sorted(reference)
    keys = [_key(number) for number in numbers]
    wanted = largest_remainder([Fraction(weights[number]) for number in numbers], keys)
    bounds = [_bounds(spec, reference[number], len(numbers)) for number in numbers]
    shares = _projected(wanted, [least for least, _ in bounds], [most for _, most in bounds])
    return dict(zip(numbers, shares, strict=True))


def check_row(spec: Spec, recorded: Mapping[int, int], parents: Sequence[Parent]) -> tuple[str, ...]:
    """What is wrong with a recorded row, in words; nothing for a good one. From the log alone.

    Args:
        recorded: :func:`recorded_trust` of the log before the update.
        parents: as the update records them.
    """
    if not parents:
        return ()
    reference = reference_row(spec, recorded, (parent.peer for parent in parents))
    faults = []
    if len(reference) != len(parents):
        faults.append("two parents are of one peer")
    if (total := sum(parent.share_ppm for parent in parents)) != PPM:
        faults.append(f"the shares sum to {total}, expected {PPM}")
    for parent in parents:
        least, most = _bounds(spec, reference[parent.peer], len(reference))
        if not least <= parent.share_ppm <= most:
            faults.append(
                f"the share of {parent.ref} is {parent.share_ppm} ppm, expected {least} to {most}: floor "
                f"{spec.trust.floor_ppm}, change at most {spec.trust.max_change_ppm} from {reference[parent.peer]}"
            )
    return tuple(faults)


def slope(gradient: Tensors, model: Tensors, base: Tensors) -> float:
    """``<gradient, model - base>`` over the gradient's tensors, in float64: how the loss changes from the base towards
    a model. Tensors of a gradient that are not merged (personal ones) are left out."""
    parts = []
    for name in sorted(gradient):
        if name not in base:
            continue
        flat = [np.ascontiguousarray(tensors[name]).reshape(-1) for tensors in (gradient, model, base)]
        for start in range(0, flat[0].size, _BLOCK):
            g, x, y = (array[start : start + _BLOCK].astype(np.float64) for array in flat)
            np.subtract(x, y, out=x)
            np.multiply(x, g, out=x)
            parts.append(float(halving_sum(x)))
    return float(halving_sum(np.array(parts)))


def _bounds(spec: Spec, reference: int, count: int) -> tuple[int, int]:
    change = spec.trust.max_change_ppm
    return max(floor_ppm(spec, count), reference - change), min(PPM, reference + change)


def _projected(wanted: Sequence[int], least: Sequence[int], most: Sequence[int]) -> list[int]:
    """The whole numbers nearest to the wanted ones that lie within bounds and sum to 1,000,000: all are moved by one
    common number and then clipped; what rounding leaves goes to the first that have room."""

    def shifted(by: int) -> list[int]:
        return [min(max(value + by, low), high) for value, low, high in zip(wanted, least, most, strict=True)]

    low, high = -PPM, PPM
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if sum(shifted(middle)) <= PPM else (low, middle)
    shares = shifted(low)
    left = PPM - sum(shares)
    for k, limit in enumerate(most):
        if left and shares[k] < limit:
            shares[k] += 1
            left -= 1
    return shares


def _key(number: int) -> bytes:
    return number.to_bytes(4, "big")
