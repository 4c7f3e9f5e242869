"""Giving another member an update that was not encrypted to it: opened here, wrapped again for its key there.

A late joiner, or a peer that lost its keys, gets earlier updates from any member that way. What is wrapped are the
whole weights, so that no update that they refer to is needed; the receiver holds them against the ledger's commitment,
so nobody need be trusted for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from fl_node.access import View
from fl_node.assembly import load_genesis
from fl_node.content.cid import Cid
from fl_node.content.endpoints import Endpoint
from fl_node.content.fetch import Fetcher
from fl_node.content.memory import MemoryStore
from fl_node.content.protocol import ContentStore
from fl_node.content.unixfs import Buffer
from fl_node.decoding import Decoder, most_content_bytes
from fl_node.errors import ContentMismatch, MalformedWeights, Unreadable, UsageError
from fl_node.key_keeping import Secrecy
from fl_node.merging import encodings, weights
from fl_node.merging.personal import published, shared_schema
from fl_node.merging.weights import Schema, Tensors
from fl_node.models import canonical_file, stored_or_fetched
from fl_node.pacing import common_round
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.readers import valid_key
from fl_node.records import Encoding, UpdateRef
from fl_node.sealing import age
from fl_node.supply import providers

SHARED_LABEL: Final = "shared"


def key_of(prefix: Prefix, number: int) -> bytes:
    """The key that a member can be given something with, 32 bytes.

    Raises:
        UsageError: no such member, a retired one, or one that announced no usable key.
    """
    try:
        facts = prefix.peer(number)
    except LookupError as cause:
        raise UsageError(f"--to {number}: {cause}; `fl-node peers` lists the members") from cause
    if not facts.active:
        raise UsageError(f"--to {number}: peer {number} ({facts.site}) is retired; expected an active member")
    key = facts.announcement.recipient_key if facts.announcement else bytes(32)
    if not valid_key(key):
        raise UsageError(
            f"--to {number}: peer {number} ({facts.site}) has announced no usable key; it does with `fl-node run`, or "
            "`fl-node keys rotate`"
        )
    return key


def wrap(
    view: View, entry: UpdateEntry, key: bytes, secrecy: Secrecy, stores: Sequence[ContentStore] = ()
) -> memoryview:
    """An update's whole weights, opened with one's own keys or from the vault, as an age file for another's key.

    Raises:
        Unreadable: it was not encrypted to this peer either, or the key for it is gone.
        ContentUnavailable: nobody gives its bytes now.
        ContentMismatch, MalformedWeights: its publisher put there what is not what the ledger names.
    """
    with _room(view, stores) as room:
        decoder = Decoder(view.federation.spec, room.schema, room.genesis, room.with_vault(secrecy), secrecy)
        try:
            tensors = decoder.tensors(entry, view.prefix)
        except Unreadable as cause:
            raise Unreadable(
                f"{cause}; what this peer cannot read it cannot share: ask a member that still reads {entry.ref} to "
                f"share it, here or there (`fl-node share {entry.ref} --to PEER`)"
            ) from cause
        return age.seal(canonical_file(view.prefix, entry, tensors), [key])


def take_in(view: View, data: Buffer, secrecy: Secrecy, stores: Sequence[ContentStore] = ()) -> UpdateEntry:
    """Open what another member wrapped, check it against the ledger, and put it into the vault, for as long as the
    federation keeps what is published now. Returns the update that it is.

    Raises:
        Unreadable: it was not wrapped for this peer, or the key for it is gone.
        MalformedWeights: it is no such file, or no weights of this federation's model.
        ContentMismatch: not the weights that the ledger names.
    """
    with _room(view, stores) as room:
        schema = room.schema
    own = secrecy.keys.identities()
    try:
        payload = age.unseal(data, own, encodings.most_bytes(schema))
    except Unreadable as cause:
        first = "" if own else "Make one first (`fl-node run`, or `fl-node keys rotate`). "
        raise Unreadable(
            f"{cause}. {first}A share is for the key that its receiver had announced when it was made: ask any member "
            "that reads the update to share it again (`fl-node share UPDATE --to PEER`)"
        ) from cause
    except MalformedWeights as cause:
        raise MalformedWeights(
            f"{cause}; expected what `fl-node share` wrote: copy the file again, fetch it by its CID, or ask for the "
            "share again"
        ) from cause
    file = weights.decode(payload, schema)
    entry = _named(view.prefix, file.metadata)
    opened = view.prefix.opened
    digest = weights.digest(file.tensors)
    commitment = weights.commitment(opened.chain_id, opened.ledger, entry.ref.peer, entry.ref.sequence, digest)
    if commitment != entry.update.weights:
        raise ContentMismatch(
            f"the file says that it is {entry.ref}, whose commitment on the ledger is {entry.update.weights.hex()}, "
            f"and its weights give {commitment.hex()}: somebody altered it; nothing was kept"
        )
    kept_from = max(entry.round, common_round(view.prefix))
    secrecy.vault.put(entry.content, payload, round=kept_from, encoding=Encoding.SAFETENSORS)
    return entry


def most_file_bytes(view: View, stores: Sequence[ContentStore] = ()) -> int:
    """No file of :func:`wrap` in this federation has more bytes."""
    with _room(view, stores) as room:
        return age.sealed_size(encodings.most_bytes(room.schema))


def fetched(view: View, cid: Cid, stores: Sequence[ContentStore] = ()) -> Buffer:
    """What a member shared by its CID: from a store, or from any active member's gateway.

    Raises:
        ContentUnavailable: nobody gives it now.
        ContentMalformed: it is too large, or no file.
    """
    most = most_file_bytes(view, stores)
    for store in stores:
        if store.has(cid):
            return store.get(cid, most)
    spec, prefix = view.federation.spec, view.prefix
    with Fetcher(spec.content.allow_networks, timeout_s=spec.content.fetch_timeout_s) as fetcher:
        return fetcher.fetch(cid, most, _everybody(prefix))


def _everybody(prefix: Prefix) -> tuple[str | Endpoint, ...]:
    first = next((facts.number for facts in prefix.peers() if facts.active), None)
    # Where an update of one of them may be, is all of them.
    return () if first is None else providers(prefix, UpdateRef(first, 0), own=0)


def _named(prefix: Prefix, metadata: str) -> UpdateEntry:
    """The update that a canonical file names in its metadata."""
    opened = prefix.opened
    ref = UpdateRef.parse(metadata.rpartition(":")[2])
    if ref is None or metadata != weights.origin(opened.chain_id, opened.ledger, ref.peer, ref.sequence):
        raise MalformedWeights(
            f"the file says that it is {metadata[:100]!r}, expected an update of this ledger, "
            f"{weights.origin(opened.chain_id, opened.ledger, 0, 0)[:-3]}PEER#SEQUENCE"
        )
    try:
        return prefix.update(ref)
    except LookupError as cause:
        raise MalformedWeights(f"the file says that it is {ref}, and {cause}") from cause


@dataclass(frozen=True, slots=True)
class _Room:
    schema: Schema
    genesis: Callable[[], Tensors]
    bytes_of: Callable[[UpdateEntry], Buffer]

    def with_vault(self, secrecy: Secrecy) -> Callable[[UpdateEntry], Buffer]:
        """What the vault has needs no ciphertext."""
        return lambda entry: b"" if secrecy.holds(entry.content) else self.bytes_of(entry)


@contextmanager
def _room(view: View, stores: Sequence[ContentStore]) -> Iterator[_Room]:
    spec, prefix = view.federation.spec, view.prefix
    with Fetcher(spec.content.allow_networks, timeout_s=spec.content.fetch_timeout_s) as fetcher:
        whole = load_genesis(view.federation, prefix, stores[0] if stores else MemoryStore(), fetcher)
        schema = shared_schema(spec, weights.schema_of(whole))
        most = most_content_bytes(spec, schema)
        yield _Room(
            schema,
            lambda: published(spec, whole),
            lambda entry: stored_or_fetched(entry, prefix, stores, fetcher, most, spec),
        )
