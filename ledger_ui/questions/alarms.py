"""What a person should look at, as the index has it: the kinds and words of ``fl-node monitor``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from pydantic import Field

from fl_node.audit.verdicts import Result
from fl_node.records import Role
from ledger_ui.contexts import Context
from ledger_ui.questions import audited
from ledger_ui.questions.recipients import key_troubles
from ledger_ui.questions.spent import everybody
from ledger_ui.registry import Here

#: Seconds without an entry after which an active peer that has not closed is told.
SILENT_S: Final = 3600
#: The gravest first.
KINDS: Final = (
    *("inconsistent", "failed", "contradicted", "suspicious", "foreign-entry", "in-the-clear", "over-budget"),
    *("reorganised", "unavailable", "bad-key", "chain-unavailable", "silent", "outlier", "retired"),
)
#: Those that say that something is wrong with the record, and not only that somebody is away.
GRAVE: Final = frozenset({"inconsistent", "failed", "contradicted", "suspicious", "foreign-entry"})
_MOST_OF_A_KIND: Final = 20


class Alarm(Context):
    """Something that a person should look at."""

    kind: str = Field(description=f"one of {', '.join(KINDS)}")
    text: str = Field(description="what; may quote strangers")
    since_s: float | None = Field(description="local or block time at which it began, as far as that is known")
    url: str = Field(description="the page that has more; empty: none")
    source: str = Field(description="index: follows from what is shown here; monitor: fl-node monitor told it")


def alarms(here: Here) -> list[Alarm]:
    """All that hold now, and what the monitor told."""
    found = [
        *_chain(here),
        *_checkpoints(here),
        *_dropped(here),
        *_verdicts(here),
        *_in_the_clear(here),
        *_keys(here),
        *_budgets(here),
        *_unavailable(here),
        *_silent(here),
        *_retired(here),
        *_told(here),
    ]
    order = {kind: rank for rank, kind in enumerate(KINDS)}
    return sorted(found, key=lambda alarm: order.get(alarm.kind, len(order)))


def _chain(here: Here) -> Iterator[Alarm]:
    frame = here.frame
    kinds = {"inconsistent": "inconsistent", "refused": "inconsistent", "chain-down": "chain-unavailable"}
    if frame.state in kinds:
        yield _alarm(kinds[frame.state], frame.detail, frame.since_s)


def _checkpoints(here: Here) -> Iterator[Alarm]:
    """Checkpoints of members that the log does not hold. Anybody can sign one: strangers' say nothing."""
    rows = here.db.execute(
        "SELECT n.size, n.trouble, n.seen_at, p.peer, s.name FROM notes n JOIN peers p ON p.peer = n.peer "
        "LEFT JOIN sites s ON s.site = p.site WHERE n.trouble IS NOT NULL ORDER BY n.seen_at DESC LIMIT ?",
        (_MOST_OF_A_KIND,),
    )
    for row in rows:
        whose = f"the checkpoint of {row['name'] or 'a site'} (peer {row['peer']}) over {row['size']:,} entries"
        yield _alarm("inconsistent", f"{whose}: {row['trouble']}", row["seen_at"], here.urls.peer(row["peer"]))


def _dropped(here: Here) -> Iterator[Alarm]:
    many = here.db.execute("SELECT count(*) FROM orphans").fetchone()[0]
    query = "SELECT idx, kind, block, orphaned_at FROM orphans ORDER BY orphaned_at DESC, idx LIMIT ?"
    rows = here.db.execute(query, (_MOST_OF_A_KIND,)).fetchall()
    if many > _MOST_OF_A_KIND:
        text = f"the chain dropped {many:,} entries since this index was begun"
        yield _alarm("reorganised", text, rows[0]["orphaned_at"], here.urls.entries())
        return
    for row in rows:
        text = f"the chain dropped entry {row['idx']} ({row['kind']}) of block {row['block']}"
        yield _alarm("reorganised", text, row["orphaned_at"], here.urls.entries())


def _verdicts(here: Here) -> Iterator[Alarm]:
    for result in (Result.FAILED, Result.CONTRADICTED, Result.SUSPICIOUS, Result.OUTLIER):
        groups, _ = audited.groups(here.db, result.value, None)
        for group in groups[:_MOST_OF_A_KIND]:
            whom = group.first[0] + (f" and {group.updates - 1} more" if group.updates > 1 else "")
            url = here.urls.audit(result=result.value, check=group.check)
            yield _alarm(result.value, f"{whom}: {group.check} {group.result}: {group.detail}", None, url)


def _in_the_clear(here: Here) -> Iterator[Alarm]:
    """Updates that anybody can read, although the spec asks for encryption."""
    if not here.shown.spec.privacy.encrypt:
        return  # the overview says so, loudly
    many = here.db.execute("SELECT coalesce(sum(updates), 0) FROM encodings WHERE NOT encrypted").fetchone()[0]
    query = "SELECT peer, sequence, time_s FROM updates WHERE flags & 2 = 0 ORDER BY idx DESC LIMIT ?"
    rows = here.db.execute(query, (_MOST_OF_A_KIND,)).fetchall()
    if many > _MOST_OF_A_KIND:
        text = f"{many:,} updates are in the clear, though the spec asks for encryption: anybody can read their weights"
        yield _alarm("in-the-clear", text, rows[0]["time_s"], here.urls.updates(sealed="no"))
        return
    for row in rows:
        ref = f"{row['peer']}#{row['sequence']}"
        text = f"{ref} is in the clear, though the spec asks for encryption: anybody can read its weights"
        yield _alarm("in-the-clear", text, row["time_s"], here.urls.update(ref))


def _keys(here: Here) -> Iterator[Alarm]:
    """Active members whose key is none, or somebody else's: what is published now, they cannot read."""
    if not here.shown.spec.privacy.encrypt:
        return
    for one in key_troubles(here.db, _MOST_OF_A_KIND):
        whose = f"{one.site_name or 'a site'} (peer {one.peer})"
        yield _alarm("bad-key", f"{whose} {one.trouble}", one.time_s, here.urls.peer(one.peer))


def _budgets(here: Here) -> Iterator[Alarm]:
    """Peers that say that they spent more privacy than the spec allows."""
    for one in everybody(here.db, here.shown.spec.privacy)[:_MOST_OF_A_KIND]:
        if one.state == "beyond":
            whose = f"{one.site_name or 'a site'} (peer {one.peer})"
            budget = here.shown.spec.privacy.epsilon
            text = f"{whose} says that it has spent epsilon {one.point.epsilon:.4g}; the budget is {budget:g}"
            yield _alarm("over-budget", text, None, here.urls.peer(one.peer))


def _unavailable(here: Here) -> Iterator[Alarm]:
    """Latest updates, which others want to merge, that nobody gives though some peers answer."""
    rows = here.db.execute(
        "SELECT u.peer, u.sequence, h.lacks, h.asked_at FROM peers p JOIN updates u ON u.idx = "
        "(SELECT max(v.idx) FROM updates v WHERE v.peer = p.peer) JOIN holders h ON h.idx = u.idx "
        "WHERE p.retired IS NULL AND NOT u.final AND h.haves = 0 AND h.lacks > 0 ORDER BY u.idx DESC LIMIT ?",
        (_MOST_OF_A_KIND,),
    )
    for row in rows:
        ref = f"{row['peer']}#{row['sequence']}"
        text = f"{ref}: none of the peers that answer has its content ({row['lacks']} say that they have not)"
        yield _alarm("unavailable", text, row["asked_at"], here.urls.update(ref))


def _silent(here: Here) -> Iterator[Alarm]:
    """Active publishing peers that have not closed and have recorded nothing for a while."""
    if here.frame.state != "following":
        return  # who is not heard of because the chain is not, is not silent
    rows = here.db.execute(
        "SELECT p.peer, s.name, e.time_s FROM (SELECT peer, site, max(admitted, "
        "coalesce((SELECT max(idx) FROM updates WHERE peer = p.peer), 0), "
        "coalesce((SELECT max(idx) FROM attestations WHERE peer = p.peer), 0), "
        "coalesce((SELECT max(idx) FROM objections WHERE peer = p.peer), 0), "
        "coalesce((SELECT max(idx) FROM announcements WHERE peer = p.peer), 0)) AS last FROM peers p "
        "WHERE retired IS NULL AND roles & ? AND NOT coalesce((SELECT final FROM updates WHERE peer = p.peer "
        "ORDER BY idx DESC LIMIT 1), 0)) p JOIN entries e ON e.idx = p.last LEFT JOIN sites s ON s.site = p.site "
        "WHERE e.time_s < ? ORDER BY e.time_s LIMIT ?",
        (int(Role.PUBLISH), here.now - SILENT_S, _MOST_OF_A_KIND),
    )
    for row in rows:
        age = int(here.now - row["time_s"])
        text = f"{row['name'] or 'a site'} (peer {row['peer']}) has recorded nothing for {age:,} s"
        yield _alarm("silent", text, row["time_s"], here.urls.peer(row["peer"]))


def _retired(here: Here) -> Iterator[Alarm]:
    query = (
        "SELECT p.peer, p.retired, p.reason, e.time_s FROM peers p JOIN entries e ON e.idx = p.retired "
        "WHERE p.retired IS NOT NULL ORDER BY p.retired DESC LIMIT ?"
    )
    for row in here.db.execute(query, (_MOST_OF_A_KIND,)):
        text = f"peer {row['peer']} was retired at entry {row['retired']}: {row['reason']}"
        yield _alarm("retired", text, row["time_s"], here.urls.peer(row["peer"]))


def _told(here: Here) -> Iterator[Alarm]:
    """What the monitor beside told, the latest first."""
    query = "SELECT kind, text, detail, raised_at FROM alarms ORDER BY id DESC LIMIT ?"
    for row in here.db.execute(query, (5 * _MOST_OF_A_KIND,)):
        yield Alarm(
            kind=row["kind"],
            text=row["text"],
            since_s=row["raised_at"],
            url=_page_of(here, row["detail"]),
            source="monitor",
        )


def _page_of(here: Here, detail: str | None) -> str:
    """The page of what an alarm's detail names."""
    try:
        told = json.loads(detail or "{}")
    except ValueError:
        return ""
    update = told.get("update") if isinstance(told, dict) else None
    return here.urls.update(update) if isinstance(update, str) and "#" in update else ""


def _alarm(kind: str, text: str, since_s: float | None, url: str = "") -> Alarm:
    return Alarm(kind=kind, text=text, since_s=since_s, url=url, source="index")
