"""From an update's bytes to its weights: opened, unpacked, joined with what they refer to, held against the ledger.

The bytes were checked against their CID by whoever had them; everything else about them is checked here, before anybody
uses what they say. docs/replay-rules.md, sections 12 and 13.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from typing import Protocol

from fl_node.content.unixfs import Buffer
from fl_node.errors import ContentMismatch, MalformedWeights, Unreadable
from fl_node.merging import encodings, weights
from fl_node.merging.weights import Schema, Tensors
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.readers import bad_reference, referred
from fl_node.records import Flag
from fl_node.sealing import age
from fl_node.spec import Spec


class Opening(Protocol):
    """Private keys that open updates: :class:`fl_node.key_keeping.Secrecy`, or those of an auditor."""

    def open(self, content: bytes, data: Buffer, most_bytes: int) -> tuple[Buffer, int | None]:
        """What an update's ciphertext holds, and how it is encoded where that is not as the ledger says.

        Raises:
            Unreadable: no key at hand opens it.
            MalformedWeights: it is no age file, or holds more than ``most_bytes``.
        """

    def holds(self, content: bytes) -> bool:
        """Whether it needs no ciphertext of an update, for what that holds is kept here."""


def most_payload_bytes(schema: Schema) -> int:
    """No update of this model has more bytes before it is encrypted."""
    return encodings.most_bytes(schema)


def most_content_bytes(spec: Spec, schema: Schema) -> int:
    """No update of this federation has more bytes."""
    most = most_payload_bytes(schema)
    return age.sealed_size(most) if spec.privacy.encrypt else most


class Decoder:
    """Reads the updates of one federation.

    Args:
        genesis: the shared initial weights; what an update without a reference may leave out is theirs.
        bytes_of: an update's content, checked against its CID: asked for the updates that others refer to.
        opener: keys; ``None`` has none.
        known: weights by content digest and commitment, which need not be worked out again; ``None`` keeps none.
    """

    def __init__(
        self,
        spec: Spec,
        schema: Schema,
        genesis: Callable[[], Tensors],
        bytes_of: Callable[[UpdateEntry], Buffer],
        opener: Opening | None = None,
        known: MutableMapping[bytes, Tensors] | None = None,
    ) -> None:
        self._spec, self._schema, self._genesis = spec, schema, genesis
        self._bytes_of, self._opener, self._known = bytes_of, opener, known

    def tensors(self, entry: UpdateEntry, prefix: Prefix, data: Buffer | None = None) -> Tensors:
        """The weights that an update's content holds, the same for every reader.

        Args:
            prefix: a log that has the updates that this one refers to.
            data: its content, checked against its CID; ``None`` asks for it.

        Raises:
            Unreadable: encrypted, and no key at hand opens it or something that it refers to.
            MalformedWeights: not encrypted as the spec says, or no weights of this model.
            ContentMismatch: good weights, but not those of the ledger's commitment.
            ContentError: its bytes, or those of an update that it refers to, cannot be had.
        """
        # The commitment names publisher and sequence; the content, the very bytes.
        key = entry.update.content + entry.update.weights
        if self._known is not None and (found := self._known.get(key)) is not None:
            return found
        fault = bad_reference(prefix, entry, self._spec.encoding.full_every)
        if fault is not None:
            raise MalformedWeights(fault)
        found = self._verified(entry, prefix, self._bytes_of(entry) if data is None else data)
        if self._known is not None:
            self._known[key] = found
        return found

    def payload(self, entry: UpdateEntry, data: Buffer) -> tuple[Buffer, int]:
        """What an update's content holds once it is opened, and its encoding.

        Raises:
            Unreadable, MalformedWeights: as :meth:`tensors`.
        """
        sealed = bool(entry.update.flags & Flag.ENCRYPTED)
        if sealed != self._spec.privacy.encrypt:
            got, expected = ("encrypted", "in the clear") if sealed else ("in the clear", "encrypted")
            raise MalformedWeights(f"{entry.ref} is {got}, expected {expected} (privacy.encrypt of the spec)")
        if not sealed:
            return data, entry.update.encoding
        if self._opener is None:
            raise Unreadable(f"{entry.ref} is encrypted, and no keys are at hand")
        try:
            opened, encoding = self._opener.open(entry.update.content, data, most_payload_bytes(self._schema))
        except Unreadable as cause:
            raise Unreadable(f"{entry.ref}: {cause}") from cause
        return opened, entry.update.encoding if encoding is None else encoding

    def _verified(self, entry: UpdateEntry, prefix: Prefix, data: Buffer) -> Tensors:
        payload, encoding = self.payload(entry, data)

        def reference() -> Tensors:
            before = referred(prefix, entry)
            return self._genesis() if before is None else self.tensors(before, prefix)

        found = encodings.decode(payload, encoding, self._schema, reference)
        weights.check_magnitude(found, self._spec.merging.max_magnitude)
        opened = prefix.opened
        digest = weights.digest(found)
        commitment = weights.commitment(opened.chain_id, opened.ledger, entry.ref.peer, entry.ref.sequence, digest)
        if commitment != entry.update.weights:
            raise ContentMismatch(
                f"the tensors of {entry.ref} give the commitment {commitment.hex()}, "
                f"expected {entry.update.weights.hex()} from the ledger"
            )
        return found


class Recent(OrderedDict[bytes, Tensors]):
    """Weights by key, those that were asked for last, up to a number of bytes. Safe to share between threads."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self._most, self._held = most_bytes, 0
        self._lock = threading.Lock()

    def get(self, key: bytes, default: Tensors | None = None) -> Tensors | None:  # type: ignore[override]
        with self._lock:
            found = super().get(key)
            if found is not None:
                self.move_to_end(key)
            return default if found is None else found

    def __setitem__(self, key: bytes, tensors: Tensors) -> None:
        size = _size(tensors)
        with self._lock:
            if key in self or size > self._most:
                return
            while self and self._held + size > self._most:
                self._held -= _size(self.popitem(last=False)[1])
            super().__setitem__(key, tensors)
            self._held += size


def _size(tensors: Tensors) -> int:
    return sum(array.nbytes for array in tensors.values())
