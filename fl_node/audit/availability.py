"""Check 5: who gives an update's bytes now."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from fl_node.audit.means import Means
from fl_node.audit.verdicts import Finding, Result
from fl_node.prefix import UpdateEntry
from fl_node.records import Reason, UpdateRef
from fl_node.supply import cid_of_update

NAME = "available"
_AT_ONCE = 16


def available(means: Means, updates: Sequence[UpdateEntry]) -> dict[UpdateRef, Finding]:
    """Ask everybody about every one of these."""
    with ThreadPoolExecutor(_AT_ONCE, "ask") as pool:
        found = list(pool.map(lambda update: _one(means, update), updates))
    return dict(zip((update.ref for update in updates), found, strict=True))


def _one(means: Means, update: UpdateEntry) -> Finding:
    holders = means.blobs.asked(cid_of_update(update.update), update.ref)
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
    due = _kept_until(means, update)
    if holders.publisher is False and due is None:
        text = "its publisher answers and has not got it, within the retention that the spec asks for"
        return Finding(NAME, Result.FAILED, text, data)
    return Finding(
        NAME, Result.UNKNOWN, f"none of {answered} that answered has it; {due or 'its publisher is silent'}", data
    )


def _kept_until(means: Means, update: UpdateEntry) -> str | None:
    """Why its publisher need not have it any more; ``None`` where it should."""
    if means.federation is None:
        return "the spec, which says how long it is kept, is not known"
    kept = means.federation.spec.content.retention_rounds
    if means.prefix.highest_round - update.round >= kept:
        return f"it is older than the {kept} rounds for which content is kept"
    if any(word.reason is Reason.WITHDRAWN for word in means.prefix.objections(update.ref)):
        return "its publisher withdrew it"
    if not means.prefix.peer(update.ref.peer).active:
        return "its publisher was retired"
    return None
