"""Peers: all of them, and what one of them did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

from pydantic import Field

from fl_node.sealing.keytext import recipient_text
from ledger_ui.contexts import Context, Link, Paging, Ref
from ledger_ui.lists import ListQuery, Order, Select, Sorting, chips, paging, sortings
from ledger_ui.questions.exchange import Exchange, exchange
from ledger_ui.questions.given import Given, given
from ledger_ui.questions.members import LATEST, STANDING, Member, Whose, member, roles_of
from ledger_ui.questions.own import Own, own, recent
from ledger_ui.questions.presence import Presence, presence
from ledger_ui.questions.recipients import RecipientKey, recipient_keys
from ledger_ui.questions.sealing import key_trouble
from ledger_ui.questions.spent import Spent, spent
from ledger_ui.questions.traffic import PeerBytes, peer_bytes
from ledger_ui.registry import Here, Listing, Page, add, not_here

Sort = Literal["number", "updates", "round", "last", "claimed", "attested"]
_OF_LATEST: Final = "(SELECT w.{column} FROM updates w WHERE w.idx = " + LATEST + ")"  # noqa: S608
_UPDATES: Final = "(SELECT count(*) FROM updates c WHERE c.peer = p.peer)"
_COLUMNS: Final = {
    "number": "p.peer",
    "updates": _UPDATES,
    "round": _OF_LATEST.format(column="round"),
    "last": LATEST,
    "claimed": _OF_LATEST.format(column="score_ppm"),
    "attested": _OF_LATEST.format(column="attested_ppm"),
}


class PeersQuery(ListQuery):
    """Filters of the list of peers; all that are given must hold."""

    site: int | None = Field(None, ge=0, le=2**32, description="of this site, by the number of its first peer")
    standing: Literal["active", "closed", "retired"] | None = Field(
        None, description="active; closed: it has published its closing update; retired"
    )
    sort: Sort = Field("number", description="column to sort by; all but number and updates are of its last update")
    order: Order = Field("asc", description="asc or desc")


class PeerRow(Context):
    """One peer in a list."""

    peer: int
    account: str
    site: int | None = Field(description="number of the site's first peer")
    site_name: str | None = Field(description="a stranger's text")
    standing: str = Field(description="active, closed or retired")
    roles: list[str] = Field(description="publishes, attests, reads")
    admitted: int = Field(description="entry of its admission")
    updates: int
    last_update: Ref | None = Field(description="its last update that counts; none: there is none")
    last_round: int | None
    last_time_s: int | None = Field(description="block time of that, seconds since 1970")
    last_state: str | None = Field(description="merged, submitted, left-out or closing")
    claimed_ppm: int | None = Field(description="claim of that update, parts per million")
    test_samples: int | None = Field(description="rows that the claim is said to be measured on")
    attested_ppm: int | None = Field(description="median over other sites; none: nobody has attested it")
    attested_sites: int | None
    recipient: str | None = Field(description="key that updates are sealed to, as age writes it; none: no usable one")
    key_trouble: str = Field(description="why there is none; empty: there is one")
    epsilon: float | None = Field(description="privacy spent, by its last report that says so; none: nothing is said")


class PeersPage(Context):
    """A page of the list."""

    rows: list[PeerRow]
    paging: Paging
    filters: list[Link] = Field(description="the filters in force; each leads to the list without it")
    sorts: list[Sorting]


_KEY: Final = "(SELECT a.{column} FROM announcements a WHERE a.peer = p.peer ORDER BY a.idx DESC LIMIT 1)"
_EPSILON: Final = (
    "(SELECT t.epsilon FROM told t WHERE t.peer = p.peer AND t.epsilon IS NOT NULL ORDER BY t.idx DESC LIMIT 1)"
)
_SELECTED: Final = (
    f"p.peer, p.account, p.site, s.name AS site_name, p.roles, p.admitted, {STANDING} AS standing, "
    f"{_UPDATES} AS updates, u.sequence, u.round, u.time_s, u.state, u.score_ppm, u.test_samples, u.attested_ppm, "
    f"u.attested_sites, {_KEY.format(column='recipient_key')} AS recipient_key, "
    f"{_KEY.format(column='idx')} AS announced, {_EPSILON} AS epsilon"
)
_BESIDE: Final = f"LEFT JOIN sites s ON s.site = p.site LEFT JOIN updates u ON u.idx = {LATEST}"


def _select(query: PeersQuery) -> Select:
    found = Select(_SELECTED, "peers p", key="p.peer", beside=_BESIDE)
    found.only("p.site = ?", query.site)
    found.only(f"{STANDING} = ?", query.standing)
    return found


def _row(row: Any) -> PeerRow:
    trouble = key_trouble(row["recipient_key"], row["announced"])
    return PeerRow(
        peer=row["peer"],
        account=row["account"],
        site=row["site"],
        site_name=row["site_name"],
        standing=row["standing"],
        roles=roles_of(row["roles"] or 0),
        admitted=row["admitted"],
        updates=row["updates"],
        last_update=None if row["sequence"] is None else f"{row['peer']}#{row['sequence']}",
        last_round=row["round"],
        last_time_s=row["time_s"],
        last_state=row["state"],
        claimed_ppm=row["score_ppm"],
        test_samples=row["test_samples"],
        attested_ppm=row["attested_ppm"],
        attested_sites=row["attested_sites"],
        recipient=None if trouble else recipient_text(row["recipient_key"]),
        key_trouble=trouble or "",
        epsilon=row["epsilon"],
    )


def peers(here: Here, query: PeersQuery) -> PeersPage:
    """One page of the list of peers."""
    select = _select(query)
    rows, after = select.page(here.db, _COLUMNS[query.sort], query.order, query.after, query.limit)
    words = {"standing": str(query.standing)} if query.standing else {}
    if query.site is not None:
        name = here.db.execute("SELECT name FROM sites WHERE site = ?", (query.site,)).fetchone()
        words["site"] = f"site {name[0]}" if name and name[0] else f"site of peer {query.site}"
    return PeersPage(
        rows=[_row(row) for row in rows],
        paging=paging(query, after, select.count(here.db), here.urls.peers),
        filters=chips(words, query, here.urls.peers),
        sorts=sortings(list(_COLUMNS), query.sort, query, here.urls.peers),
    )


def every_peer(here: Here, query: PeersQuery) -> Iterator[PeerRow]:
    """All peers that match."""
    for row in _select(query).all(here.db, _COLUMNS[query.sort], query.order):
        yield _row(row)


PEERS = add(
    Page(
        name="peers",
        rule="/peers",
        summary="All peers, with their last updates",
        context=PeersPage,
        template="peers.html",
        make=peers,
        query=PeersQuery,
        listing=Listing(PeerRow, every_peer, tuple(PeerRow.model_fields)),
    )
)


# ---- one peer --------------------------------------------------------------------------------------------------------


class PeerPage(Context):
    """One peer: who it is, what it published, whom it merges, what it says of others, and when it was not there."""

    member: Member
    updates: int = Field(description="all that it published, those that do not count among them")
    own: Own
    exchange: Exchange
    max_staleness: int = Field(description="own updates since an entry after which the spec has it merged no more")
    given: Given
    presence: Presence
    keys: list[RecipientKey] = Field(description="newest first; the last thirty")
    bytes: PeerBytes
    spent: Spent


def peer(here: Here, query: object, number: int) -> PeerPage:
    """One peer, by its number."""
    found = member(here.db, number)
    if found is None:
        raise not_here(f"peer {number}", here.frame)
    whose = Whose("peer", number, (number,))
    rows = recent(here.db, whose)
    count = here.db.execute("SELECT count(*) FROM updates WHERE peer = ?", (number,)).fetchone()[0]
    return PeerPage(
        member=found,
        updates=count,
        own=own(rows),
        exchange=exchange(here.db, rows),
        max_staleness=here.shown.spec.merging.max_staleness,
        given=given(here.db, whose, rows),
        presence=presence(here.db, whose, rows),
        keys=recipient_keys(here.db, whose),
        bytes=peer_bytes(here.db, number),
        spent=spent(here.db, number, here.shown.spec.privacy),
    )


PEER = add(
    Page(
        name="peer",
        rule="/peers/<int:number>",
        summary="One peer: rounds, claimed against attested, merges both ways, staleness, words, availability, gaps",
        context=PeerPage,
        template="peer.html",
        make=peer,
        path={"number": "the peer's number"},
    )
)
