"""A simulated federation of which nothing is thrown away: every update with its weights and the base it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fl_node.audit.known import Known
from fl_node.audit.sketch import sketch_of
from fl_node.content.names import cid_of_update
from fl_node.learning.splits import Splits
from fl_node.merging import weights
from fl_node.merging.weights import Tensors
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import UpdateRef
from fl_node.simulation.batches import Batcher
from fl_node.simulation.deal import Source, deal
from fl_node.simulation.faults import cast
from fl_node.simulation.federation import in_memory
from fl_node.simulation.settings import Settings
from fl_node.simulation.ticks import Ticks
from fl_node.spec import Spec


@dataclass(frozen=True, slots=True)
class Seen:
    """An update as everybody can have it."""

    entry: UpdateEntry
    model: Tensors
    base: Tensors


@dataclass(frozen=True, slots=True)
class Observed:
    """A federation from start to end. ``updates`` in the order of the ledger; ``splits`` by peer, from peer 1."""

    spec: Spec
    prefix: Prefix
    updates: Mapping[UpdateRef, Seen]
    splits: tuple[Splits, ...]

    @property
    def entries(self) -> list[UpdateEntry]:
        return [seen.entry for seen in self.updates.values()]

    def trained(self) -> list[UpdateEntry]:
        """The updates that are not their base by rule."""
        every = self.spec.training.every
        return [entry for entry in self.entries if not entry.final and (entry.round - 1) % every == 0]

    def known(self) -> dict[UpdateRef, Known]:
        """What a replay would know of all updates."""
        bases = {}
        for seen in self.updates.values():
            if seen.entry.update.base not in bases:
                bases[seen.entry.update.base] = sketch_of(self.spec, seen.base, votes=False)
        return {
            ref: Known(weights.digest(seen.model), sketch_of(self.spec, seen.model), bases[seen.entry.update.base])
            for ref, seen in self.updates.items()
        }


def observe(settings: Settings, peers: int, seed: int, data_dir: Path | None = None) -> Observed:
    """Run one federation of honest peers."""
    federation = settings.federation(peers, seed)
    spec = federation.spec
    parts = cast(settings.faults, peers, spec.rounds.planned, seed)
    folder = None if data_dir is None else data_dir / spec.task.data
    source = _source(spec.task.data, tuple(spec.task.input_shape), folder, spec)
    dealt = deal(source, spec.task, peers, settings.partition, seed, test_rows=settings.test_rows)
    batcher = Batcher(spec, dealt.splits, settings.batch, 1)
    world = in_memory(federation, replace(dealt, splits=batcher.splits), parts)
    updates: dict[UpdateRef, Seen] = {}
    for rows in Ticks(world, batcher).run():
        for row in rows:
            entry = world.prefix.updates(row.peer)[-1]
            data = bytes(world.store.get(cid_of_update(entry.update), 1 << 30))
            updates[entry.ref] = Seen(entry, weights.decode(data).tensors, world.bases[entry.update.base])
    return Observed(spec, world.prefix, updates, batcher.splits)


_KEPT: dict[tuple[str, tuple[int, ...]], Source] = {}


def _source(name: str, shape: tuple[int, ...], folder: Path | None, spec: Spec) -> Source:
    if (name, shape) not in _KEPT:
        _KEPT[name, shape] = Source.load(spec.task, folder)
    return _KEPT[name, shape]
