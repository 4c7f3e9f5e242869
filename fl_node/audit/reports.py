"""Check 13: the public report is the recorded one, and what it says agrees with log, bytes and replay."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fl_node.audit.means import Means
from fl_node.audit.verdicts import Finding, Result
from fl_node.content.cid import Cid
from fl_node.errors import ContentError, ContentMismatch
from fl_node.merging.outcomes import OF_REASON, Outcome
from fl_node.merging.selection import Selection, selection_behind
from fl_node.prefix import Objection, Prefix, UpdateEntry
from fl_node.records import PPM, Reason, Rule, UpdateObjected, UpdateRef
from fl_node.spec import Spec

NAME = "report"
MOST_BYTES: Final = 1 << 20
_MOST_PEERS: Final = 1 << 16
#: What a report may say of a candidate that the policy gave, once its bytes were looked at.
_AFTER_FETCHING: Final = frozenset(
    {Outcome.UNAVAILABLE, Outcome.MALFORMED, Outcome.DIGEST_MISMATCH, Outcome.WITHDRAWN, Outcome.REJECTED}
)
_BY_BYTES: Final = frozenset({Rule.KRUM, Rule.MULTI_KRUM})

Verified = Mapping[UpdateRef, bool | None]
"""Whether an update's bytes are good; ``None`` or absent: not looked at."""


def words_to_check(prefix: Prefix, update: UpdateEntry) -> list[tuple[UpdateRef, Objection]]:
    """This publisher's objections since its previous update: what its report is to be held against."""
    mine = prefix.updates(update.ref.peer)
    began = mine[update.ref.sequence - 2].index if update.ref.sequence > 1 else -1
    found = []
    for fact in prefix.upto(update.index).facts(began + 1):
        body = fact.body
        if isinstance(body, UpdateObjected) and body.peer == update.ref.peer and body.target.peer != body.peer:
            found.append((body.target, Objection(body.peer, fact.index, body.reason, body.evidence)))
    return found


def report(means: Means, update: UpdateEntry, verified: Verified) -> Finding:
    """Fetch, read and compare one update's report."""
    cid = Cid("raw", update.update.report)
    data: dict[str, Any] = {"cid": str(cid)}
    try:
        raw = bytes(means.blobs.hold(cid, MOST_BYTES, update.ref).data)
    except ContentMismatch as cause:
        return Finding(NAME, Result.FAILED, str(cause), data)
    except ContentError as cause:
        said = _words(means, update, verified)
        if said is not None and said.result is Result.FAILED:
            return said
        return Finding(NAME, Result.UNKNOWN, str(cause), data)
    table = _read(raw)
    if table is None:
        return Finding(NAME, Result.FAILED, "the report is not the JSON that a report is", data)
    spec = None if means.federation is None else means.federation.spec
    trouble = _facts(table, update) or _metrics(table, update, spec)
    if trouble is None and spec is not None:
        trouble = _outcomes(table, spec, means.prefix, update)
    if trouble is not None:
        return Finding(NAME, Result.FAILED, trouble, data)
    said = _words(means, update, verified)
    if said is not None:
        return said
    if spec is None:
        return Finding(NAME, Result.UNKNOWN, "its outcomes cannot be replayed: the spec could not be had", data)
    return Finding(NAME, Result.OK, "the recorded report; it agrees with log and replay", data)


def _read(raw: bytes) -> dict[str, Any] | None:
    try:
        table = json.loads(raw.decode())
    except (ValueError, RecursionError):
        return None
    return table if isinstance(table, dict) else None


def _facts(table: Mapping[str, Any], update: UpdateEntry) -> str | None:
    facts = update.update
    expected = {
        "update": str(update.ref),
        "round": update.round,
        "final": update.final,
        "seen": facts.seen,
        "base": facts.base.hex(),
        "score_ppm": facts.score_ppm,
        "base_score_ppm": facts.base_score_ppm,
    }
    for key, value in expected.items():
        got = table.get(key)
        if type(got) is not type(value) or got != value:
            return f"the report says {key} = {str(got)[:80]!r}, the ledger {value!r}"
    return None


def _metrics(table: Mapping[str, Any], update: UpdateEntry, spec: Spec | None) -> str | None:
    """The report's own numbers: samples, and an accuracy that its confusion matrix gives."""
    metrics = table.get("metrics")
    if not isinstance(metrics, dict):
        return "the report has no metrics"
    if metrics.get("samples") != update.update.test_samples:
        return f"the report counts {str(metrics.get('samples'))[:40]} samples, the ledger {update.update.test_samples}"
    if spec is None or spec.task.metric != "accuracy" or spec.task.kind != "classification":
        return None
    rows = metrics.get("confusion")
    whole = isinstance(rows, list) and all(
        isinstance(row, list) and len(row) == len(rows) and all(type(n) is int and n >= 0 for n in row) for row in rows
    )
    if not whole or not isinstance(rows, list):
        return "the report's confusion matrix is not a square of whole numbers"
    total, right = sum(map(sum, rows)), sum(row[k] for k, row in enumerate(rows))
    if total != update.update.test_samples:
        return f"the report's confusion matrix counts {total} samples, the ledger {update.update.test_samples}"
    if total and right * PPM // total != update.update.score_ppm:
        return f"the report's confusion matrix gives {right * PPM // total} ppm, claimed are {update.update.score_ppm}"
    return None


def _outcomes(table: Mapping[str, Any], spec: Spec, prefix: Prefix, update: UpdateEntry) -> str | None:
    """What became of each candidate, against the replay."""
    try:
        chosen = selection_behind(spec, prefix, update)
    except (ValueError, LookupError):
        return None  # the check of selection says so
    try:
        said = dict(_expanded(table.get("candidates")))
    except (ValueError, TypeError, KeyError, AttributeError) as cause:
        return f"the report's candidates cannot be read: {str(cause)[:120]}"
    expected = {item.peer: str(item.outcome) for item in chosen.considered}
    shares = {parent.peer: parent.share_ppm for parent in update.parents}
    for peer in sorted(said.keys() | expected.keys()):
        got, wanted = said.get(peer), expected.get(peer)
        if got == wanted and not (wanted == Outcome.MERGED and _not_merged(peer, shares, update)):
            continue
        if wanted == Outcome.MERGED and got is not None and _explained(got, chosen, peer, shares, update):
            continue
        return f"the report says that the update of peer {peer} is {got!r}; log and replay say {wanted!r}"
    return None


def _not_merged(peer: int, shares: Mapping[int, int], update: UpdateEntry) -> bool:
    """Whether a candidate is told as merged, and is none of the recorded parents, or one that the rule left out."""
    return peer not in shares or (shares[peer] == 0 and update.update.rule in _BY_BYTES)


def _explained(got: str, chosen: Selection, peer: int, shares: Mapping[int, int], update: UpdateEntry) -> bool:
    """Whether a candidate's other outcome follows from what is recorded."""
    if got not in _AFTER_FETCHING:
        return False
    if got == Outcome.REJECTED:
        return shares.get(peer) == 0 and update.update.rule in _BY_BYTES
    return peer not in shares and any(ref.peer == peer for ref in chosen.excusable)


def _expanded(items: Any) -> Iterable[tuple[int, str]]:
    """``(peer, outcome)`` of each, groups taken apart."""
    if not isinstance(items, list):
        raise ValueError("expected a list")
    for item in items:
        outcome = str(item["outcome"])
        if "peers" not in item:
            yield int(item["peer"]), outcome
            continue
        for part in str(item["peers"]).split(","):
            first, _, last = part.partition("-")
            low, high = int(first), int(last or first)
            if not 0 <= low <= high <= _MOST_PEERS:
                raise ValueError(f"a range of peers {part[:40]!r}")
            for peer in range(low, high + 1):
                yield peer, outcome


def _words(means: Means, update: UpdateEntry, verified: Verified) -> Finding | None:
    """This publisher's objections against what bytes and others' entries say; ``None`` where nothing speaks against."""
    contradicted = []
    for ref, word in words_to_check(means.prefix, update):
        if word.reason in (Reason.MALFORMED, Reason.DIGEST_MISMATCH):
            if verified.get(ref):
                text = f"at entry {word.index} it calls {ref} {OF_REASON[word.reason]}; its bytes are good"
                return Finding(NAME, Result.FAILED, text, {"update": str(ref), "entry": word.index})
            continue
        others = had_by(means.prefix, ref, update.ref.peer)
        if word.reason is Reason.UNAVAILABLE and others:
            contradicted.append((ref, word, others))
    if not contradicted:
        return None
    told = "; ".join(f"{ref} (entry {word.index}), which {', '.join(others)}" for ref, word, others in contradicted)
    data = {
        "contradicted": [
            {"update": str(ref), "entry": word.index, "others": list(others)} for ref, word, others in contradicted
        ]
    }
    return Finding(NAME, Result.CONTRADICTED, f"it called unavailable: {told}", data)


def had_by(prefix: Prefix, ref: UpdateRef, but: int) -> tuple[str, ...]:
    """Who else had an update's bytes, by the ledger: merged or attested it; neither its publisher nor peer ``but``."""
    found = []
    publisher = prefix.update(ref)
    for said in prefix.attestations(ref):
        if said.peer not in (but, ref.peer):
            found.append(f"peer {said.peer} attested at entry {said.index}")
    for facts in prefix.peers():
        if facts.number in (but, ref.peer):
            continue
        for update in prefix.updates(facts.number):
            if update.index > publisher.index and any(one.ref == ref and one.share_ppm for one in update.parents):
                found.append(f"{update.ref} merged at entry {update.index}")
                break
    return tuple(found)
