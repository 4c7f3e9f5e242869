"""The log of updates."""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from typing import Any, Final, Literal

from pydantic import Field

from fl_node.merging.encodings import name_of
from fl_node.records import Flag, UpdateRef
from ledger_ui.contexts import Context, Link, Paging, Ref
from ledger_ui.lists import ListQuery, Select, Sorting, asked_of, chips, paging, sortings
from ledger_ui.questions.audited import ONLY_SEALED
from ledger_ui.questions.orphans import NONE, Orphans, orphans
from ledger_ui.registry import Here, Listing, Page, add
from ledger_ui.text import utc
from ledger_ui.urls import undashed

State = Literal["merged", "submitted", "left-out", "closing", "ignored"]
Verdict = Literal["ok", "outlier", "unknown", "contradicted", "suspicious", "failed", "none"]
Sort = Literal["index", "round", "claimed", "attested", "time"]
_COLUMNS: Final = {
    "index": "u.idx",
    "round": "u.round",
    "claimed": "u.score_ppm",
    "attested": "u.attested_ppm",
    "time": "u.time_s",
}
#: A day, or seconds since 1970.
_WHEN: Final = r"^(?:[0-9]{1,18}|(?:19[7-9][0-9]|2[0-9]{3})-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01]))$"
_DAY_S: Final = 86_400
#: Sites that a reader chooses from by name; of more, by number.
_MOST_SITES: Final = 200


class UpdatesQuery(ListQuery):
    """Filters of the list of updates; all that are given must hold."""

    peer: int | None = Field(None, ge=0, le=2**32, description="of this peer")
    site: int | None = Field(None, ge=0, le=2**32, description="of this site, by the number of its first peer")
    round: int | None = Field(None, ge=0, le=2**32, description="of this round")
    state: State | None = Field(None, description="what became of it")
    verdict: Verdict | None = Field(None, description="worst result of its last audit; none: not audited here")
    claimed_min: float | None = Field(None, ge=0, le=100, description="claimed score, percent")
    claimed_max: float | None = Field(None, ge=0, le=100, description="claimed score, percent")
    attested_min: float | None = Field(None, ge=0, le=100, description="attested score, percent")
    attested_max: float | None = Field(None, ge=0, le=100, description="attested score, percent")
    since: str | None = Field(None, pattern=_WHEN, description="block time: a day, UTC, or seconds since 1970")
    until: str | None = Field(None, pattern=_WHEN, description="block time: to the end of a day, or seconds since 1970")
    sealed: Literal["yes", "no"] | None = Field(None, description="yes: encrypted; no: in the clear")
    parent: str | None = Field(
        None, pattern="^[0-9]{1,10}-[0-9]{1,10}$", description="made from this update with a share, such as 3-12"
    )
    sort: Sort = Field("index", description="column to sort by")


class UpdateRow(Context):
    """One update in a list."""

    update: Ref
    entry: int = Field(description="entry index")
    peer: int
    site: int | None = Field(description="number of the site's first peer")
    site_name: str | None = Field(description="a stranger's text")
    round: int
    time_s: int = Field(description="block time, seconds since 1970")
    final: bool = Field(description="a closing update: untrained, its weights are its base")
    state: str = Field(description="merged, submitted, left-out, closing or ignored")
    claimed_ppm: int = Field(description="the publisher's claim, parts per million")
    base_ppm: int = Field(description="the publisher's claim for the base")
    test_samples: int = Field(description="rows that the claim is said to be measured on")
    attested_ppm: int | None = Field(description="median over other sites of what they attest; none: nobody has")
    attested_sites: int = Field(description="how many other sites attested it")
    merged: int = Field(description="parents with a share")
    merged_by: int = Field(description="other peers that merged it")
    objections: int
    withdrawn: bool = Field(description="its publisher withdrew it")
    verdict: str | None = Field(description="worst result of its last audit here; none: not audited here")
    only_sealed: bool = Field(
        description="what that audit could not know and decides, it could not for want of a key: it is encrypted"
    )
    encoding: str = Field(description="how its bytes carry the weights, as int8-delta+zstd")
    refers_to: Ref | None = Field(description="the earlier update that its bytes refer to; none: the genesis")
    encrypted: bool = Field(description="only members and auditors of its moment can read it")
    sealed_at: int = Field(description="log size that fixed who can; 0: none")
    update_bytes: int | None = Field(description="its size, by its publisher's word; none: no report at hand says it")
    plain_bytes: int | None = Field(description="size of the same weights as plain float32, by the same word")
    epsilon: float | None = Field(description="privacy spent up to it, by the same word; none: nothing is said")


class SiteName(Context):
    """A site to choose from."""

    site: int
    name: str = Field(description="a stranger's text")


class UpdatesPage(Context):
    """A page of the list."""

    rows: list[UpdateRow]
    paging: Paging
    filters: list[Link] = Field(description="filters in force; each leads to the list without it")
    sorts: list[Sorting]
    orphans: Orphans = Field(description="updates that a reorganisation dropped; on the first page only, newest first")
    sites: list[SiteName] = Field(description="sites to choose from; empty where there are too many for that")


SELECTED: Final = (
    "u.idx, u.peer, u.sequence, u.site, s.name AS site_name, u.round, u.time_s, u.final, u.state, u.score_ppm, "
    "u.base_score_ppm, u.test_samples, u.attested_ppm, u.attested_sites, u.merged, u.merged_by, u.objections, "
    "u.withdrawn, u.verdict, u.flags, u.encoding, u.refers_to, u.sealed_at, t.size_bytes, t.plain_bytes, t.epsilon, "
    f"{ONLY_SEALED} AS only_sealed"
)
#: What :data:`SELECTED` needs beside ``updates u``.
SITES: Final = "LEFT JOIN sites s ON s.site = u.site LEFT JOIN told t ON t.idx = u.idx"


def row_of(row: object) -> UpdateRow:
    """A row of :data:`SELECTED` as a record."""
    got: dict[str, object] = dict(row)  # type: ignore[call-overload]
    return UpdateRow.model_validate(
        {
            "update": f"{got['peer']}#{got['sequence']}",
            "entry": got["idx"],
            "claimed_ppm": got["score_ppm"],
            "base_ppm": got["base_score_ppm"],
            "final": bool(got["final"]),
            "withdrawn": bool(got["withdrawn"]),
            "only_sealed": bool(got["only_sealed"]),
            "encoding": name_of(int(str(got["encoding"]))),
            "refers_to": refers_to(int(str(got["refers_to"]))),
            "encrypted": bool(int(str(got["flags"])) & Flag.ENCRYPTED),
            "update_bytes": got["size_bytes"],
            **{
                name: got[name]
                for name in (
                    *("peer", "site", "site_name", "round", "time_s", "state", "test_samples", "attested_ppm"),
                    *("attested_sites", "merged", "merged_by", "objections", "verdict", "sealed_at", "plain_bytes"),
                    "epsilon",
                )
            },
        }
    )


def refers_to(number: int) -> str | None:
    """The update that ``Update.refers_to`` names; ``None``: the genesis."""
    ref = UpdateRef.unpack(number)
    return None if ref is None else str(ref)


def _select(here: Here, query: UpdatesQuery) -> Select:
    found = Select(SELECTED, "updates u", key="u.idx", beside=SITES, ordered=True)
    found.only("u.peer = ?", query.peer)
    found.only("u.site = ?", query.site)
    found.only("u.round = ?", query.round)
    found.only("u.state = ?", query.state)
    if query.sealed is not None:
        found.only("u.flags & 2 = ?", 2 if query.sealed == "yes" else 0)
    if query.verdict == "none":
        found.only("u.verdict IS NULL")
    else:
        found.only("u.verdict = ?", query.verdict)
    for column, low, high in (
        ("score_ppm", query.claimed_min, query.claimed_max),
        ("attested_ppm", query.attested_min, query.attested_max),
    ):
        found.only(f"u.{column} >= ?", None if low is None else round(low * 10_000))
        found.only(f"u.{column} <= ?", None if high is None else round(high * 10_000))
    found.only("u.time_s >= ?", _seconds(query.since))
    found.only("u.time_s <= ?", _seconds(query.until, at_end=True))
    if query.parent is not None:
        ref = undashed(query.parent) or UpdateRef(0, 0)
        of = "SELECT idx FROM updates WHERE peer = ? AND sequence = ?"
        children = f"SELECT child FROM parents WHERE parent = ({of}) AND share_ppm > 0"  # noqa: S608
        found.only(f"u.idx IN ({children})", ref.peer, ref.sequence)
    return found


def _seconds(when: str | None, at_end: bool = False) -> int | None:
    if when is None or when.isdecimal():
        return None if when is None else int(when)
    year, month, day = map(int, when.split("-"))
    # The 31st of a shorter month is a day of the next one.
    first = calendar.timegm((year, month, 1, 0, 0, 0))
    return first + day * _DAY_S - 1 if at_end else first + (day - 1) * _DAY_S


def _words(here: Here, query: UpdatesQuery) -> dict[str, str]:
    """The filters in force, by parameter."""
    told: dict[str, Any] = asked_of(query)
    words = {
        "peer": "peer {}",
        "site": "site {}",
        "round": "round {}",
        "state": "{}",
        "verdict": "audit: {}",
        "claimed_min": "claimed from {:g} %",
        "claimed_max": "claimed up to {:g} %",
        "attested_min": "attested from {:g} %",
        "attested_max": "attested up to {:g} %",
        "since": "since {}",
        "until": "until {}",
        "parent": "made from {}",
    }
    found = {name: said.format(told[name]) for name, said in words.items() if name in told}
    if query.site is not None:
        name = here.db.execute("SELECT name FROM sites WHERE site = ?", (query.site,)).fetchone()
        found["site"] = f"site {name[0] or 'without a name'}" if name else f"site of peer {query.site}"
    if query.sealed is not None:
        found["sealed"] = "encrypted" if query.sealed == "yes" else "in the clear"
    if query.verdict == "none":
        found["verdict"] = "not audited"
    if query.parent is not None:
        found["parent"] = f"made from {query.parent.replace('-', '#')}"
    for name in ("since", "until"):
        if name in told and told[name].isdecimal():
            found[name] = f"{name} {utc(int(told[name]))}"
    return found


def _orphans(here: Here, query: UpdatesQuery, others: set[str]) -> Orphans:
    """Those that belong where the newest rows are."""
    if query.after or query.sort not in ("index", "time") or query.order != "desc" or others:
        return NONE
    return orphans(here.db, kind="UpdatePublished", peer=query.peer, round_number=query.round)


def _sites(here: Here) -> list[SiteName]:
    rows = here.db.execute("SELECT site, name FROM sites ORDER BY site LIMIT ?", (_MOST_SITES + 1,)).fetchall()
    if len(rows) > _MOST_SITES:
        return []
    found = [SiteName(site=site, name=name or f"site of peer {site}") for site, name in rows]
    return sorted(found, key=lambda one: (one.name.casefold(), one.site))


def updates(here: Here, query: UpdatesQuery) -> UpdatesPage:
    """One page of the log of updates."""
    select = _select(here, query)
    rows, after = select.page(here.db, _COLUMNS[query.sort], query.order, query.after, query.limit)
    words = _words(here, query)
    return UpdatesPage(
        rows=[row_of(row) for row in rows],
        paging=paging(query, after, select.count(here.db), here.urls.updates),
        filters=chips(words, query, here.urls.updates),
        sorts=sortings(list(_COLUMNS), query.sort, query, here.urls.updates),
        orphans=_orphans(here, query, set(words) - {"peer", "round"}),
        sites=_sites(here),
    )


def every_update(here: Here, query: UpdatesQuery) -> Iterator[UpdateRow]:
    """All updates that match."""
    for row in _select(here, query).all(here.db, _COLUMNS[query.sort], query.order):
        yield row_of(row)


UPDATES = add(
    Page(
        name="updates",
        rule="/updates",
        summary="The log of updates, with claimed beside attested scores",
        context=UpdatesPage,
        template="updates.html",
        make=updates,
        query=UpdatesQuery,
        listing=Listing(UpdateRow, every_update, tuple(UpdateRow.model_fields)),
    )
)
