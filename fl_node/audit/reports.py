"""Check 13: the public report is the recorded one, and what it says agrees with log, bytes and replay."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeGuard

from fl_node.audit.means import Means
from fl_node.audit.spoken import merged_by, objections_by
from fl_node.audit.told_privacy import Spent, doubtful, other_bytes, untrue
from fl_node.audit.verdicts import Finding, Result
from fl_node.content.cid import Cid
from fl_node.errors import ContentError, ContentMismatch
from fl_node.merging.outcomes import OF_REASON, Outcome
from fl_node.merging.selection import Selection, selection_behind
from fl_node.prefix import Objection, Prefix, UpdateEntry
from fl_node.records import PPM, Flag, Reason, Rule, UpdateObjected, UpdateRef
from fl_node.spec import Spec

NAME = "report"
MOST_BYTES: Final = 1 << 20
_MOST_PEERS: Final = 1 << 16
#: Longest text of a stranger that is told, and longest outcome that is read.
_LONGEST: Final = 40
_FALSE: Final[Mapping[Reason, str]] = {
    Reason.MALFORMED: "its bytes are good",
    Reason.DIGEST_MISMATCH: "its bytes are those committed to, and its base follows",
}
#: What a report may say of a candidate that the policy gave, once its bytes were looked at.
_AFTER_FETCHING: Final = frozenset(
    {Outcome.UNAVAILABLE, Outcome.MALFORMED, Outcome.DIGEST_MISMATCH, Outcome.WITHDRAWN, Outcome.REJECTED}
)
_BY_BYTES: Final = frozenset({Rule.KRUM, Rule.MULTI_KRUM})


@dataclass(frozen=True, slots=True)
class Looked:
    """What the audit found out about an update that somebody objected to; ``None``: not known.

    ``good``: its bytes can be had, are weights of the model and those that were committed to. ``follows``: its parents
    are those of the policy, and its base is what they give.
    """

    good: bool | None = None
    follows: bool | None = None


Verified: TypeAlias = Mapping[UpdateRef, Looked]
Word: TypeAlias = tuple[UpdateRef, Objection]
_Spoken: TypeAlias = tuple[UpdateRef, Objection, tuple[str, ...]]


def words_to_check(prefix: Prefix, update: UpdateEntry) -> list[Word]:
    """This publisher's objections since its previous update: what its report is to be held against."""
    mine = prefix.updates(update.ref.peer)
    began = mine[update.ref.sequence - 2].index if update.ref.sequence > 1 else -1
    return _objections(prefix, update.ref.peer, began + 1, update.index)


def loose_words(prefix: Prefix) -> list[Word]:
    """Objections by peers that have published nothing since, so that no report of theirs speaks of them."""
    return [word for peer in prefix.peers() for word in _since_last_update(prefix, peer.number)]


def _since_last_update(prefix: Prefix, peer: int) -> list[Word]:
    mine = prefix.updates(peer)
    return _objections(prefix, peer, mine[-1].index + 1 if mine else 0, prefix.size)


def _objections(prefix: Prefix, peer: int, start: int, stop: int) -> list[Word]:
    """What a peer said of others' updates at these entries. Of updates that are nowhere there is nothing to check."""
    found = []
    for fact in objections_by(prefix, peer, start, stop):
        body = fact.body
        if isinstance(body, UpdateObjected):
            with suppress(LookupError):
                prefix.upto(fact.index).update(body.target)
                found.append((body.target, Objection(body.peer, fact.index, body.reason, body.evidence)))
    return found


def report(means: Means, update: UpdateEntry, verified: Verified, spent: Spent) -> Finding:
    """Fetch, read and compare one update's report."""
    cid = Cid("raw", update.update.report)
    data: dict[str, Any] = {"cid": str(cid)}
    try:
        raw = bytes(means.blobs.hold(cid, MOST_BYTES, update.ref).data)
    except ContentMismatch as cause:
        return Finding(NAME, Result.FAILED, str(cause), data)
    except ContentError as cause:
        said = judged(means.prefix, words_to_check(means.prefix, update), verified)
        if said is not None and said.result is not Result.UNKNOWN:
            return said
        return Finding(NAME, Result.UNKNOWN, str(cause), data)
    table = _read(raw)
    if table is None:
        return Finding(NAME, Result.FAILED, "the report is not the JSON that a report is", data)
    spec = None if means.federation is None else means.federation.spec
    epsilon = spent.by(update, table)
    trouble = _facts(table, update) or _metrics(table, update, spec) or other_bytes(table, update)
    if trouble is None and spec is not None:
        trouble = _outcomes(table, spec, means.prefix, update) or untrue(spec.privacy, table)
    if trouble is not None:
        return Finding(NAME, Result.FAILED, trouble, data)
    said = judged(means.prefix, words_to_check(means.prefix, update), verified)
    if said is not None and said.result in (Result.FAILED, Result.CONTRADICTED):
        return said
    if spec is not None and spec.privacy.mechanism != "none" and epsilon is not None:
        doubt = doubtful(means.prefix, update, epsilon, spent.before(update))
        if doubt is not None:
            return Finding(NAME, Result.SUSPICIOUS, doubt, {**data, "epsilon": epsilon})
    if said is not None:
        return said
    if spec is None:
        return Finding(NAME, Result.UNKNOWN, "its outcomes cannot be replayed: the ledger's spec is not at hand", data)
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
    if spec.privacy.mechanism != "none":
        return None  # what a confusion matrix tells is withheld
    rows = metrics.get("confusion")
    whole = isinstance(rows, list) and all(
        isinstance(row, list) and len(row) == len(rows) and all(_is_count(n) for n in row) for row in rows
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
        named, grouped = _told(table.get("candidates"))
    except _Unreadable as cause:
        return f"the report's candidates cannot be read: {cause}"
    shares = {parent.ref: parent.share_ppm for parent in update.parents}
    for item in chosen.considered:
        wanted, ref = str(item.outcome), item.entry.ref if item.entry else None
        what = f"update {ref}" if ref else f"peer {item.peer}, who has none,"
        got = named.pop((item.peer, ref.sequence if ref else None), None) or grouped.get(item.peer)
        if got is None:
            return f"the report says nothing of {what}; log and replay say {wanted!r}"
        if got == wanted and not (wanted == Outcome.MERGED and _not_merged(ref, shares, update)):
            continue
        if wanted == Outcome.MERGED and _explained(got, chosen, ref, shares, update):
            continue
        return f"the report says that {what} is {got!r}; log and replay say {wanted!r}"
    strangers = named.keys() or {(peer, None) for peer in grouped.keys() - {item.peer for item in chosen.considered}}
    if strangers:
        peer, sequence = min(strangers, key=str)
        what = f"update {sequence} of peer {peer}" if sequence is not None else f"peer {peer}"
        return f"the report tells of {what}, which the policy did not consider"
    return None


Shares = Mapping[UpdateRef, int]


def _not_merged(ref: UpdateRef | None, shares: Shares, update: UpdateEntry) -> bool:
    """Whether a candidate is told as merged, and is none of the recorded parents, or one that the rule left out."""
    share = None if ref is None else shares.get(ref)
    return share is None or (share == 0 and update.update.rule in _BY_BYTES)


def _explained(got: str, chosen: Selection, ref: UpdateRef | None, shares: Shares, update: UpdateEntry) -> bool:
    """Whether a candidate's other outcome follows from what is recorded."""
    if got not in _AFTER_FETCHING or ref is None:
        return False
    if got == Outcome.REJECTED:
        return shares.get(ref) == 0 and update.update.rule in _BY_BYTES
    return ref not in shares and ref in chosen.excusable


def _is_count(number: object) -> TypeGuard[int]:
    """A number that can count something. JSON has such of thousands of digits, which Python does not even print."""
    return type(number) is int and 0 <= number < 2**63


class _Unreadable(Exception):
    """A report whose candidates are not told as :func:`fl_node.merging.outcomes.told` tells them."""


def _told(items: Any) -> tuple[dict[tuple[int, int | None], str], dict[int, str]]:
    """Outcomes of what a report names one by one, by peer and sequence, and of peers that it tells of together.

    A peer may be named more than once: in several rings, with several updates.

    Raises:
        _Unreadable: of another form, something told twice, or more peers than there can be.
    """
    if not isinstance(items, list):
        raise _Unreadable("expected a list")
    named: dict[tuple[int, int | None], str] = {}
    grouped: dict[int, str] = {}
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("outcome"), str) or len(item["outcome"]) > _LONGEST:
            raise _Unreadable("expected objects with an outcome")
        if "peers" in item:
            for one in _ranges(item["peers"]):
                if one in grouped or len(grouped) == _MOST_PEERS:
                    raise _Unreadable(f"expected each peer once, got {one} again")
                grouped[one] = item["outcome"]
            continue
        peer, sequence = item.get("peer"), item.get("sequence")
        if not _is_count(peer) or not (sequence is None or _is_count(sequence)):
            raise _Unreadable("expected numbers of peer and sequence")
        if (peer, sequence) in named or peer in grouped or len(named) == _MOST_PEERS:
            raise _Unreadable(f"expected each update once, got {sequence} of peer {peer} again")
        named[peer, sequence] = item["outcome"]
    if twice := {peer for peer, _ in named} & grouped.keys():
        raise _Unreadable(f"expected each peer once, got {min(twice)} again")
    return named, grouped


def _ranges(text: object) -> Iterator[int]:
    """The numbers of ``1-40,45``."""
    for part in text.split(",") if isinstance(text, str) else ():
        parsed = re.fullmatch("([0-9]{1,10})(?:-([0-9]{1,10}))?", part)
        if parsed is None:
            raise _Unreadable(f"a range of peers {part[:_LONGEST]!r}")
        yield from range(int(parsed[1]), int(parsed[2] or parsed[1]) + 1)


def judged(prefix: Prefix, words: Sequence[Word], verified: Verified) -> Finding | None:
    """Objections against what bytes and others' entries say; ``None`` where nothing speaks against them."""
    contradicted: list[_Spoken] = []
    doubted: list[_Spoken] = []
    open_: list[Finding] = []
    for ref, word in words:
        if word.reason in (Reason.MALFORMED, Reason.DIGEST_MISMATCH):
            data = {"update": str(ref), "entry": word.index}
            true = _is_true(word.reason, verified.get(ref, Looked()))
            if true is False:
                text = f"at entry {word.index} it calls {ref} {OF_REASON[word.reason]}; {_FALSE[word.reason]}"
                return Finding(NAME, Result.FAILED, text, data)
            if true is None:
                text = f"at entry {word.index} it calls {ref} {OF_REASON[word.reason]}, which is not looked at here"
                open_.append(Finding(NAME, Result.UNKNOWN, text, data))
            continue
        others = had_by(prefix, ref, word.peer)
        if word.reason is Reason.UNAVAILABLE and others:
            # Whom an update is encrypted for only who was left out can tell.
            encrypted = prefix.update(ref).update.flags & Flag.ENCRYPTED
            (doubted if encrypted else contradicted).append((ref, word, others))
    if contradicted:
        text, data = _against(contradicted)
        return Finding(NAME, Result.CONTRADICTED, text, data)
    if open_:
        return open_[0]
    if doubted:
        text, data = _against(doubted)
        more = "; they are encrypted, and maybe not for this peer, which nobody else can tell"
        return Finding(NAME, Result.OUTLIER, text + more, data)
    return None


def _against(words: Sequence[_Spoken]) -> tuple[str, dict[str, Any]]:
    """What others' entries say against objections, for people and for machines."""
    told = "; ".join(f"{ref} (entry {word.index}), which {', '.join(others)}" for ref, word, others in words)
    items = [{"update": str(ref), "entry": word.index, "others": list(others)} for ref, word, others in words]
    return f"it called unavailable: {told}", {"contradicted": items}


def _is_true(reason: Reason, looked: Looked) -> bool | None:
    """Whether an update is what an objection calls it. A mismatch may also be of the base: who attests finds out where
    that does not follow (docs/replay-rules.md, section 11)."""
    if reason is Reason.MALFORMED:
        return None if looked.good is None else not looked.good
    if looked.good is False or looked.follows is False:
        return True
    return None if looked.good is None or looked.follows is None else False


def had_by(prefix: Prefix, ref: UpdateRef, but: int) -> tuple[str, ...]:
    """Who else had the bytes of an update that somebody objects to, by the ledger: merged or attested it; neither its
    publisher nor peer ``but``."""
    found = []
    publisher = prefix.update(ref)
    for said in prefix.attestations(ref):
        if said.peer not in (but, ref.peer):
            found.append(f"peer {said.peer} attested at entry {said.index}")
    for peer, (merging, index) in merged_by(prefix, ref).items():
        if peer not in (but, ref.peer) and index > publisher.index:
            found.append(f"{merging} merged at entry {index}")
    return tuple(found)
