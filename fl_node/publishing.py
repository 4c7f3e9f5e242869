"""One's own weights on their way out: encoded, encrypted for who may read them now, stored by CID.

What is published is what everybody goes on from, the publisher too: of an encoding that loses something, the decoded
weights. docs/replay-rules.md, sections 12 and 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from fl_node.content.cid import Cid
from fl_node.content.unixfs import Buffer
from fl_node.errors import (
    ContentError,
    FlNodeError,
    LedgerError,
    MalformedWeights,
    StoreFull,
    StoreUnreachable,
    Unreadable,
)
from fl_node.journal import Draft
from fl_node.key_keeping import announced_key
from fl_node.merging import encodings, weights
from fl_node.merging.encodings import Encoded
from fl_node.merging.weights import Tensors
from fl_node.peer import Moved, Peer
from fl_node.prefix import UpdateEntry
from fl_node.progress import Event
from fl_node.readers import Readers, readers_at, recipients_of, referred, sealed_for
from fl_node.records import ZSTD, Flag, Update, UpdateRef
from fl_node.sealing import age
from fl_node.supply import OWN_LABEL, decoder, obtain, tensors_of

REPORT_LABEL: Final = "report"
_MAX_REPORT_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Sealed:
    """Bytes in the content store. ``sealed_at``: log size that fixed the readers, 0 in the clear; ``sealed_root``: root
    of that log."""

    cid: Cid
    size_bytes: int
    sealed_at: int = 0
    sealed_root: bytes = b""


@dataclass(frozen=True, slots=True)
class Published:
    """An update's bytes in the content store, and what they hold. ``refers_to`` as on the ledger; ``refers_content``:
    the content digest of the update that it names."""

    sealed: Sealed
    encoded: Encoded
    refers_to: int = 0
    refers_content: bytes = b""


def publish_weights(peer: Peer, tensors: Tensors, sequence: int, round_number: int, *, exact: bool) -> Published:
    """Encode one's own weights, encrypt them where the spec says so, and store them durably, pinned for the spec's
    retention.

    Args:
        exact: every value as it is, whatever the spec's encoding: for what must equal its base.

    Raises:
        StoreFull: nothing was changed.
    """
    spec = peer.spec.encoding
    if peer.spec.privacy.encrypt:
        with suppress(LedgerError):  # what was trained is kept without the chain; whom it is for is looked at again
            peer.sync()
    before, reference = (None, None) if exact else _reference(peer, sequence)
    if exact:
        spec = spec.model_copy(update={"kind": "f32"})
    identity = peer.ledger.identity
    origin = weights.origin(identity.chain_id, identity.address, peer.number, sequence)
    residual = None if exact or peer.residuals is None else peer.residuals.before(sequence)
    try:
        encoded = encodings.encode(
            spec,
            tensors,
            origin,
            reference=peer.genesis() if reference is None else reference,
            delta=reference is not None,
            residual=residual,
        )
        weights.check_magnitude(encoded.decoded, peer.spec.merging.max_magnitude)
    except (
        MalformedWeights
    ):  # what was carried over, or a rounding, goes beyond what others take: as it is, it does not
        before, spec = None, spec.model_copy(update={"kind": "f32"})
        encoded = encodings.encode(spec, tensors, origin, reference=peer.genesis(), delta=False)
    sealed = _stored(peer, encoded.buffers, round_number)
    if peer.residuals is not None:
        peer.residuals.keep(sequence, encoded.residual)
    peer.published_bytes += sealed.size_bytes
    if before is None:
        return Published(sealed, encoded)
    return Published(sealed, encoded, before.ref.packed(), before.content)


def as_update(peer: Peer, draft: Draft) -> Update:
    """A draft as it goes on the ledger."""
    identity = peer.ledger.identity
    commitment = weights.commitment(identity.chain_id, identity.address, peer.number, draft.sequence, draft.weights)
    flags = Flag.DAG_PB if draft.dag_pb else Flag(0)
    if draft.sealed_at:
        flags |= Flag.ENCRYPTED
    if draft.final:
        flags |= Flag.FINAL
    return Update(
        content=draft.content,
        flags=flags,
        weights=commitment,
        base=draft.base,
        report=draft.report,
        seen=draft.seen,
        seen_root=draft.seen_root,
        sequence=draft.sequence,
        round=draft.round,
        score_ppm=draft.score_ppm,
        base_score_ppm=draft.base_score_ppm,
        train_samples=draft.train_samples,
        test_samples=draft.test_samples,
        rule=draft.rule,
        encoding=draft.encoding,
        refers_to=draft.refers_to,
        sealed_at=draft.sealed_at,
    )


def as_entry(peer: Peer, draft: Draft) -> UpdateEntry:
    """A draft as if it were the next entry of the log: so that its bytes are read as others will read them."""
    ref = UpdateRef(peer.number, draft.sequence)
    return UpdateEntry(ref, peer.prefix.size, peer.prefix.time_s, as_update(peer, draft), draft.parents)


def with_published(draft: Draft, made: Published) -> Draft:
    """The draft with the bytes that were made for it."""
    encoded = made.encoded
    sizes = {
        "update": made.sealed.size_bytes,
        "plain": encoded.plain_bytes,
        "encoding": encodings.name_of(encoded.encoding & ~ZSTD),
        "zstd": bool(encoded.encoding & ZSTD),
        "full": not made.refers_to,
    }
    return _with_sealed(
        replace(
            draft,
            weights=weights.digest(encoded.decoded),
            encoding=encoded.encoding,
            refers_to=made.refers_to,
            refers_content=made.refers_content,
            sizes=sizes,
        ),
        made.sealed,
    )


def _with_sealed(draft: Draft, sealed: Sealed) -> Draft:
    """The draft with its bytes as they lie in the content store."""
    return replace(
        draft,
        content=sealed.cid.digest,
        dag_pb=sealed.cid.codec == "dag-pb",
        sealed_at=sealed.sealed_at,
        sealed_root=sealed.sealed_root,
    )


def for_readers_now(peer: Peer, draft: Draft) -> Draft:
    """The draft with bytes that are encrypted for who may read them now: as they are where that is nobody else than it
    was, by a log that is still the beginning of the log and not far behind.

    Raises:
        Moved: the chain dropped this peer's own key, which is to be announced again; or what was stored is lost.
        StoreFull, StoreUnreachable: nothing was changed.
    """
    if peer.secrecy is None:
        return draft
    readers = readers_at(peer.prefix)
    if announced_key(peer.prefix, peer.number) != peer.secrecy.recipient():
        raise Moved("the chain as it is now has not this peer's key")
    if not _still_for(peer, draft, readers):
        entry = as_entry(peer, draft)
        try:
            payload, _ = decoder(peer).payload(entry, obtain(peer, entry).data)
        except (StoreFull, StoreUnreachable):
            raise
        except (ContentError, MalformedWeights, Unreadable) as cause:
            raise Moved(f"the bytes made for round {draft.round} are no longer there: {cause}") from cause
        sealed = _stored(peer, [payload], draft.round)
        draft = _with_sealed(replace(draft, sizes={**(draft.sizes or {}), "update": sealed.size_bytes}), sealed)
    _tell_skipped(peer, readers)
    return draft


def _still_for(peer: Peer, draft: Draft, readers: Readers) -> bool:
    size = peer.prefix.size
    if draft.sealed_at > size or size - draft.sealed_at > peer.spec.rounds.max_lag // 2:
        return False
    if peer.index.root(draft.sealed_at) != draft.sealed_root:
        return False
    then = peer.prefix.upto(draft.sealed_at)
    own = announced_key(then, peer.number) == announced_key(peer.prefix, peer.number)
    return own and readers_at(then).keys == readers.keys


def still_refers(peer: Peer, draft: Draft) -> bool:
    """Whether the log still has the update that a draft's bytes refer to."""
    ref = UpdateRef.unpack(draft.refers_to)
    if ref is None:
        return True
    try:
        return peer.prefix.update(ref).content == draft.refers_content
    except LookupError:
        return False


def publish_report(peer: Peer, report: bytes, round_number: int) -> Cid:
    """Store a report durably; its CID is raw, so its digest is the SHA-256 of its bytes."""
    if len(report) > _MAX_REPORT_BYTES:
        raise FlNodeError(f"the report has {len(report)} bytes, expected at most {_MAX_REPORT_BYTES}")
    return peer.store.add(report, label=REPORT_LABEL, round=round_number)


def _stored(peer: Peer, buffers: Sequence[Buffer], round_number: int) -> Sealed:
    size = sum(memoryview(buffer).nbytes for buffer in buffers)
    if peer.secrecy is None:
        return Sealed(peer.store.add(buffers, label=OWN_LABEL, round=round_number), size)
    # Its own key, though a reorganised chain may have dropped it for now.
    recipients = dict.fromkeys([*recipients_of(peer.prefix, peer.number), peer.secrecy.recipient()])
    data = age.seal(buffers, tuple(recipients))
    at = peer.prefix.size
    cid = peer.store.add(data, label=OWN_LABEL, round=round_number)
    return Sealed(cid, memoryview(data).nbytes, at, peer.index.root(at))


def _tell_skipped(peer: Peer, readers: Readers) -> None:
    for number, why in readers.skipped.items():
        if number == peer.number or peer.skipped.get(number) == why:
            continue
        peer.skipped[number] = why
        text = f"peer {number} cannot read what this one publishes: it {why}"
        peer.emit(Event("not-sealed-for", text, {"peer": number, "why": why}))


def _reference(peer: Peer, sequence: int) -> tuple[UpdateEntry, Tensors] | tuple[None, None]:
    """The own update that a delta is taken from, and its weights; ``None``: the next one is a full one. It is, every
    ``full_every``-th time, and where somebody can read now who could not read what it would refer to."""
    spec = peer.spec.encoding
    if spec.kind not in ("int8-delta", "top-k-delta") or sequence < 2:
        return None, None
    try:
        before = peer.prefix.update(UpdateRef(peer.number, sequence - 1))
    except LookupError:  # a reorganisation dropped it just now
        return None, None
    links, at = 1, before
    while (earlier := referred(peer.prefix, at)) is not None:
        links, at = links + 1, earlier
    if links >= spec.full_every or not peer.prefix.counts(peer.number, before.index):
        return None, None
    if peer.spec.privacy.encrypt:
        readers = readers_at(peer.prefix).keys
        if not all(sealed_for(peer.prefix, before, number, spec.full_every) for number in readers):
            return None, None
    try:
        return before, tensors_of(peer, before)
    except (StoreFull, StoreUnreachable):
        raise
    except (ContentError, MalformedWeights, Unreadable) as error:
        peer.emit(Event("lost", f"publishing a full update, for {before.ref} cannot be read again: {error}", {}))
        return None, None
