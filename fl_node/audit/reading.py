"""From an update's CID to its weights, and what was found on the way: checks 4, 6, 7 and 15.

Whatever is wrong with the bytes becomes a finding. Weights of encrypted updates exist in memory only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from fl_node.audit.means import Blobs, InClear
from fl_node.audit.opened import Opened, explain, resident, unread
from fl_node.audit.sealed import sealed
from fl_node.audit.sketch import sketch_of
from fl_node.audit.verdicts import Finding, Result
from fl_node.content.names import cid_of_update
from fl_node.content.protocol import Held
from fl_node.content.unixfs import Buffer
from fl_node.decoding import Decoder, Opening, most_content_bytes
from fl_node.errors import ContentError, ContentMalformed, ContentMismatch, MalformedWeights, Unreadable
from fl_node.merging import encodings, weights
from fl_node.merging.weights import Tensors
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.readers import bad_reference, referred
from fl_node.records import Flag
from fl_node.sealing import age
from fl_node.spec import Spec

#: Of what nobody without a key can tell.
WITHOUT_KEYS: Final = "encrypted: members and auditors can look at it with their keys (--identity)"


class NoKeys:
    """A :class:`fl_node.decoding.Opening` that opens nothing. What is no age file it still tells."""

    def open(self, content: bytes, data: Buffer, most_bytes: int) -> tuple[Buffer, int | None]:
        """As :class:`fl_node.decoding.Opening` says."""
        return age.unseal(data, (), most_bytes), None

    def holds(self, content: bytes) -> bool:
        """Nothing."""
        return False


@dataclass(frozen=True, slots=True)
class _Weights:
    """Weights that were read: what keeps them, and the bytes that they take in memory."""

    tensors: Tensors
    held: Held | None
    resident_bytes: int


class _NoReference(Exception):
    """The update that another refers to cannot be used. ``fact``: for what its publisher did."""

    def __init__(self, text: str, fact: bool) -> None:
        super().__init__(text)
        self.fact = fact


class Reader:
    """Reads the updates of one federation. Safe to share between threads.

    Args:
        genesis: the shared initial tensors, which are of the model's schema.
        opener: private keys that open updates; ``None``: none.
        in_clear: weights of encrypted updates that somebody with keys wrote down.
        sketching: also make sketches.
    """

    def __init__(
        self,
        spec: Spec,
        prefix: Prefix,
        blobs: Blobs,
        genesis: Tensors,
        *,
        opener: Opening | None = None,
        in_clear: InClear | None = None,
        sketching: bool = False,
    ) -> None:
        self._spec, self._prefix, self._blobs, self._genesis = spec, prefix, blobs, genesis
        self._schema = weights.schema_of(genesis)
        self._in_clear, self._has_keys, self._sketching = in_clear, opener is not None, sketching
        self._decoder = Decoder(spec, self._schema, lambda: genesis, _nothing_else, opener or NoKeys())
        self._most = max(most_content_bytes(spec, self._schema), age.sealed_size(encodings.most_bytes(self._schema)))

    def reference(self, entry: UpdateEntry) -> UpdateEntry | None:
        """The update whose weights :meth:`look` may need; ``None``: none, or one that the rules do not allow."""
        if bad_reference(self._prefix, entry, self._spec.encoding.full_every) is not None:
            return None
        return referred(self._prefix, entry)

    def look(self, entry: UpdateEntry, before: Opened | None) -> Opened:
        """Everything that an update's bytes tell.

        Args:
            before: what :meth:`reference` names, opened.
        """
        there, held = self._fetched(entry)
        content = None if held is None else held.data
        how = sealed(self._spec, self._prefix, entry, content)
        written = self._written_down(entry, there)
        if isinstance(written, Finding):
            return unread(written, how, because=written)
        if held is None and written is not None:
            there, how = _left_out(there), _left_out(how) if how.result is Result.UNKNOWN else how
            return self._judged(entry, written, there, how)
        if there.result is not Result.OK:
            return unread(there, how, because=there)
        if held is None:  # the CID names no file of the profile, or too large a one
            return _malformed(there, how, there.data.get("malformed", ""))
        try:
            found = self._decoded(entry, held, before)
        except Unreadable as cause:
            if written is not None:
                return self._judged(entry, written, there, how)
            text = f"encrypted: {cause}" if self._has_keys else WITHOUT_KEYS
            well = Finding("well-formed", Result.UNKNOWN, text, {"encrypted": True})
            return unread(there, how, well, because=well)
        except _NoReference as cause:
            if cause.fact:
                return _malformed(there, how, str(cause))
            well = Finding("well-formed", Result.UNKNOWN, str(cause))
            return unread(there, how, well, because=well)
        except MalformedWeights as cause:
            return _malformed(there, how, str(cause))
        return self._judged(entry, found, there, how)

    def again(self, entry: UpdateEntry, known: Opened, before: Opened | None) -> Opened:
        """The weights of an update that was looked at before. The same CID names the same bytes, so only whether they
        can be had is asked again."""
        there, held = self._fetched(entry)
        try:
            if held is None:
                written = self._written_down(entry, there)
                if not isinstance(written, _Weights):
                    return self.look(entry, before)
                found = written
            else:
                found = self._decoded(entry, held, before)
        except (Unreadable, MalformedWeights, _NoReference):
            return self.look(entry, before)
        return replace(known, tensors=found.tensors, held=found.held, resident_bytes=found.resident_bytes)

    # ---- steps -------------------------------------------------------------------------------------------------

    def _fetched(self, entry: UpdateEntry) -> tuple[Finding, Held | None]:
        """The bytes, and whether they are those that the entry names."""
        cid = cid_of_update(entry.update)
        data = {"cid": str(cid)}
        try:
            held = self._blobs.hold(cid, self._most, entry.ref)
        except ContentMalformed as cause:
            return Finding("bytes", Result.OK, "what the CID names", {**data, "malformed": str(cause)}), None
        except ContentMismatch as cause:
            return Finding("bytes", Result.FAILED, str(cause), data), None
        except ContentError as cause:
            return Finding("bytes", Result.UNKNOWN, str(cause), data), None
        size = memoryview(held.data).nbytes
        return Finding("bytes", Result.OK, f"{size} bytes with this CID", {**data, "bytes": size}), held

    def _decoded(self, entry: UpdateEntry, held: Held, before: Opened | None) -> _Weights:
        """
        Raises:
            Unreadable, MalformedWeights: as :meth:`fl_node.decoding.Decoder.tensors`.
            _NoReference: what it refers to is wanted, and cannot be used.
        """
        fault = bad_reference(self._prefix, entry, self._spec.encoding.full_every)
        if fault is not None:
            raise MalformedWeights(fault)
        payload, encoding = self._decoder.payload(entry, held.data)

        def reference() -> Tensors:
            earlier = referred(self._prefix, entry)
            if earlier is None:
                return self._genesis
            if before is None or before.tensors is None or not before.good:
                why, fact = explain([before], [earlier]) if before is not None else (None, False)
                raise _NoReference(f"it refers to {why or f'{earlier.ref}, which is not at hand'}", fact)
            return before.tensors

        tensors = encodings.decode(payload, encoding, self._schema, reference)
        weights.check_magnitude(tensors, self._spec.merging.max_magnitude)
        held.forget()
        if payload is held.data and not encoding:
            return _Weights(tensors, held, resident(held, tensors))
        # Decrypted, inflated or added up: the file is not looked at again.
        return _Weights(tensors, None, sum(array.nbytes for array in tensors.values()))

    def _written_down(self, entry: UpdateEntry, there: Finding) -> _Weights | Finding | None:
        """The weights of an encrypted update as they are at hand without a key; a finding where they are not those
        that its publisher committed to: then it is not its publisher who wrote them."""
        encrypted = entry.update.flags & Flag.ENCRYPTED and self._spec.privacy.encrypt
        if self._in_clear is None or not encrypted or "malformed" in there.data:
            return None
        opened, ref = self._prefix.opened, entry.ref
        try:
            held = self._in_clear.weights(ref, weights.encoded_size(self._schema))
            if held is None:
                return None
            tensors = weights.decode(held.data, self._schema).tensors
            weights.check_magnitude(tensors, self._spec.merging.max_magnitude)
        except (ContentError, MalformedWeights) as cause:
            return Finding("bytes", Result.FAILED, f"its weights in the clear cannot be read: {cause}", there.data)
        origin = weights.origin(opened.chain_id, opened.ledger, ref.peer, ref.sequence)
        at = 0
        for piece in weights.encode(tensors, origin):
            size = memoryview(piece).nbytes
            if memoryview(held.data)[at : at + size] != memoryview(piece).cast("B"):
                text = "its weights in the clear are not written as they are to be"
                return Finding("bytes", Result.FAILED, text, there.data)
            at += size
        commitment = weights.commitment(opened.chain_id, opened.ledger, ref.peer, ref.sequence, weights.digest(tensors))
        if commitment != entry.update.weights:
            text = (
                f"its weights in the clear give the commitment {commitment.hex()}, the ledger has "
                f"{entry.update.weights.hex()}: they are not what its publisher committed to"
            )
            return Finding("bytes", Result.FAILED, text, there.data)
        held.forget()
        return _Weights(tensors, held, resident(held, tensors))

    def _judged(self, entry: UpdateEntry, found: _Weights, there: Finding, how: Finding) -> Opened:
        """The findings of weights that could be read."""
        opened, ref = self._prefix.opened, entry.ref
        well = Finding("well-formed", Result.OK, f"{len(found.tensors)} tensors of the federation's model")
        digest = weights.digest(found.tensors)
        sketch = sketch_of(self._spec, found.tensors) if self._sketching else None
        if found.held is not None:
            found.held.forget()
        got, expected = (
            weights.commitment(opened.chain_id, opened.ledger, ref.peer, ref.sequence, digest),
            entry.update.weights,
        )
        data = {"digest": digest.hex(), "commitment": got.hex()}
        if got == expected:
            committed = Finding("commitment", Result.OK, "the ledger's commitment is to these weights", data)
        else:
            text = f"the weights give the commitment {got.hex()}, the ledger has {expected.hex()}"
            committed = Finding("commitment", Result.FAILED, text, data)
        findings = (there, how, well, committed)
        return Opened(findings, found.tensors, found.held, digest, sketch, found.resident_bytes)


def _malformed(there: Finding, how: Finding, why: str) -> Opened:
    well = Finding("well-formed", Result.FAILED, why)
    return unread(there, how, well, because=well)


def _left_out(finding: Finding) -> Finding:
    """Of bytes that were left out on purpose, because what they hold is there."""
    if finding.result is not Result.UNKNOWN:
        return finding
    text = "what it holds is there in the clear, its bytes are not"
    return Finding(finding.check, Result.UNKNOWN, text, finding.data, asked=False)


def _nothing_else(entry: UpdateEntry) -> Buffer:
    """The shelf gives what an update refers to; the decoder never asks."""
    raise AssertionError(f"asked for {entry.ref}")
