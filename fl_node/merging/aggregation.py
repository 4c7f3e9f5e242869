"""Aggregation: how candidates combine into a base. Shares first, where they need no bytes; then the exact merge.

A rule is a function of the candidates' entries, their standing and their bytes; its name is recorded with the update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final, TypeAlias

from fl_node.merging.clipping import centred_clipping, clipped
from fl_node.merging.distances import squared_distances
from fl_node.merging.geometric import geometric_median
from fl_node.merging.krum import choose, enough_for_krum
from fl_node.merging.merge import mean
from fl_node.merging.robust import median, trimmed_mean
from fl_node.merging.shares import Weight, capped, discounted, floored, largest_remainder
from fl_node.merging.stack import Stack
from fl_node.merging.standing import Standing
from fl_node.merging.weights import Array, Tensors
from fl_node.prefix import UpdateEntry
from fl_node.records import Parent, Rule, UpdateRef
from fl_node.spec import Spec

Standings: TypeAlias = Mapping[UpdateRef, Standing]
Row: TypeAlias = Mapping[int, int]

_RULES: Final[Mapping[str, Rule]] = {
    "fedavg": Rule.FEDAVG,
    "uniform": Rule.UNIFORM,
    "score": Rule.SCORE,
    "trust": Rule.TRUST,
    "median": Rule.MEDIAN,
    "trimmed-mean": Rule.TRIMMED_MEAN,
    "krum": Rule.KRUM,
    "multi-krum": Rule.MULTI_KRUM,
    "geometric-median": Rule.GEOMETRIC_MEDIAN,
    "centred-clipping": Rule.CENTRED_CLIPPING,
}
_DISCOUNTED: Final = frozenset({Rule.FEDAVG, Rule.UNIFORM, Rule.SCORE})
_BY_BYTES: Final = frozenset({Rule.KRUM, Rule.MULTI_KRUM})


@dataclass(frozen=True, slots=True)
class Merge:
    """A base and how it came about. ``parents`` ascend by (peer, sequence), as the ledger takes them.

    ``rejected``: candidates that the rule left out on account of their bytes, with the numbers that say why; they stay
    among the parents with share 0.
    """

    tensors: dict[str, Array]
    parents: tuple[Parent, ...]
    rule: Rule
    rejected: Mapping[UpdateRef, str] = field(default_factory=dict)


def order_key(entry: UpdateEntry) -> bytes:
    """What parents are ordered by, and ties broken: content digest, then u32 peer, u32 sequence, big-endian."""
    return entry.content + entry.ref.peer.to_bytes(4, "big") + entry.ref.sequence.to_bytes(4, "big")


def rule_of(spec: Spec, count: int) -> Rule:
    """The rule that merges this many candidates: the spec's, or ``MEDIAN`` where they are too few for it.

    Krum and Multi-Krum need 2 f + 3, the trimmed mean 2 f + 1 (f: ``merging.byzantine``). Peers may be absent, and a
    round must go on; the median withstands as many hostile ones as any rule can. None: ``GENESIS``.
    """
    if not count:
        return Rule.GENESIS
    rule, byzantine = _RULES[spec.merging.aggregation], spec.merging.byzantine
    if rule in _BY_BYTES and not enough_for_krum(count, byzantine):
        return Rule.MEDIAN
    if rule is Rule.TRIMMED_MEAN and count <= 2 * byzantine:
        return Rule.MEDIAN
    return rule


def needs_bytes(spec: Spec, count: int) -> bool:
    """Whether the shares of this many candidates depend on their bytes, so that :func:`shares_of` cannot tell them."""
    return rule_of(spec, count) in _BY_BYTES


def shares_of(
    spec: Spec,
    candidates: Sequence[UpdateEntry],
    *,
    standing: Standings | None = None,
    row: Row | None = None,
) -> tuple[tuple[Parent, ...], Rule]:
    """The parents with their shares and the rule's name; no bytes needed. No candidates: no parents, ``GENESIS``.

    Under the medians and centred clipping shares are nominal: equal.

    Args:
        standing: of each candidate (:attr:`selection.Selection.standing`); for ``score`` and the staleness discount.
        row: for ``trust``: shares in ppm by peer number, of these candidates or more; a peer not in it counts as 0.
            Restricted to the candidates, none below ``trust.floor_ppm`` (:func:`shares.floored`). A row that was
            recorded as the shares of these candidates gives these shares again.

    Raises:
        ValueError: the rule needs the candidates' bytes (:func:`needs_bytes`), their standing or the row.
    """
    rule = rule_of(spec, len(candidates))
    if rule is Rule.GENESIS:
        return (), rule
    if rule in _BY_BYTES:
        raise ValueError(f"shares under {spec.merging.aggregation} follow from the candidates' bytes; call aggregate")
    keys = [order_key(entry) for entry in candidates]
    if rule is Rule.TRUST:
        if row is None:
            raise ValueError("merging.aggregation = 'trust' needs the peer's row of trust, got none")
        trusted = [row.get(entry.ref.peer, 0) for entry in candidates]
        return _parents(candidates, floored(trusted, spec.trust.floor_ppm, keys)), rule
    weights = [_weight(spec, rule, entry, standing) for entry in candidates]
    return _parents(candidates, largest_remainder(weights, keys)), rule


def same_parents(
    spec: Spec,
    candidates: Sequence[UpdateEntry],
    parents: Sequence[Parent],
    *,
    standing: Standings | None = None,
    row: Row | None = None,
) -> bool:
    """Whether these candidates would give these parents: shares and all where they need no bytes; where they do, the
    same updates with the same bytes, from which the same shares follow."""
    if needs_bytes(spec, len(candidates)):
        named = [(parent.ref, parent.tag) for parent in parents]
        return named == [(entry.ref, entry.content[:4]) for entry in sorted(candidates, key=lambda entry: entry.ref)]
    return shares_of(spec, candidates, standing=standing, row=row)[0] == tuple(parents)


def aggregate(
    spec: Spec,
    candidates: Sequence[UpdateEntry],
    models: Sequence[Tensors],
    genesis: Callable[[], Tensors],
    *,
    standing: Standings | None = None,
    centre: Callable[[], Tensors] | None = None,
    row: Row | None = None,
    threads: int = 1,
    forget: Callable[[], None] | None = None,
) -> Merge:
    """Merge K candidates and their K decoded models by the spec's rule; without candidates the base is the genesis.

    Args:
        genesis: asked for only where there are no candidates, or for want of a centre.
        standing, row: see :func:`shares_of`.
        centre: this peer's own latest trained model, what ``merging.clip`` and ``centred-clipping`` measure from;
            asked for only by these. ``None``: the genesis. Names, dtypes and shapes as the models'.
        threads: worker threads; the result does not depend on it.
        forget: called now and then: gives back the memory of models that are mapped from disk.

    Raises:
        MalformedWeights: the models, or the centre, differ in names, dtypes or shapes.
        FlNodeError: this machine's arithmetic is not IEEE 754.
        ValueError: as many models as candidates were expected, or the rule needs standing or a row.
    """
    if len(models) != len(candidates):
        raise ValueError(f"got {len(models)} models for {len(candidates)} candidates")
    if not candidates:
        return Merge(dict(genesis()), (), Rule.GENESIS)
    by_bytes = needs_bytes(spec, len(candidates))
    # Shares first, so that what is missing shows before any byte is read.
    nominal = None if by_bytes else shares_of(spec, candidates, standing=standing, row=row)
    middle = cache(centre or genesis)
    stack = Stack(models, [order_key(entry) for entry in candidates], threads=threads, forget=forget)
    if spec.merging.clip != "none":
        limit = spec.merging.clip_norm if spec.merging.clip == "fixed" else None
        stack = clipped(stack, middle(), limit)
    entries = [candidates[k] for k in stack.order]
    if nominal is None:
        return _by_krum(spec, entries, stack)
    parents, rule = nominal
    return Merge(_combined(spec, rule, parents, entries, stack, middle), parents, rule)


def aggregate_recorded(
    spec: Spec,
    entries: Sequence[UpdateEntry],
    models: Sequence[Tensors],
    genesis: Callable[[], Tensors],
    parents: Sequence[Parent],
    rule: int,
    *,
    centre: Callable[[], Tensors] | None = None,
    threads: int = 1,
    forget: Callable[[], None] | None = None,
) -> Merge:
    """The base that recorded parents, shares and rule give, whatever the policy would have had instead.

    Under Krum and Multi-Krum shares follow from bytes, so what comes back may have other parents than were given.

    Args:
        entries, models: of the parents, in any order.
        parents: as the update records them.
        rule: as the update records it.

    Raises:
        ValueError: no rule of this version, or parents and rule that do not go together.
        Otherwise as :func:`aggregate`.
    """
    known = Rule(rule)
    if (known is Rule.GENESIS) != (not parents) or {entry.ref for entry in entries} != {one.ref for one in parents}:
        raise ValueError(f"rule {known.name.lower()} with {len(parents)} parents, of which {len(entries)} are at hand")
    if known is Rule.GENESIS:
        return Merge(dict(genesis()), (), known)
    middle = cache(centre or genesis)
    stack = Stack(models, [order_key(entry) for entry in entries], threads=threads, forget=forget)
    if spec.merging.clip != "none":
        limit = spec.merging.clip_norm if spec.merging.clip == "fixed" else None
        stack = clipped(stack, middle(), limit)
    ordered = [entries[k] for k in stack.order]
    if known in _BY_BYTES:
        if _RULES[spec.merging.aggregation] is not known or not enough_for_krum(len(entries), spec.merging.byzantine):
            raise ValueError(f"rule {known.name.lower()} is not the spec's for {len(entries)} candidates")
        return _by_krum(spec, ordered, stack)
    return Merge(_combined(spec, known, parents, ordered, stack, middle), tuple(parents), known)


def _combined(
    spec: Spec,
    rule: Rule,
    parents: Sequence[Parent],
    entries: Sequence[UpdateEntry],
    stack: Stack,
    centre: Callable[[], Tensors],
) -> dict[str, Array]:
    merging = spec.merging
    if rule is Rule.MEDIAN:
        return median(stack)
    if rule is Rule.TRIMMED_MEAN:
        return trimmed_mean(stack, merging.byzantine)
    if rule is Rule.GEOMETRIC_MEDIAN:
        return geometric_median(stack, merging.iterations)
    if rule is Rule.CENTRED_CLIPPING:
        limit, steps = merging.clip_norm, merging.iterations
        return centred_clipping(stack, centre(), limit, steps)
    share = {parent.ref: parent.share_ppm for parent in parents}
    return mean(stack, [share[entry.ref] for entry in entries])


def _by_krum(spec: Spec, entries: Sequence[UpdateEntry], stack: Stack) -> Merge:
    """Krum is Multi-Krum of one. The base is the mean of the recorded shares, so that it follows from them alone."""
    rule = _RULES[spec.merging.aggregation]
    table = squared_distances(stack)
    choice = choose(table, stack.keys, spec.merging.byzantine, 1 if rule is Rule.KRUM else spec.merging.keep)
    kept = [k for k in range(len(stack)) if k in choice.chosen]
    shares = [0] * len(stack)
    for k, share in zip(kept, largest_remainder([1] * len(kept), [stack.keys[k] for k in kept]), strict=True):
        shares[k] = share
    base = mean(stack, shares)
    rejected = {entry.ref: choice.reason(k) for k, entry in enumerate(entries) if k not in choice.chosen}
    return Merge(base, _parents(entries, shares), rule, rejected)


def _parents(entries: Sequence[UpdateEntry], shares: Sequence[int]) -> tuple[Parent, ...]:
    pairs = sorted(zip(entries, shares, strict=True), key=lambda pair: pair[0].ref)
    return tuple(Parent(entry.ref.peer, entry.ref.sequence, entry.content[:4], share) for entry, share in pairs)


def _weight(spec: Spec, rule: Rule, entry: UpdateEntry, standing: Standings | None) -> Weight:
    weight: Weight = 1
    if rule is Rule.FEDAVG:
        weight = capped(entry.update.train_samples, spec.merging.sample_cap)
    elif rule is Rule.SCORE:
        weight = max(0, _standing(entry, standing).score_ppm)
    if spec.merging.staleness_discount and rule in _DISCOUNTED:
        weight = discounted(weight, _standing(entry, standing).staleness)
    return weight


def _standing(entry: UpdateEntry, standing: Standings | None) -> Standing:
    found = None if standing is None else standing.get(entry.ref)
    if found is None:
        raise ValueError(f"this rule needs the standing of {entry.ref}, got none")
    return found
