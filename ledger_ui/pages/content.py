"""Bytes that the log names, by CID: fetched through the bounded client, checked, and passed on block by block."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from flask import Response, request
from pydantic import Field

from fl_node.content import car
from fl_node.content.cid import Cid
from fl_node.content.unixfs import CHUNK_BYTES, MAX_NODE_BYTES, Buffer, Dag, assemble, build
from fl_node.errors import ContentError, ContentTooLarge, LedgerError, UsageError
from fl_node.ledger.codec import decode
from fl_node.records import Flag, LedgerOpened, UpdateRef
from fl_node.spec import genesis_path
from ledger_ui.contexts import Query
from ledger_ui.federation import Shown
from ledger_ui.origin import check_not_another_site
from ledger_ui.registry import PageError, Route, add_route
from ledger_ui.text import visible

#: Files that are passed on at a time: each holds a thread of the server.
MOST_AT_ONCE: Final = 4
#: Larger ones are for clients that can go on where they stopped.
MOST_BYTES: Final = 2 << 30
_MOST_S: Final = 900.0
_CAR: Final = "application/vnd.ipld.car"
_ROOM: Final = threading.BoundedSemaphore(MOST_AT_ONCE)
_POLICY: Final = "sandbox; default-src 'none'; frame-ancestors 'none'"


class ContentQuery(Query):
    """In which form."""

    format: Literal["raw", "car"] = Field("raw", description="raw: the file; car: its blocks, as IPFS tools read them")


@dataclass(frozen=True, slots=True)
class Named:
    """What the log calls by a CID. ``ref``: an update whose publisher is asked first; ``body``: bytes that are here."""

    cid: Cid
    what: str
    ref: UpdateRef | None = None
    body: bytes | None = None


def content(shown: Shown, query: ContentQuery, cid: str) -> Response:
    """The bytes, as a download."""
    check_not_another_site(request)
    try:
        wanted = Cid.parse(cid)
    except UsageError as cause:
        raise PageError(404, "No such CID", f"{visible(str(cause), 200)}.") from None
    with shown.store.reading() as db:
        named = named_by(shown, db, wanted)
    if named is None:
        told = "The log names no content, report, genesis or spec by this CID; nothing else is fetched here."
        raise PageError(404, "Not of this federation", told)
    if not _ROOM.acquire(blocking=False):
        told = f"{MOST_AT_ONCE} files are being passed on already; expected fewer. Try again in a moment."
        raise PageError(503, "Not now", told)
    try:
        dag, parts, size = _opened(shown, named, query.format)
    except BaseException:
        _ROOM.release()
        raise
    suffix = "car" if query.format == "car" else "json" if named.what == "report" else "bin"
    kind = f"{_CAR}; version=1; order=dfs; dups=n" if query.format == "car" else "application/octet-stream"
    done = _Once(_ROOM.release)
    response = Response(_passed_on(parts, done), content_type=kind)
    response.call_on_close(done)  # of what is never begun, such as the answer to a HEAD, too
    response.headers["Content-Length"] = str(size)
    response.headers["Content-Disposition"] = f'attachment; filename="{dag.root}.{suffix}"'
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Cache-Control"] = "private, max-age=86400, immutable"
    response.set_etag(f"{dag.root}.{query.format}")
    return response


def named_by(shown: Shown, db: sqlite3.Connection, cid: Cid) -> Named | None:
    """What the log calls by this CID; ``None``: nothing."""
    row = db.execute("SELECT peer, sequence, flags FROM updates WHERE content = ? LIMIT 1", (cid.digest,)).fetchone()
    if row is not None and cid.codec == ("dag-pb" if Flag(row["flags"]) & Flag.DAG_PB else "raw"):
        return Named(cid, "update", UpdateRef(row["peer"], row["sequence"]))
    if cid.codec == "raw" and cid.digest == shown.federation.digest:
        return Named(cid, "spec", body=shown.federation.spec_bytes)
    genesis = _genesis(db)
    if genesis == cid:
        return Named(cid, "genesis", body=_beside(shown, cid))
    row = db.execute(
        "SELECT u.peer, u.sequence, r.body FROM updates u LEFT JOIN reports r ON r.idx = u.idx WHERE u.report = ? "
        "ORDER BY r.body IS NULL LIMIT 1",
        (cid.digest,),
    ).fetchone()
    if row is None or cid.codec != "raw":
        return None
    body = None if row["body"] is None else bytes(row["body"])
    kept = body is not None and hashlib.sha256(body).digest() == cid.digest
    return Named(cid, "report", UpdateRef(row["peer"], row["sequence"]), body if kept else None)


def _genesis(db: sqlite3.Connection) -> Cid | None:
    row = db.execute("SELECT topics, data FROM entries WHERE idx = 0").fetchone()
    if row is None:
        return None
    topics = tuple(row["topics"][at : at + 32] for at in range(0, len(row["topics"]), 32))
    try:
        body = decode(topics, row["data"])[2]
    except LedgerError:
        return None
    if not isinstance(body, LedgerOpened):
        return None
    return Cid("dag-pb" if body.genesis_flags & Flag.DAG_PB else "raw", body.genesis_content)


def _beside(shown: Shown, cid: Cid) -> bytes | None:
    """The genesis beside the federation file, if it is the one."""
    file = genesis_path(shown.source.file)
    try:
        if file.stat().st_size > MOST_BYTES >> 3:
            return None
        raw = file.read_bytes()
    except OSError:
        return None
    return raw if build(raw).root == cid else None


def _opened(shown: Shown, named: Named, form: str) -> tuple[Dag, Iterator[bytes], int]:
    """The file's shape, its bytes in some form, and how many they are. Its first block is there before this returns.

    Raises:
        PageError: 404 where nobody gives it, 413 where it is too large.
    """
    deadline = time.monotonic() + _MOST_S
    try:
        dag, leaf = _here(named.body) if named.body is not None else _there(shown, named)
        first = leaf(0)
    except ContentTooLarge as cause:
        raise PageError(413, "Too large", f"{visible(str(cause), 300)}. Ask a gateway for its blocks.") from None
    except ContentError as cause:
        told = f"{visible(str(cause), 600)}. What the log says of it stays as it is."
        raise PageError(404, "Nobody gives it", told) from None

    def blocks(index: int) -> Buffer:
        if time.monotonic() > deadline or shown.ended:
            raise ContentTooLarge(f"{dag.root} takes too long")
        return first if index == 0 else leaf(index)

    if form == "car":
        written = car.write(dag, lambda cid, index: [blocks(index)])
        return dag, map(bytes, written), car.length(dag, dag.walk())
    return dag, (bytes(blocks(index)) for index in range(len(dag.leaves))), dag.size_bytes


def _passed_on(parts: Iterator[bytes], done: Callable[[], None]) -> Iterator[bytes]:
    try:
        yield from parts
    finally:
        done()


_Leaf = Callable[[int], Buffer]


def _here(body: bytes) -> tuple[Dag, _Leaf]:
    dag, whole = build(body), memoryview(body)

    def leaf(index: int) -> Buffer:
        offset, length = dag.leaf_span(index)
        return whole[offset : offset + length]

    return dag, leaf


def _there(shown: Shown, named: Named) -> tuple[Dag, _Leaf]:
    """From the peers' gateways, one block at a time."""
    if not shown.harvests:
        told = "This explorer was told to ask no peers (--no-harvest). Ask a gateway of the federation for it."
        raise PageError(404, "Not fetched here", told)
    with shown.store.reading() as db:
        blobs = shown.harvester.gateways.at(db)
    if named.cid.codec == "raw":
        only = blobs.block(named.cid, CHUNK_BYTES, named.ref)
        return Dag(named.cid, only.nbytes, (named.cid.digest,), {}), lambda index: only
    dag = assemble(named.cid, lambda cid: bytes(blobs.block(cid, MAX_NODE_BYTES, named.ref)), MOST_BYTES)

    def leaf(index: int) -> Buffer:
        _, length = dag.leaf_span(index)
        block = blobs.block(Cid("raw", dag.leaves[index]), length, named.ref)
        if block.nbytes != length:
            raise ContentTooLarge(f"a block of {dag.root} has another length than the file says")
        return block

    return dag, leaf


class _Once:
    """Does something once, however often it is called."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work: Callable[[], None] | None = work

    def __call__(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work()


CONTENT = add_route(
    Route(
        name="content",
        rule="/content/<cid>",
        summary="Bytes that the log names: content of an update, a report, the genesis, the spec; as a download",
        view=content,
        query=ContentQuery,
        path={"cid": "a CID that the log names"},
        answers={
            200: ("application/octet-stream", "the file, or its blocks as CAR; every block was checked"),
            403: ("text/html", "another site's page asked for it"),
            404: ("text/html", "no CID of this federation, or nobody gives it now"),
            413: ("text/html", "too large to be passed on"),
            503: ("text/html", "too many are being passed on already"),
        },
    )
)
