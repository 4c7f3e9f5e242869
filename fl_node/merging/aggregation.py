"""Aggregation: how candidates combine into a base. Shares first, which need no bytes; then the exact merge.

A rule is a function of the candidates' entries; its name is recorded with the update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from fl_node.merging.merge import merge
from fl_node.merging.shares import Weight, capped, largest_remainder
from fl_node.merging.weights import Array, Tensors
from fl_node.prefix import UpdateEntry
from fl_node.records import Parent, Rule
from fl_node.spec import Spec

WeightRule: TypeAlias = Callable[[Spec, UpdateEntry], Weight]


@dataclass(frozen=True, slots=True)
class Merge:
    """A base and how it came about. ``parents`` ascend by (peer, sequence), as the ledger takes them."""

    tensors: dict[str, Array]
    parents: tuple[Parent, ...]
    rule: Rule


def order_key(entry: UpdateEntry) -> bytes:
    """What parents are ordered by, and ties broken: content digest, then u32 peer, u32 sequence, big-endian."""
    return entry.content + entry.ref.peer.to_bytes(4, "big") + entry.ref.sequence.to_bytes(4, "big")


def shares_of(spec: Spec, candidates: Sequence[UpdateEntry]) -> tuple[tuple[Parent, ...], Rule]:
    """The parents with their shares and the rule's name; no bytes needed. No candidates: no parents, ``GENESIS``."""
    if not candidates:
        return (), Rule.GENESIS
    rule, weight = _RULES[spec.merging.aggregation]
    entries = sorted(candidates, key=lambda entry: entry.ref)
    shares = largest_remainder([weight(spec, entry) for entry in entries], [order_key(entry) for entry in entries])
    parents = tuple(
        Parent(entry.ref.peer, entry.ref.sequence, entry.content[:4], share)
        for entry, share in zip(entries, shares, strict=True)
    )
    return parents, rule


def aggregate(
    spec: Spec,
    candidates: Sequence[UpdateEntry],
    models: Sequence[Tensors],
    genesis: Callable[[], Tensors],
    *,
    threads: int = 1,
    forget: Callable[[], None] | None = None,
) -> Merge:
    """Merge K candidates and their K decoded models by the spec's rule; without candidates the base is the genesis,
    which is asked for only then. ``threads`` and ``forget``: see :func:`fl_node.merging.merge.merge`.

    Raises:
        MalformedWeights: the models differ in names, dtypes or shapes.
        FlNodeError: this machine's arithmetic is not IEEE 754.
        ValueError: as many models as candidates were expected.
    """
    parents, rule = shares_of(spec, candidates)
    if len(models) != len(candidates):
        raise ValueError(f"got {len(models)} models for {len(candidates)} candidates")
    if not parents:
        return Merge(dict(genesis()), (), rule)
    share = {parent.ref: parent.share_ppm for parent in parents}
    shares = [share[entry.ref] for entry in candidates]
    keys = [order_key(entry) for entry in candidates]
    return Merge(merge(models, shares, keys, threads=threads, forget=forget), parents, rule)


def _samples(spec: Spec, entry: UpdateEntry) -> Weight:
    return capped(entry.update.train_samples, spec.merging.sample_cap)


def _alike(spec: Spec, entry: UpdateEntry) -> Weight:
    return 1


_RULES: Final[Mapping[str, tuple[Rule, WeightRule]]] = {
    "fedavg": (Rule.FEDAVG, _samples),
    "uniform": (Rule.UNIFORM, _alike),
}
