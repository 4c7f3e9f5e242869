"""Checks 4, 6, 7 and 8: bytes, and every base recomputed from them, in parallel and in bounded memory.

Updates are gone through in the order of the log, which is topological: parents come before what was merged from them. A
window of them is at work at once. What several need is opened once (:mod:`fl_node.audit.shelf`), and a base that
several record, as all peers of a synchronous round do, is recomputed once.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from fl_node.audit.known import Known, Sketch
from fl_node.audit.opened import Opened, explain
from fl_node.audit.shelf import Shelf
from fl_node.audit.sketch import sketch_of
from fl_node.audit.verdicts import Finding, Result
from fl_node.errors import MalformedWeights
from fl_node.merging import weights
from fl_node.merging.aggregation import aggregate_recorded
from fl_node.merging.clipping import latest_own
from fl_node.merging.weights import Tensors
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import Parent, Rule, UpdateRef
from fl_node.spec import Spec

_AHEAD: Final = 3
#: Recomputed bases that are remembered: those of one round lie close together in the log.
_BASES: Final = 64

_Recipe: TypeAlias = tuple[int, tuple[Parent, ...], UpdateRef | None]
"""All that a base follows from: rule, parents with their shares, and the update that is clipped around."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of one update: the findings of *bytes*, *sealed*, *well-formed*, *commitment* and *merge*, and its
    weights in short where they are good."""

    ref: UpdateRef
    findings: tuple[Finding, ...]
    known: Known | None


@dataclass(frozen=True, slots=True)
class _Base:
    """What follows from a recipe, in short. ``trouble``: why nothing does."""

    digest: bytes = b""
    parents: tuple[Parent, ...] = ()
    rule: Rule = Rule.GENESIS
    sketch: Sketch | None = None
    trouble: str = ""


class Replay:
    """Recomputes bases. ``opener`` makes the shelf, given how often each update will be asked for.

    Args:
        genesis: the federation's shared initial tensors.
        merging: whether bases are recomputed; else only the updates' own bytes are looked at.
        sketching: whether sketches are made, for the check of originality.
        jobs: threads.
    """

    def __init__(
        self,
        spec: Spec,
        prefix: Prefix,
        genesis: Tensors,
        opener: Callable[[Counter[UpdateRef]], Shelf],
        *,
        merging: bool = True,
        sketching: bool = False,
        jobs: int = 1,
    ) -> None:
        self._spec, self._prefix, self._genesis = spec, prefix, genesis
        self._opener, self._merging, self._sketching, self._jobs = opener, merging, sketching, jobs
        self._bases = _Bases()
        self._threads = 1

    def run(self, wanted: Sequence[UpdateEntry]) -> Iterator[Replayed]:
        """Each wanted update, in the order of the log."""
        ordered = sorted(wanted, key=lambda update: update.index)
        needs = [self._needs(update) for update in ordered]
        shelf = self._opener(Counter(entry.ref for some in needs for entry in some))
        self.shelf = shelf
        # Of few updates each has several threads.
        self._threads = max(1, self._jobs // max(1, len(ordered)))
        if self._jobs <= 1 or len(ordered) == 1:
            for update, needed in zip(ordered, needs, strict=True):
                yield self._one(shelf, update, needed)
            return
        waiting: deque[Future[Replayed]] = deque()
        with ThreadPoolExecutor(self._jobs, "replay") as pool:
            try:
                for update, needed in zip(ordered, needs, strict=True):
                    waiting.append(pool.submit(self._one, shelf, update, needed))
                    if len(waiting) >= self._jobs + _AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _needs(self, update: UpdateEntry) -> list[UpdateEntry]:
        """The update itself, then what its base follows from, as far as the log before it has that."""
        found = [update]
        if self._merging:
            before = self._prefix.upto(update.index)
            for ref in sorted(_named(update)):
                with suppress(LookupError):
                    found.append(before.update(ref))
            centre = self._centre(update)
            if centre is not None and centre.ref not in {entry.ref for entry in found[1:]}:
                found.append(centre)
        return found

    def _centre(self, update: UpdateEntry) -> UpdateEntry | None:
        """The update that the rules clip around, where they do."""
        clips = self._spec.merging.clip != "none" or update.update.rule == Rule.CENTRED_CLIPPING
        return latest_own(self._prefix.upto(update.index), update.ref.peer) if clips and update.parents else None

    def _one(self, shelf: Shelf, update: UpdateEntry, needed: Sequence[UpdateEntry]) -> Replayed:
        taken = shelf.take(needed, threads=self._threads)
        try:
            own, findings = taken[0], list(taken[0].findings)
            sketch = None
            if self._merging:
                merge, sketch = self._merge(update, needed[1:], taken[1:])
                findings.append(self._untrained(update, own, merge))
            known = None
            if own.good and own.digest is not None and own.sketch is not None:
                known = Known(own.digest, own.sketch, sketch if findings[-1].result is Result.OK else None)
            return Replayed(update.ref, tuple(findings), known)
        finally:
            shelf.give_back(needed)

    def _merge(
        self, update: UpdateEntry, needed: Sequence[UpdateEntry], opened: Sequence[Opened]
    ) -> tuple[Finding, Sketch | None]:
        """The finding, and the base's sketch where there is one."""
        recorded = update.update.base
        data: dict[str, Any] = {"base": recorded.hex(), "parents": [str(parent.ref) for parent in update.parents]}
        nowhere = sorted(_named(update) - {entry.ref for entry in needed})
        if nowhere:
            text = f"it records a parent {nowhere[0]} that is not on the log before it"
            return Finding("merge", Result.FAILED, text, data), None
        why, fact = explain(opened, needed)
        if why is not None:
            if not fact and any(one.unreadable for one in opened):
                data["encrypted"] = True
            text = f"it is said to be merged from what nobody can use: {why}" if fact else f"not all is at hand: {why}"
            return Finding("merge", Result.FAILED if fact else Result.UNKNOWN, text, data), None
        centre = self._centre(update)
        recipe = update.update.rule, update.parents, None if centre is None else centre.ref
        base = self._bases.of(recipe, lambda: self._base(recipe, needed, opened))
        if base.trouble:
            return Finding("merge", Result.FAILED, f"no base follows from what is recorded: {base.trouble}", data), None
        data["replayed"] = base.digest.hex()
        if base.parents != update.parents:
            text = f"the rule {base.rule.name.lower()} gives other shares to these bytes than are recorded"
            return Finding("merge", Result.FAILED, text, data), None
        if base.digest != recorded:
            text = f"the recorded parents and shares give the base {base.digest.hex()}, recorded is {recorded.hex()}"
            return Finding("merge", Result.FAILED, text, data), None
        whom = f"{len(update.parents)} parents" if update.parents else "the genesis"
        return Finding("merge", Result.OK, f"the base follows from {whom}, bit for bit", data), base.sketch

    def _base(self, recipe: _Recipe, needed: Sequence[UpdateEntry], opened: Sequence[Opened]) -> _Base:
        """Merge what the recipe names; ``needed`` and ``opened`` have that and the centre."""
        rule, shares, around = recipe
        models = {entry.ref: one for entry, one in zip(needed, opened, strict=True)}
        named = {parent.ref for parent in shares}
        parents = [entry for entry in needed if entry.ref in named]

        def middle() -> Tensors:
            tensors = None if around is None else models[around].tensors
            return self._genesis if tensors is None else tensors

        def forget() -> None:
            for one in opened:
                if one.held is not None:
                    one.held.forget()

        try:
            merged = aggregate_recorded(
                self._spec,
                parents,
                [models[entry.ref].tensors or {} for entry in parents],
                lambda: self._genesis,
                shares,
                rule,
                centre=middle,
                threads=self._threads,
                forget=forget,
            )
        except (ValueError, MalformedWeights) as cause:
            return _Base(trouble=str(cause))
        sketch = sketch_of(self._spec, merged.tensors, votes=False) if self._sketching else None
        return _Base(weights.digest(merged.tensors), merged.parents, merged.rule, sketch)

    def _untrained(self, update: UpdateEntry, own: Opened, merge: Finding) -> Finding:
        """An update of a round in which nobody trains is its base: docs/replay-rules.md, section 7.9."""
        untrained = update.final or (update.round - 1) % self._spec.training.every
        if merge.result is not Result.OK or not untrained or own.digest is None or own.digest == update.update.base:
            return merge
        what = "a closing update" if update.final else f"an update of round {update.round}, in which nobody trains,"
        text = f"{what} is its base; its weights are {own.digest.hex()}, its base is {update.update.base.hex()}"
        return Finding("merge", Result.FAILED, text, merge.data)


def _named(update: UpdateEntry) -> set[UpdateRef]:
    return {parent.ref for parent in update.parents}


class _Bases:
    """Bases by recipe. Two threads that want the same one wait for one to make it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._there: OrderedDict[_Recipe, Future[_Base]] = OrderedDict()

    def of(self, recipe: _Recipe, make: Callable[[], _Base]) -> _Base:
        with self._lock:
            future = self._there.get(recipe)
            mine = future is None
            if future is None:
                future = self._there[recipe] = Future()
            self._there.move_to_end(recipe)
            if len(self._there) > _BASES:
                self._there.popitem(last=False)
        if mine:
            try:
                future.set_result(make())
            except BaseException as cause:
                future.set_exception(cause)
                raise
        return future.result()
