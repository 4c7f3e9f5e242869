"""Others' weights: fetch candidates by CID, verify before parsing, object to what is bad.

Another peer's missing or bad bytes never raise: they become a failure with a reason, an objection on the ledger, and
the round goes on without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

from fl_node.content.cid import Cid
from fl_node.content.endpoints import Endpoint, parse_endpoint
from fl_node.content.names import cid_of_update
from fl_node.content.protocol import Held
from fl_node.decoding import Decoder, most_content_bytes
from fl_node.errors import (
    AlreadyRecorded,
    ContentError,
    ContentMalformed,
    ContentMismatch,
    ContentUnavailable,
    EntryRejected,
    MalformedWeights,
    StoreFull,
    StoreUnreachable,
    Unreadable,
)
from fl_node.merging.outcomes import Failure
from fl_node.merging.weights import Tensors
from fl_node.peer import Peer
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.progress import Event
from fl_node.records import Reason, UpdateRef

OWN_LABEL = "own"
FETCHED_LABEL = "fetched"
_PARALLEL = 4
#: Bytes in flight at most, so that fetching never needs more memory than training.
_PARALLEL_BYTES = 256 << 20
_SMALL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Supply:
    """Candidates that arrived and were found good, with their tensors, and why the others were not."""

    entries: tuple[UpdateEntry, ...]
    tensors: tuple[Tensors, ...]
    failures: Mapping[UpdateRef, Failure]
    held: tuple[Held, ...] = ()

    def forget(self) -> None:
        """Give back the memory of tensors that lie on disk."""
        for held in self.held:
            held.forget()


def gather(peer: Peer, candidates: Sequence[UpdateEntry], excusable: frozenset[UpdateRef] = frozenset()) -> Supply:
    """Fetch and verify in parallel; object to what cannot be used.

    ``excusable``: candidates that this peer called unavailable before; the ledger takes no second objection.

    Raises:
        StoreFull, StoreUnreachable: this peer's own store is in the way; nobody is objected to for that.
    """
    found: dict[UpdateRef, _Good] = {}
    failures: dict[UpdateRef, Failure] = {}
    with peer.watch.phase("fetch"):
        at_once = _at_once(peer, candidates)
        if at_once > 1:
            with ThreadPoolExecutor(at_once, "fetch") as pool:
                results = list(pool.map(lambda entry: _usable(peer, entry), candidates))
        else:
            results = [_usable(peer, entry) for entry in candidates]
    for entry, result in zip(candidates, results, strict=True):
        if isinstance(result, Failure):
            if entry.ref.peer == peer.number:  # nobody objects to its own: it withdraws it, and that is what it tells
                result = replace(result, reason=Reason.WITHDRAWN)
            failures[entry.ref] = result
            peer.emit(
                Event("left-out", f"left out {entry.ref}: {result.message}", {"update": str(entry.ref)}),
            )
            if entry.ref not in excusable:
                object_to(peer, entry.ref, result)
        else:
            found[entry.ref] = result
    usable = tuple(entry for entry in candidates if entry.ref in found)
    good = [found[entry.ref] for entry in usable]
    return Supply(usable, tuple(one.tensors for one in good), failures, tuple(one.held for one in good))


def gather_quietly(peer: Peer, wanted: Sequence[UpdateEntry]) -> Supply:
    """Fetch and verify all of these, one after another, without an objection to what fails.

    Raises:
        ContentUnavailable: not all could be had and read; the message says which and why.
        StoreFull, StoreUnreachable: this peer's own store is in the way.
    """
    good = []
    with peer.watch.phase("fetch"):
        for entry in wanted:
            result = _usable(peer, entry)
            if isinstance(result, Failure):
                raise ContentUnavailable(f"{entry.ref} cannot be used: {result.message}")
            good.append(result)
    return Supply(tuple(wanted), tuple(one.tensors for one in good), {}, tuple(one.held for one in good))


def providers(prefix: Prefix, ref: UpdateRef, own: int) -> tuple[str | Endpoint, ...]:
    """Endpoints that may have an update's bytes: its publisher, then who merged it, then every other active peer."""
    numbers = [ref.peer]
    others: list[int] = []
    for facts in prefix.peers():
        latest = prefix.latest(facts.number)
        merged = latest is not None and any(parent.ref == ref and parent.share_ppm for parent in latest.parents)
        (numbers if merged else others).append(facts.number)
    endpoints: dict[str | Endpoint, None] = {}
    for number in (*numbers, *others):
        facts = prefix.peer(number)
        if number == own or facts.announcement is None or not (facts.active or number == ref.peer):
            continue
        said = facts.announcement
        if not said.endpoint:  # who only audits serves nothing
            continue
        if not any(said.tls_pin):
            endpoints.setdefault(said.endpoint)
            continue
        with suppress(ContentUnavailable):  # a pin without an endpoint that could have one is nobody to ask
            endpoints.setdefault(parse_endpoint(said.endpoint, said.tls_pin))
    return tuple(endpoints)


def decoder(peer: Peer) -> Decoder:
    """Reads updates with this peer's keys, from its own store and from whoever has them."""
    return Decoder(
        peer.spec,
        peer.schema,
        peer.genesis,
        lambda entry: obtain(peer, entry).data,
        peer.secrecy,
        peer.verified,
    )


def tensors_of(peer: Peer, entry: UpdateEntry) -> Tensors:
    """An update's weights, one's own or another's.

    Raises:
        ContentError, MalformedWeights, Unreadable: as :meth:`Decoder.tensors`.
    """
    return decoder(peer).tensors(entry, peer.prefix)


def _at_once(peer: Peer, candidates: Sequence[UpdateEntry]) -> int:
    """How many threads fetch and verify. For small files that lie here already they would cost more than they save."""
    size = most_content_bytes(peer.spec, peer.schema)
    if size <= _SMALL_BYTES and all(stored(peer, cid_of_update(entry.update)) for entry in candidates):
        return 1
    return max(1, min(_PARALLEL, len(candidates), _PARALLEL_BYTES // size))


@dataclass(frozen=True, slots=True)
class _Good:
    tensors: Tensors
    held: Held


def _usable(peer: Peer, entry: UpdateEntry) -> _Good | Failure:
    try:
        held = obtain(peer, entry)
    except ContentMalformed as error:
        return Failure(Reason.MALFORMED, str(error))
    except (StoreFull, StoreUnreachable):
        raise
    except ContentError as error:
        # Other bytes than the CID names are a provider's doing, not the publisher's: all one can say is that the
        # content could not be had.
        return Failure(Reason.UNAVAILABLE, str(error))
    try:
        tensors = decoder(peer).tensors(entry, peer.prefix, held.data)
    except MalformedWeights as error:
        return Failure(Reason.MALFORMED, str(error))
    except ContentMalformed as error:
        return Failure(Reason.MALFORMED, str(error))
    except (StoreFull, StoreUnreachable):
        raise
    except (ContentUnavailable, Unreadable) as error:
        return Failure(Reason.UNAVAILABLE, str(error))
    except ContentMismatch as error:
        return Failure(Reason.DIGEST_MISMATCH, str(error))
    except ContentError as error:
        return Failure(Reason.UNAVAILABLE, str(error))
    held.forget()
    return _Good(tensors, held)


def obtain(peer: Peer, entry: UpdateEntry) -> Held:
    """An update's bytes, checked against its CID: from the own store, or from who has them, and kept to serve on."""
    cid = cid_of_update(entry.update)
    most = most_content_bytes(peer.spec, peer.schema)
    if stored(peer, cid):
        try:
            held = peer.store.hold(cid, most)
            if entry.ref.peer != peer.number:
                peer.store.pin(cid, FETCHED_LABEL, entry.round)
            return held
        except ContentUnavailable:
            pass
        except ContentMismatch as error:
            peer.emit(Event("store-damaged", str(error), {"cid": str(cid)}))
    endpoints = providers(peer.prefix, entry.ref, peer.number)
    data = peer.fetcher.fetch_into(peer.store, cid, most, endpoints, label=FETCHED_LABEL, round=entry.round)
    fetched = memoryview(data).nbytes  # first: no other thread comes between reading and writing the sum
    peer.fetched_bytes += fetched
    del data
    try:
        return peer.store.hold(cid, most)
    except StoreFull:
        raise
    except ContentError as cause:
        raise StoreUnreachable(f"fetched {cid}, but the own content store does not give it back: {cause}") from cause


def stored(peer: Peer, cid: Cid) -> bool:
    """Whether this peer's own store has a file.

    Raises:
        StoreUnreachable: it cannot tell.
    """
    try:
        return peer.store.has(cid)
    except ContentError as cause:
        raise StoreUnreachable(f"the own content store does not answer: {cause}") from cause


def object_to(peer: Peer, ref: UpdateRef, failure: Failure) -> None:
    """Put the reason on the ledger. One's own lost update is withdrawn instead."""
    reason = Reason.WITHDRAWN if ref.peer == peer.number else failure.reason
    try:
        with peer.watch.phase("record"):
            peer.ledger.object(ref, reason)
    except AlreadyRecorded:
        pass
    except EntryRejected as error:
        peer.emit(Event("objection-refused", f"the ledger refused the objection to {ref}: {error}", {}))
