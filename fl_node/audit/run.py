"""One audit from start to end: the checks in their order, over whatever means there are."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from fl_node.audit import canonical as canon
from fl_node.audit import log_checks, opened, opening, reports
from fl_node.audit.availability import available
from fl_node.audit.checkpoints import checkpoints
from fl_node.audit.kept import Kept
from fl_node.audit.known import Known
from fl_node.audit.means import Means, Progress
from fl_node.audit.one_core import one_core_each
from fl_node.audit.originality import originality_findings
from fl_node.audit.reading import Reader
from fl_node.audit.replay import Replay, Replayed
from fl_node.audit.score import score_finding
from fl_node.audit.shelf import Shelf
from fl_node.audit.told_privacy import Spent
from fl_node.audit.verdicts import BY_NAME, CHECKS, Finding, Report, Result, UpdateVerdict
from fl_node.errors import ChainUnavailable
from fl_node.merging.weights import Tensors
from fl_node.prefix import UpdateEntry
from fl_node.records import Reason, UpdatePublished, UpdateRef

ALL = frozenset(BY_NAME)
#: The checks that need an update's bytes.
OF_BYTES = (*opened.NAMES, "merge")
_OF_WEIGHTS: Final = ("well-formed", "commitment")


@dataclass(frozen=True, slots=True)
class Scope:
    """Which updates and which checks. ``start`` and ``stop`` are entries; ``peer`` and ``refs`` narrow further."""

    start: int = 0
    stop: int | None = None
    peer: int | None = None
    refs: frozenset[UpdateRef] | None = None
    checks: frozenset[str] = ALL

    def holds(self, update: UpdateEntry) -> bool:
        if self.refs is not None and update.ref not in self.refs:
            return False
        if self.peer is not None and update.ref.peer != self.peer:
            return False
        return self.spans(update.index)

    def spans(self, index: int) -> bool:
        """Whether an entry is within the range."""
        return self.start <= index and (self.stop is None or index < self.stop)


@dataclass(slots=True)
class _Found:
    """Findings as they come, by update and check."""

    by_update: dict[UpdateRef, dict[str, Finding]] = field(default_factory=dict)
    about_all: list[Finding] = field(default_factory=list)
    replayed: dict[UpdateRef, dict[str, Finding]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, ref: UpdateRef, finding: Finding) -> None:
        self.by_update.setdefault(ref, {})[finding.check] = finding


def audit(
    means: Means,
    scope: Scope | None = None,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
    kept: Kept | None = None,
) -> Report:
    """Check updates. Nothing that a stranger wrote makes this raise: it becomes a finding.

    Args:
        jobs: threads; no result depends on it.
        progress: told how far the replay is.
        kept: results of earlier audits of the same log, gone on from and added to.
    """
    scope = scope or Scope()
    tell = progress or (lambda phase, done, total: None)
    found = _Found()
    updates = [update for update in updates_of(means) if scope.holds(update)]
    genesis = _federation(means, scope, found)  # 14 opening, 3 checkpoints
    means = by_the_ledgers_spec(means)
    _by_log(means, scope, updates, found, tell)  # 2 included, 3 consistent, 9 selection, 10 membership, 11 score
    _by_chain(means, scope, updates, found)  # 1 canonical
    known = _by_bytes(means, scope, updates, genesis, found, tell, jobs, kept)  # 4, 6, 7, 8, 15
    _by_others(means, scope, updates, known, found, tell)  # 5 available, 12 originality, 13 report
    return Report(
        facts=facts_of(means),
        findings=tuple(found.about_all),
        updates=tuple(_verdict(means, update, found.by_update.get(update.ref, {})) for update in updates),
        notes=tuple(notes_of(means)),
        seconds={phase: round(seconds, 3) for phase, seconds in found.seconds.items()},
    )


def by_the_ledgers_spec(means: Means) -> Means:
    """The same without a spec that is not the one which the ledger was opened with: that the auditor's file was changed
    is *opening*'s to say, and no publisher is to be blamed for not following it."""
    federation = means.federation
    if federation is None or federation.digest == means.prefix.opened.spec_digest:
        return means
    return replace(means, federation=None)


def updates_of(means: Means) -> list[UpdateEntry]:
    """All updates that the log can be read to have, by entry."""
    prefix = means.prefix
    return [
        prefix.update(entry.body.ref)
        for entry in means.entries[: prefix.size]
        if isinstance(entry.body, UpdatePublished)
    ]


def facts_of(means: Means) -> dict[str, object]:
    """What was looked at."""
    identity = means.identity
    federation = means.federation
    return {
        "name": federation.spec.name if federation else None,
        "chain_id": identity.chain_id,
        "contract": identity.address,
        "spec_digest": identity.spec_digest.hex(),
        "size": means.log.size,
        "root": means.log.root().hex(),
        "block": means.log.head.block_number,
        "block_hash": means.log.head.block_hash.hex(),
        "depth": means.depth,
        "rpc": means.rpc or None,
    }


def notes_of(means: Means) -> Iterable[str]:
    """What a reader should know besides: entries that are on the ledger and count for nobody."""
    if means.prefix.size < len(means.entries):
        yield (
            f"entries from {means.prefix.size} on were not looked at, for entry {means.prefix.size} cannot be the "
            "contract's: no rule says what follows from them"
        )
    if means.federation is None:
        return
    for update in updates_of(means):
        why = log_checks.ignored(means.federation.spec, means.prefix, update)
        if why is not None:
            yield f"{update.ref} (entry {update.index}) does not count: {why}"


def _federation(means: Means, scope: Scope, found: _Found) -> Tensors | None:
    """About the federation as a whole. Returns the genesis, which the replay needs."""
    with _timed(found, "opening"):
        finding, genesis = opening.genesis(means)
        if "opening" in scope.checks:
            found.about_all += [opening.code(means), opening.spec(means), finding]
        if "consistent" in scope.checks:
            found.about_all += checkpoints(means)
        if "membership" in scope.checks:
            found.about_all += _breaches(means)
    return genesis


def _breaches(means: Means) -> list[Finding]:
    """Entries other than updates that the contract can never have taken."""
    published = {update.index for update in updates_of(means)}
    others = {index: text for index, text in means.breaches.items() if index not in published}
    return [Finding("membership", Result.FAILED, f"entry {index}: {text}") for index, text in sorted(others.items())]


def _by_log(means: Means, scope: Scope, updates: Sequence[UpdateEntry], found: _Found, tell: Progress) -> None:
    spec = None if means.federation is None else means.federation.spec
    with _timed(found, "log"):
        grown = log_checks.grown(means, wanted=not scope.checks.isdisjoint(("included", "consistent")))
        each: Mapping[str, Callable[[UpdateEntry], Finding]] = {
            "included": partial(log_checks.included, grown, means.log.root()),
            "consistent": partial(log_checks.consistent, grown),
            "selection": partial(log_checks.selection, means),
            "membership": partial(log_checks.membership, means),
            "score": lambda update: score_finding(spec, means.prefix, update),
        }
        wanted = [check for name, check in each.items() if name in scope.checks]
        for done, update in enumerate(updates):
            for check in wanted:
                found.add(update.ref, check(update))
            tell("log", done + 1, len(updates))


def _by_chain(means: Means, scope: Scope, updates: Sequence[UpdateEntry], found: _Found) -> None:
    if canon.NAME not in scope.checks:
        return
    with _timed(found, "chain"):
        published = {update.index for update in updates}
        whole = scope.peer is None and scope.refs is None
        entries = [
            entry
            for entry in means.entries
            if entry.index in published
            or (whole and not isinstance(entry.body, UpdatePublished) and scope.spans(entry.index))
        ]
        try:
            results = canon.canonical(means, entries)
        except ChainUnavailable as cause:
            for update in updates:
                found.add(update.ref, canon.unreachable(cause))
            if whole:
                found.about_all.append(canon.unreachable(cause))
            return
        for update in updates:
            found.add(update.ref, results.by_index[update.index])
        if whole:
            found.about_all.append(results.summary(e.index for e in entries if e.index not in published))


def _by_bytes(
    means: Means,
    scope: Scope,
    updates: Sequence[UpdateEntry],
    genesis: Tensors | None,
    found: _Found,
    tell: Progress,
    jobs: int,
    kept: Kept | None,
) -> dict[UpdateRef, Known]:
    names = [name for name in OF_BYTES if name in scope.checks]
    sketching = "originality" in scope.checks
    known: dict[UpdateRef, Known] = {}
    if not names and not sketching and "report" not in scope.checks:
        return known
    with _timed(found, "replay"), one_core_each():
        if means.federation is None or genesis is None:
            what = "the spec" if means.federation is None else "the genesis"
            for update in updates:
                for name in names:
                    found.add(update.ref, Finding(name, Result.UNKNOWN, f"without {what} nothing can be replayed"))
            return known
        spec = means.federation.spec
        merging = "merge" in scope.checks or sketching
        spoken_of = _spoken_of(means, scope, updates)
        left = []
        for update in updates:
            earlier = kept.load(update.index, sketching=sketching) if kept is not None else None
            if earlier is None:
                left.append(update)
            else:
                _note(earlier, names, known, found, spoken_of)
        prefix = means.prefix
        reader = Reader(
            *(spec, prefix, means.blobs, genesis), opener=means.opener, in_clear=means.in_clear, sketching=sketching
        )
        shelf = partial(Shelf, reader, prefix)
        replay = Replay(spec, prefix, genesis, shelf, merging=merging, sketching=sketching, jobs=jobs)
        done = len(updates) - len(left)
        for replayed in replay.run(left):
            _note(replayed, names, known, found, spoken_of)
            if kept is not None and merging:
                kept.save(means.prefix.update(replayed.ref).index, replayed)
            done += 1
            tell("replay", done, len(updates))
        # What a report calls malformed is looked at, whether or not it was asked for.
        rest = [means.prefix.update(ref) for ref in sorted(spoken_of) if "merge" not in found.replayed.get(ref, {})]
        others = Replay(spec, prefix, genesis, shelf, merging=True, jobs=jobs)
        for replayed in others.run(rest):
            _note(replayed, (), {}, found, spoken_of)
    return known


def _spoken_of(means: Means, scope: Scope, updates: Sequence[UpdateEntry]) -> set[UpdateRef]:
    """Updates that somebody called malformed or mismatched, where that is to be checked."""
    if reports.NAME not in scope.checks:
        return set()
    words = [word for update in updates for word in reports.words_to_check(means.prefix, update)]
    words += _loose_words(means, scope)
    return {ref for ref, word in words if word.reason in (Reason.MALFORMED, Reason.DIGEST_MISMATCH)}


def _loose_words(means: Means, scope: Scope) -> list[reports.Word]:
    if scope.refs is not None:
        return []
    return [
        (ref, word)
        for ref, word in reports.loose_words(means.prefix)
        if scope.spans(word.index) and scope.peer in (None, word.peer)
    ]


def _note(
    replayed: Replayed,
    names: Sequence[str],
    known: dict[UpdateRef, Known],
    found: _Found,
    spoken_of: Collection[UpdateRef],
) -> None:
    if replayed.ref in spoken_of:
        found.replayed[replayed.ref] = {finding.check: finding for finding in replayed.findings}
    for finding in replayed.findings:
        if finding.check in names:
            found.add(replayed.ref, finding)
    if replayed.known is not None:
        known[replayed.ref] = replayed.known


def _by_others(
    means: Means,
    scope: Scope,
    updates: Sequence[UpdateEntry],
    known: Mapping[UpdateRef, Known],
    found: _Found,
    tell: Progress,
) -> None:
    if "available" in scope.checks:
        with _timed(found, "available"):
            for ref, finding in available(means, updates).items():
                found.add(ref, finding)
    if "originality" in scope.checks:
        with _timed(found, "originality"):
            if means.federation is None:
                for update in updates:
                    found.add(update.ref, Finding("originality", Result.UNKNOWN, "the ledger's spec is not at hand"))
            else:
                spec = means.federation.spec
                for ref, finding in originality_findings(spec, means.prefix, updates, known).items():
                    found.add(ref, finding)
    if "report" in scope.checks:
        with _timed(found, "report"):
            verified = {ref: _looked(means, ref, by_check) for ref, by_check in found.replayed.items()}
            spent = Spent(means, reports.MOST_BYTES)
            for done, update in enumerate(updates):
                found.add(update.ref, reports.report(means, update, verified, spent))
                tell("report", done + 1, len(updates))
            for word in _loose_words(means, scope):
                said = reports.judged(means.prefix, [word], verified)
                if said is not None:
                    text = f"peer {word[1].peer}: {said.detail}"
                    found.about_all.append(Finding(reports.NAME, said.result, text, said.data))


def _looked(means: Means, ref: UpdateRef, by_check: Mapping[str, Finding]) -> reports.Looked:
    """What came of an update that somebody objected to. Bytes that somebody altered on the way say nothing of it."""
    chosen = log_checks.selection(means, means.prefix.update(ref))
    good = None if by_check["bytes"].result is not Result.OK else _all_ok([by_check[name] for name in _OF_WEIGHTS])
    follows = _all_ok([chosen, by_check["merge"]]) if "merge" in by_check else None
    return reports.Looked(good, follows)


def _all_ok(findings: Sequence[Finding]) -> bool | None:
    """Whether all hold; ``None`` where that is not known."""
    results = {finding.result for finding in findings}
    return False if Result.FAILED in results else True if results == {Result.OK} else None


def _verdict(means: Means, update: UpdateEntry, by_check: Mapping[str, Finding]) -> UpdateVerdict:
    findings = tuple(by_check[check.name] for check in CHECKS if check.name in by_check)
    return UpdateVerdict(update.ref, update.index, update.round, means.prefix.peer(update.ref.peer).site, findings)


class _timed:
    """Adds the seconds of a phase."""

    def __init__(self, found: _Found, phase: str) -> None:
        self._found, self._phase = found, phase

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        spent = time.perf_counter() - self._began
        self._found.seconds[self._phase] = self._found.seconds.get(self._phase, 0.0) + spent
