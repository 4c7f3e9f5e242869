"""How chain, index, peers and this explorer are."""

from __future__ import annotations

import json
from typing import Final

from pydantic import Field

from fl_node.ledger.transport import place_of
from fl_node.records import Role
from ledger_ui.contexts import Context, Digest, Ref
from ledger_ui.questions.alarms import GRAVE, Alarm, alarms
from ledger_ui.questions.traffic import traffic_totals
from ledger_ui.registry import Here, Page, add

_MOST_PEERS: Final = 200
_SOUND: Final = ("following", "elsewhere")


class ChainHealth(Context):
    """The endpoint, and what it said last."""

    endpoint: str = Field(description="scheme, host and port; never a key that its URL may hold")
    state: str = Field(description="as on every page: following, catching-up, chain-down, inconsistent and so on")
    detail: str
    since_s: float = Field(description="local time at which that state began, seconds since 1970")
    heard_s: float | None = Field(description="local time of its last answer; none: not by this process")
    block: int | None = Field(description="number of the last block looked at")
    root_agrees: bool | None = Field(
        description="the index has the contract's root at that block; none: not known at the moment"
    )


class IndexHealth(Context):
    """The explorer's own file."""

    entries: int = Field(description="entries of the log in it")
    shown: int = Field(description="entries that pages show")
    replayed: int = Field(description="entries up to which selections were replayed")
    root: Digest | None
    file_bytes: int | None
    kept_by: str = Field(description="this process, or another one")
    note: str = Field(description="what was wrong with the file that was found; empty: nothing")


class ContentHealth(Context):
    """Who has the content of a peer's latest update."""

    update: Ref
    peer: int
    site_name: str | None = Field(description="a stranger's text")
    haves: int | None = Field(description="gateways that say that they have it; none: not asked yet")
    lacks: int | None
    silent: int | None = Field(description="gateways that did not answer")
    publisher: bool | None = Field(description="what the publisher itself says; none: no answer")
    size_bytes: int | None
    asked_s: float | None = Field(description="local time, seconds since 1970")


class HarvestHealth(Context):
    """What was fetched besides the log."""

    on: bool
    answering: int | None = Field(description="gateways of active peers that answer; none: not asked")
    announced: int | None
    asked_s: float | None = Field(description="local time at which that was another last, seconds since 1970")
    reports: int = Field(description="public reports that are kept here")
    reports_waiting: int = Field(description="reports that nobody gave, and that are asked for again")
    checkpoints: int = Field(description="signed checkpoints that are kept here")
    checkpoints_troubled: int = Field(description="of them, those that the log does not hold")
    transactions: int = Field(description="transactions whose gas is known")
    sizes: int = Field(description="updates whose size is known")
    sent_bytes: int = Field(description="by the last word of each peer that has said something, so far")
    received_bytes: int
    traffic_peers: int = Field(description="peers that have said something of that")


class WorkHealth(Context):
    """Audits and packs that readers asked for."""

    on: bool
    running: int
    waiting: int


class HealthPage(Context):
    """Everything that can be the matter, on one page."""

    word: str = Field(
        description="ok; attention (something is away, behind, or alarming); failing (the log cannot be followed, or "
        "contradicts itself)"
    )
    why: list[str] = Field(description="why it is not ok, one word each")
    chain: ChainHealth
    index: IndexHealth
    harvest: HarvestHealth
    content: list[ContentHealth] = Field(description="of each active peer's latest update")
    work: WorkHealth
    monitor: str = Field(description="how fl-node monitor beside this explorer stands; empty: none was asked for")
    alarms: list[Alarm] = Field(description="the gravest first")


def health(here: Here) -> HealthPage:
    """The page."""
    known = dict(here.db.execute("SELECT key, value FROM ui_state").fetchall())
    found, harvest = alarms(here), _harvest(here, known)
    word, why = overall(here, found, harvest)
    return HealthPage(
        word=word,
        why=why,
        chain=_chain(here),
        index=_index(here, known),
        harvest=harvest,
        content=_content(here),
        work=_work(here),
        monitor=str(known.get("monitor") or "") if here.shown.watches else "",
        alarms=found,
    )


def overall(here: Here, found: list[Alarm], harvest: HarvestHealth) -> tuple[str, list[str]]:
    """One word for a load balancer or a person in a hurry, and why."""
    frame = here.frame
    why = [] if frame.state in _SOUND else [frame.state]
    if frame.behind:
        why.append("behind")
    if harvest.on and harvest.announced and not harvest.answering and _goes_on(here):
        why.append("no-peer-answers")
    why += sorted({alarm.kind for alarm in found if alarm.kind not in ("retired", "chain-unavailable")})
    if frame.state in ("inconsistent", "refused") or frame.root is None:
        return "failing", why or ["no log yet"]
    grave = any(alarm.kind in GRAVE for alarm in found)
    return ("attention" if why or grave else "ok"), why


def _goes_on(here: Here) -> bool:
    """Whether a peer has not closed yet: once all have, they may leave."""
    query = (
        "SELECT 1 FROM peers p WHERE retired IS NULL AND roles & ? AND NOT coalesce((SELECT final FROM updates u "
        "WHERE u.peer = p.peer ORDER BY idx DESC LIMIT 1), 0) LIMIT 1"
    )
    return here.db.execute(query, (int(Role.PUBLISH),)).fetchone() is not None


def _chain(here: Here) -> ChainHealth:
    frame, now = here.frame, here.shown.follower.now
    agrees = {"following": True, "inconsistent": False}.get(frame.state)
    return ChainHealth(
        endpoint=place_of(here.shown.deployment.rpc),
        state=frame.state,
        detail=frame.detail,
        since_s=frame.since_s,
        heard_s=now.heard_at,
        block=frame.block,
        root_agrees=agrees,
    )


def _index(here: Here, known: dict[str, object]) -> IndexHealth:
    path, size = here.shown.store.path, None
    try:
        size = path.stat().st_size
        size += path.with_name(f"{path.name}-wal").stat().st_size
    except OSError:
        pass
    elsewhere = here.frame.state == "elsewhere"
    return IndexHealth(
        entries=here.frame.size + here.frame.behind,
        shown=here.frame.size,
        replayed=int(str(known.get("replayed") or 0)),
        root=here.frame.root,
        file_bytes=size,
        kept_by="another process" if elsewhere else "this process",
        note=here.shown.store.note,
    )


def _harvest(here: Here, known: dict[str, object]) -> HarvestHealth:
    told = json.loads(str(known.get("harvest") or "{}"))
    waiting = here.db.execute("SELECT count(*) FROM reports WHERE due_at IS NOT NULL").fetchone()[0]
    sent, received, peers = traffic_totals(here.db)
    notes = here.db.execute("SELECT count(*), count(trouble) FROM notes").fetchone()
    return HarvestHealth(
        on=here.shown.harvests,
        answering=told.get("answering"),
        announced=told.get("announced"),
        asked_s=told.get("at"),
        reports=int(str(known.get("reports_of") or 0)),
        reports_waiting=waiting,
        checkpoints=notes[0],
        checkpoints_troubled=notes[1],
        transactions=int(str(known.get("gas_of") or 0)),
        sizes=int(str(known.get("bytes_of") or 0)),
        sent_bytes=sent,
        received_bytes=received,
        traffic_peers=peers,
    )


def _content(here: Here) -> list[ContentHealth]:
    rows = here.db.execute(
        "SELECT u.peer, u.sequence, s.name, h.* FROM peers p JOIN updates u ON u.idx = "
        "(SELECT max(v.idx) FROM updates v WHERE v.peer = p.peer) LEFT JOIN holders h ON h.idx = u.idx "
        "LEFT JOIN sites s ON s.site = u.site WHERE p.retired IS NULL ORDER BY coalesce(h.haves, -1), p.peer LIMIT ?",
        (_MOST_PEERS,),
    )
    return [
        ContentHealth(
            update=f"{row['peer']}#{row['sequence']}",
            peer=row["peer"],
            site_name=row["name"],
            haves=row["haves"],
            lacks=row["lacks"],
            silent=row["silent"],
            publisher=None if row["publisher"] is None else bool(row["publisher"]),
            size_bytes=row["size_bytes"],
            asked_s=row["asked_at"],
        )
        for row in rows
    ]


def _work(here: Here) -> WorkHealth:
    query = "SELECT state, count(*) FROM audits WHERE state IN ('queued', 'running') GROUP BY state"
    found = dict(here.db.execute(query).fetchall())
    return WorkHealth(on=here.shown.verifies, running=found.get("running", 0), waiting=found.get("queued", 0))


HEALTH = add(
    Page(
        name="health",
        rule="/health",
        summary="How chain, index, peers and this explorer are, with an overall word for load balancers",
        context=HealthPage,
        template="health.html",
        make=lambda here, query: health(here),
    )
)
