"""The raw log: entries of every kind, decoded beside what the chain has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from pydantic import Field

from fl_node.records import UnknownEntry, UpdateObjected, UpdatePublished
from ledger_ui.contexts import Context, Digest, Hex, Link, Paging, Ref
from ledger_ui.lists import ListQuery, Select, Sorting, asked_of, chips, paging, sortings
from ledger_ui.questions.commands import Command, commands_of
from ledger_ui.questions.facts import KINDS, Fact, facts_of, summary_of
from ledger_ui.questions.logged import COLUMNS, RawEntry, entry_at, entry_of, raw_of
from ledger_ui.questions.orphans import NONE, Orphans, orphans
from ledger_ui.registry import Here, Listing, Page, PageError, add, not_here

Kind = Literal[
    "LedgerOpened",
    "OwnerChanged",
    "PeerAdmitted",
    "PeerRetired",
    "PeerAnnounced",
    "UpdatePublished",
    "UpdatesAttested",
    "UpdateObjected",
    "UnknownEntry",
]
#: Entries of one transaction that are linked.
_MOST_BESIDE: Final = 64
_SELECTED: Final = f"{COLUMNS}, leaf, kind, peer, sequence, round"


class EntriesQuery(ListQuery):
    """Filters of the log; all that are given must hold."""

    kind: Kind | None = Field(None, description="of this kind")
    peer: int | None = Field(
        None, ge=0, le=2**32, description="by or about this peer: the one that the entry begins with"
    )
    block: int | None = Field(None, ge=0, le=2**62, description="in this block")
    tx: str | None = Field(None, pattern="^(?:0x)?[0-9a-fA-F]{64}$", description="made by the transaction of this hash")
    sort: Literal["index"] = Field("index", description="the log has one order")


class EntryRow(Context):
    """One entry in a list."""

    entry: int = Field(description="entry index")
    kind: str
    time_s: int = Field(description="block time, seconds since 1970")
    block: int
    block_hash: Hex
    transaction: Hex
    peer: int | None
    update: Ref | None = Field(description="the update that it published, or objects to")
    words: str = Field(description="what it says in one line; may be a stranger's text")
    leaf: Digest = Field(description="its leaf in the tree: all of them, in order, give the root")


class EntriesPage(Context):
    """A page of the log."""

    rows: list[EntryRow]
    paging: Paging
    filters: list[Link] = Field(description="filters in force; each leads to the list without it")
    sorts: list[Sorting]
    kinds: dict[str, int] = Field(description="how many entries there are of each kind")
    orphans: Orphans = Field(description="entries that a reorganisation dropped; on the first page only, newest first")


class EntryPage(Context):
    """One entry, decoded and raw."""

    entry: int
    kind: str
    known: bool = Field(description="whether this version can read it")
    words: str = Field(description="what its kind is")
    summary: str = Field(description="what it says in one line; may be a stranger's text")
    time_s: int = Field(description="block time, seconds since 1970")
    peer: int | None
    update: Ref | None = Field(description="the update that it published, or objects to")
    facts: list[Fact]
    raw: RawEntry
    beside: list[int] = Field(description="other entries of the same transaction")
    orphans: Orphans = Field(description="entries that had this index before a reorganisation dropped them")
    commands: list[Command]
    previous_url: str | None
    next_url: str | None


def _select(here: Here, query: EntriesQuery) -> Select:
    found = Select(_SELECTED, "entries")
    found.only("idx < ?", here.frame.size)
    found.only("kind = ?", query.kind)
    found.only("peer = ?", query.peer)
    found.only("block = ?", query.block)
    found.only("tx_hash = ?", None if query.tx is None else bytes.fromhex(query.tx.removeprefix("0x")))
    return found


def _row(row: object) -> EntryRow:
    got = row  # a row of _SELECTED
    entry = entry_of(got)  # type: ignore[arg-type]
    return EntryRow(
        entry=entry.index,
        kind=entry.kind,
        time_s=entry.time_s,
        block=entry.block_number,
        block_hash=entry.block_hash.hex(),
        transaction=entry.tx_hash.hex(),
        peer=getattr(entry.body, "peer", None),
        update=_update_of(entry.body),
        words=summary_of(entry),
        leaf=got["leaf"].hex(),  # type: ignore[index]
    )


def _update_of(body: object) -> str | None:
    match body:
        case UpdatePublished():
            return str(body.ref)
        case UpdateObjected():
            return str(body.target)
    return None


def _kinds(here: Here) -> dict[str, int]:
    return dict(here.db.execute("SELECT kind, entries FROM kinds WHERE entries > 0 ORDER BY kind").fetchall())


def _total(here: Here, query: EntriesQuery, select: Select) -> int | None:
    if query.peer is None and query.block is None and query.tx is None:
        return here.frame.size if query.kind is None else _kinds(here).get(query.kind, 0)
    return select.count(here.db)


def entries(here: Here, query: EntriesQuery) -> EntriesPage:
    """One page of the log."""
    select = _select(here, query)
    rows, after = select.page(here.db, "idx", query.order, query.after, query.limit)
    told = asked_of(query)
    words = {
        name: said.format(told[name])
        for name, said in {"kind": "{}", "peer": "peer {}", "block": "block {}", "tx": "transaction {}"}.items()
        if name in told
    }
    newest = query.after is None and query.order == "desc" and query.block is None and query.tx is None
    return EntriesPage(
        rows=[_row(row) for row in rows],
        paging=paging(query, after, _total(here, query, select), here.urls.entries),
        filters=chips(words, query, here.urls.entries),
        sorts=sortings(["index"], "index", query, here.urls.entries),
        kinds=_kinds(here),
        orphans=orphans(here.db, kind=query.kind, peer=query.peer) if newest else NONE,
    )


def every_entry(here: Here, query: EntriesQuery) -> Iterator[EntryRow]:
    """All entries that match."""
    for row in _select(here, query).all(here.db, "idx", query.order):
        yield _row(row)


def entry(here: Here, query: object, index: int) -> EntryPage:
    """One entry."""
    found = entry_at(here.db, index) if index < here.frame.size else None
    dropped = orphans(here.db, index=index)
    if found is None:
        if dropped.rows:
            one = dropped.rows[0]
            told = (
                f"Entry {index} was dropped by a reorganisation of the chain, and no other has its place: {one.words}"
            )
            raise PageError(404, f"No entry {index} any more", told)
        raise not_here(f"entry {index}", here.frame)
    raw = raw_of(here.db, found, here.frame.size)
    beside = here.db.execute(
        "SELECT idx FROM entries WHERE tx_hash = ? AND idx != ? AND idx < ? ORDER BY idx LIMIT ?",
        (found.tx_hash, index, here.frame.size, _MOST_BESIDE),
    )
    return EntryPage(
        entry=index,
        kind=found.kind,
        known=not isinstance(found.body, UnknownEntry),
        words=KINDS[found.kind],
        summary=summary_of(found),
        time_s=found.time_s,
        peer=getattr(found.body, "peer", None),
        update=_update_of(found.body),
        facts=facts_of(found, here.urls),
        raw=raw,
        beside=[row[0] for row in beside],
        orphans=dropped,
        commands=commands_of(here, found, raw),
        previous_url=here.urls.entry(index - 1) if index else None,
        next_url=here.urls.entry(index + 1) if index + 1 < here.frame.size else None,
    )


ENTRIES = add(
    Page(
        name="entries",
        rule="/entries",
        summary="The log: entries of every kind, as the contract has them",
        context=EntriesPage,
        template="entries.html",
        make=entries,
        query=EntriesQuery,
        listing=Listing(EntryRow, every_entry, tuple(EntryRow.model_fields)),
    )
)

ENTRY = add(
    Page(
        name="entry",
        rule="/entries/<int:index>",
        summary="One entry: decoded, raw, and proved under the root",
        context=EntryPage,
        template="entry.html",
        make=entry,
        path={"index": "entry index, from 0"},
    )
)
