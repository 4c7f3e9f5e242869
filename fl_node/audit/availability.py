"""Check 5: who gives an update's bytes now."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from fl_node.audit.means import Holders, Means
from fl_node.audit.verdicts import Finding, Result
from fl_node.content.names import cid_of_update
from fl_node.errors import LedgerError
from fl_node.prefix import UpdateEntry
from fl_node.records import Reason, UpdateRef

NAME = "available"
_AT_ONCE = 16


def available(means: Means, updates: Sequence[UpdateEntry]) -> dict[UpdateRef, Finding]:
    """Ask everybody about every one of these."""
    with ThreadPoolExecutor(_AT_ONCE, "ask") as pool:
        answers = list(pool.map(lambda one: means.blobs.asked(cid_of_update(one.update), one.ref), updates))
    highest = _highest_round(means)
    return {
        update.ref: _finding(means, update, holders, highest) for update, holders in zip(updates, answers, strict=True)
    }


def _highest_round(means: Means) -> int | None:
    """After all answers: the federation may have gone on since its log was read, and dropped what it need not keep.
    ``None`` where no chain tells."""
    if means.blocks is None:
        return None
    try:
        return max(means.prefix.highest_round, means.blocks.highest_round())
    except LedgerError:
        return None


def _finding(means: Means, update: UpdateEntry, holders: Holders | None, highest: int | None) -> Finding:
    if holders is None:
        return Finding(NAME, Result.UNKNOWN, "there is nobody to ask", asked=False)
    having, answered = len(holders.having), len(holders.having) + len(holders.lacking)
    everybody = answered + len(holders.silent)
    data = {
        "having": list(holders.having),
        "lacking": list(holders.lacking),
        "silent": list(holders.silent),
        "publisher": holders.publisher,
    }
    if having:
        return Finding(NAME, Result.OK, f"{having} of {everybody} peers have it, {answered} answered", data)
    if not answered:
        return Finding(NAME, Result.UNKNOWN, f"none of {everybody} peers answers now", data)
    due = _kept_until(means, update, highest)
    if holders.publisher is False and due is None:
        text = "its publisher answers and has not got it, within the retention that the spec asks for"
        return Finding(NAME, Result.FAILED, text, data)
    why = due or "its publisher is silent"
    return Finding(NAME, Result.UNKNOWN, f"none of {answered} that answered has it; {why}", data)


def _kept_until(means: Means, update: UpdateEntry, highest: int | None) -> str | None:
    """Why its publisher need not have it any more; ``None`` where it should."""
    if means.federation is None:
        return "the spec, which says how long it is kept, is not known"
    kept = means.federation.spec.content.retention_rounds
    if highest is None:
        return f"it is kept for {kept} rounds, and no chain tells which round this is"
    if highest - update.round >= kept:
        return f"it is older than the {kept} rounds for which content is kept"
    if any(word.reason is Reason.WITHDRAWN for word in means.prefix.objections(update.ref)):
        return "its publisher withdrew it"
    if not means.prefix.peer(update.ref.peer).active:
        return "its publisher was retired"
    return None
