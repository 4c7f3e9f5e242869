"""Raw event logs <-> ledger entries, and call data, bit for bit as the contract's ABI has them.

The static part of each event is one ``struct`` whose pad bytes are the ABI's padding, so a log is read in one C call.
A log counts as read only if encoding what was read gives the same bytes again: Solidity's encoding is unique, so
anything else did not come from the contract and becomes an :class:`UnknownEntry`, never an exception.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from fl_node.ledger.abi import TOPICS, address_bytes, checksum_address
from fl_node.records import (
    Attestation,
    Body,
    Flag,
    LedgerOpened,
    OwnerChanged,
    Parent,
    PeerAdmitted,
    PeerAnnounced,
    PeerRetired,
    Reason,
    Role,
    UnknownEntry,
    Update,
    UpdateObjected,
    UpdatePublished,
    UpdateRef,
    UpdatesAttested,
)

Topics: TypeAlias = tuple[bytes, ...]
Decoded: TypeAlias = tuple[int, int, Body]  # entry index, block time in seconds, body

# One 32-byte ABI word each; "x" skips (and writes zeros for) the padding.
_U8, _U16, _U32, _U64, _B32, _B4, _ADDRESS = "31xB", "30xH", "28xI", "24xQ", "32s", "4s28x", "12x20s"


def _layout(*words: str) -> struct.Struct:
    return struct.Struct(">" + "".join(words))


_INDEX = _layout(_U64)
_NUMBER = _layout(_U32)
_LENGTH = _layout(_U64)
_OPENED = _layout(_U64, _B32, _ADDRESS, _B32, _B32, _B32, _U8, _U32, _ADDRESS)
_OWNER = _layout(_U64, _ADDRESS, _ADDRESS)
_ADMITTED = _layout(_U64, _ADDRESS, _B32, _U8)
_RETIRED = _layout(_U64, _U64, _U64)
_ANNOUNCED = _layout(_U64, _U32, _B32, _B32, _U64)
_PUBLISHED = _layout(_U64, _U64, _U64)
_UPDATE = _layout(
    *(_B32, _U8, _U8, _U64, _B32, _B32, _B32, _U64, _B32, _U64),
    *(_U32, _U32, _U32, _U32, _U32, _U32, _U16, _U64),
)
_PARENT = _layout(_U32, _U32, _B4, _U32)
_ATTESTED = _layout(_U64, _B32, _U64)
_ATTESTATION = _layout(_U32, _U32, _U32, _U32)
_OBJECTED = _layout(_U64, _U32, _U32, _U8, _B32)


# ---- text ------------------------------------------------------------------------------------------------------


def encode_site(site: str) -> bytes:
    """A site's name as the contract keeps it: UTF-8, zero-padded on the right to 32 bytes.

    Raises:
        ValueError: more than 32 bytes, or a NUL in it.
    """
    raw = site.encode()
    if len(raw) > 32 or b"\0" in raw:
        raise ValueError(f"site {site!r} has {len(raw)} bytes in UTF-8; expected at most 32 and no NUL: shorten it")
    return raw.ljust(32, b"\0")


def decode_text(raw: bytes) -> str:
    """Text from the ledger; bytes that are no UTF-8 show as ``\\xNN``."""
    return raw.decode("utf-8", errors="backslashreplace")


# ---- parts that events and calls share -------------------------------------------------------------------------


def encode_bytes(raw: bytes) -> bytes:
    """The type ``bytes`` (or ``string``): length, then content padded to whole words."""
    return _LENGTH.pack(len(raw)) + raw + bytes(-len(raw) % 32)


def _take_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    (length,) = _LENGTH.unpack_from(data, at)
    start = at + 32
    if length > len(data) - start:
        raise ValueError("length beyond the data")
    return data[start : start + length], start + length + (-length % 32)


def check_length(size: int, *values: bytes) -> None:
    """``struct`` would pad or cut bytes of another length without a word."""
    for value in values:
        if len(value) != size:
            raise ValueError(f"got {len(value)} bytes ({value.hex()}), expected {size}")


def encode_update(update: Update) -> bytes:
    """The struct ``Update``, dynamic part included."""
    u = update
    check_length(32, u.content, u.weights, u.base, u.report, u.seen_root)
    return _UPDATE.pack(
        *(u.content, u.flags, u.encoding, u.refers_to, u.weights, u.base, u.report, u.seen, u.seen_root, u.sealed_at),
        *(u.sequence, u.round, u.score_ppm, u.base_score_ppm, u.train_samples, u.test_samples, u.rule, _UPDATE.size),
    ) + encode_bytes(u.extra)


def encode_parents(parents: Sequence[Parent]) -> bytes:
    """The array ``Parent[]``."""
    check_length(4, *(p.tag for p in parents))
    rows = [_PARENT.pack(p.peer, p.sequence, p.tag, p.share_ppm) for p in parents]
    return _LENGTH.pack(len(rows)) + b"".join(rows)


def encode_attestations(items: Sequence[Attestation]) -> bytes:
    """The array ``Attestation[]``."""
    rows = [_ATTESTATION.pack(a.peer, a.sequence, a.score_ppm, a.base_score_ppm) for a in items]
    return _LENGTH.pack(len(rows)) + b"".join(rows)


def _exact(rebuilt: bytes, data: bytes) -> None:
    if rebuilt != data:
        raise ValueError("not the contract's encoding")


def _take_rows(layout: struct.Struct, data: bytes, at: int) -> tuple[list[tuple[Any, ...]], int]:
    (count,) = _LENGTH.unpack_from(data, at)
    start, end = at + 32, at + 32 + count * layout.size
    if end > len(data):
        raise ValueError("rows beyond the data")
    return list(layout.iter_unpack(data[start:end])), end


# ---- bodies <-> log data; the peer (and round) stand in the topics ----------------------------------------------
# Each reader rebuilds the data from the words it read and compares: see the module's docstring.


def _read_opened(peer: int, data: bytes) -> tuple[int, Body]:
    words = _OPENED.unpack(data)
    _exact(_OPENED.pack(*words), data)
    time, chain, ledger, spec, content, weights, flags, interval, owner = words
    chain_id = int.from_bytes(chain, "big")
    return time, LedgerOpened(
        *(chain_id, checksum_address(ledger), spec, content, weights, Flag(flags), interval, checksum_address(owner))
    )


def _write_opened(time: int, body: LedgerOpened) -> bytes:
    return _OPENED.pack(
        *(time, body.chain_id.to_bytes(32, "big"), address_bytes(body.ledger), body.spec_digest, body.genesis_content),
        *(body.genesis_weights, body.genesis_flags, body.min_interval_s, address_bytes(body.owner)),
    )


def _read_owner(peer: int, data: bytes) -> tuple[int, Body]:
    words = _OWNER.unpack(data)
    _exact(_OWNER.pack(*words), data)
    time, previous, current = words
    return time, OwnerChanged(checksum_address(previous), checksum_address(current))


def _write_owner(time: int, body: OwnerChanged) -> bytes:
    return _OWNER.pack(time, address_bytes(body.previous), address_bytes(body.current))


def _read_admitted(peer: int, data: bytes) -> tuple[int, Body]:
    words = _ADMITTED.unpack(data)
    _exact(_ADMITTED.pack(*words), data)
    time, account, site, roles = words
    return time, PeerAdmitted(peer, checksum_address(account), decode_text(site.rstrip(b"\0")), Role(roles))


def _write_admitted(time: int, body: PeerAdmitted) -> bytes:
    return _ADMITTED.pack(time, address_bytes(body.account), encode_site(body.site), body.roles)


def _read_retired(peer: int, data: bytes) -> tuple[int, Body]:
    time, from_index, _ = _RETIRED.unpack_from(data)
    text, _ = _take_bytes(data, _RETIRED.size)
    _exact(_RETIRED.pack(time, from_index, _RETIRED.size) + encode_bytes(text), data)
    return time, PeerRetired(peer, from_index, decode_text(text))


def _write_retired(time: int, body: PeerRetired) -> bytes:
    return _RETIRED.pack(time, body.from_index, _RETIRED.size) + encode_bytes(body.reason.encode())


def _read_announced(peer: int, data: bytes) -> tuple[int, Body]:
    time, epoch, key, pin, _ = _ANNOUNCED.unpack_from(data)
    text, _ = _take_bytes(data, _ANNOUNCED.size)
    _exact(_ANNOUNCED.pack(time, epoch, key, pin, _ANNOUNCED.size) + encode_bytes(text), data)
    return time, PeerAnnounced(peer, epoch, key, pin, decode_text(text))


def _write_announced(time: int, body: PeerAnnounced) -> bytes:
    head = _ANNOUNCED.pack(time, body.epoch, body.recipient_key, body.tls_pin, _ANNOUNCED.size)
    return head + encode_bytes(body.endpoint.encode())


def _read_published(peer: int, data: bytes) -> tuple[int, Body]:
    start = _PUBLISHED.size
    time, _, _ = _PUBLISHED.unpack_from(data)
    words: tuple[Any, ...] = _UPDATE.unpack_from(data, start)
    extra, at = _take_bytes(data, start + _UPDATE.size)
    rows, _ = _take_rows(_PARENT, data, at)
    _exact(
        _PUBLISHED.pack(time, start, at)
        + _UPDATE.pack(*words[:-1], _UPDATE.size)
        + encode_bytes(extra)
        + _LENGTH.pack(len(rows))
        + b"".join([_PARENT.pack(*row) for row in rows]),
        data,
    )
    (content, flags, encoding, refers_to, weights, base, report, seen, seen_root, sealed_at, *numbers) = words
    sequence, round_, score, base_score, train, test, rule, _ = numbers
    # fmt: off
    update = Update(
        content, Flag(flags), weights, base, report, seen, seen_root, sequence, round_, score, base_score,
        train, test, rule, encoding, refers_to, sealed_at, extra,
    )
    # fmt: on
    return time, UpdatePublished(peer, update, tuple([Parent(*row) for row in rows]))


def _write_published(time: int, body: UpdatePublished) -> bytes:
    update = encode_update(body.update)
    return _PUBLISHED.pack(time, _PUBLISHED.size, _PUBLISHED.size + len(update)) + update + encode_parents(body.parents)


def _read_attested(peer: int, data: bytes) -> tuple[int, Body]:
    time, evidence, _ = _ATTESTED.unpack_from(data)
    rows, _ = _take_rows(_ATTESTATION, data, _ATTESTED.size)
    items = tuple([Attestation(*row) for row in rows])
    _exact(_ATTESTED.pack(time, evidence, _ATTESTED.size) + encode_attestations(items), data)
    return time, UpdatesAttested(peer, evidence, items)


def _write_attested(time: int, body: UpdatesAttested) -> bytes:
    return _ATTESTED.pack(time, body.evidence, _ATTESTED.size) + encode_attestations(body.items)


def _read_objected(peer: int, data: bytes) -> tuple[int, Body]:
    words = _OBJECTED.unpack(data)
    _exact(_OBJECTED.pack(*words), data)
    time, target, sequence, reason, evidence = words
    return time, UpdateObjected(peer, UpdateRef(target, sequence), Reason(reason), evidence)


def _write_objected(time: int, body: UpdateObjected) -> bytes:
    return _OBJECTED.pack(time, body.target.peer, body.target.sequence, body.reason, body.evidence)


_Reader: TypeAlias = Callable[[int, bytes], tuple[int, Body]]
# Topic 0 -> reader and number of topics.
_READERS: Final[dict[bytes, tuple[_Reader, int]]] = {
    TOPICS["LedgerOpened"]: (_read_opened, 2),
    TOPICS["OwnerChanged"]: (_read_owner, 2),
    TOPICS["PeerAdmitted"]: (_read_admitted, 3),
    TOPICS["PeerRetired"]: (_read_retired, 3),
    TOPICS["PeerAnnounced"]: (_read_announced, 3),
    TOPICS["UpdatePublished"]: (_read_published, 4),
    TOPICS["UpdatesAttested"]: (_read_attested, 3),
    TOPICS["UpdateObjected"]: (_read_objected, 3),
}


def topic_count(topic0: bytes) -> int | None:
    """How many topics the logs of a kind have; None for a kind that this version does not know."""
    known = _READERS.get(topic0)
    return known[1] if known else None


def index_of(topics: Topics) -> int:
    """Entry index of a log: its second topic."""
    return int.from_bytes(topics[1], "big")


def decode(topics: Topics, data: bytes) -> Decoded:
    """Entry index, block time in seconds and body of a raw log.

    Never raises on a log with an index topic: what cannot be read is an :class:`UnknownEntry`, with the time taken
    from the first data word, where every kind has it.
    """
    index = index_of(topics)
    reader, count = _READERS.get(topics[0], (None, 0))
    if reader is not None and len(topics) == count and not any(any(topic[:28]) for topic in topics[2:]):
        peer = int.from_bytes(topics[2], "big") if count > 2 else 0
        try:
            time, body = reader(peer, data)
            if count < 4 or (
                isinstance(body, UpdatePublished) and body.update.round == int.from_bytes(topics[3], "big")
            ):
                return index, time, body
        except (ValueError, struct.error):
            pass
    return index, int.from_bytes(data[:32], "big") % 2**64, UnknownEntry(topics[0])


def encode(index: int, time_s: int, body: Body) -> tuple[Topics, bytes]:
    """Topics and data that the contract logs for this entry.

    Raises:
        ValueError: an unknown kind, or text too long.
    """
    if isinstance(body, UnknownEntry):
        raise ValueError("an unknown entry has no encoding; keep its raw log")
    topics = [TOPICS[type(body).__name__], _INDEX.pack(index)]
    if isinstance(body, LedgerOpened):
        return tuple(topics), _write_opened(time_s, body)
    if isinstance(body, OwnerChanged):
        return tuple(topics), _write_owner(time_s, body)
    topics.append(_NUMBER.pack(body.peer))
    if isinstance(body, UpdatePublished):
        return (*topics, _NUMBER.pack(body.update.round)), _write_published(time_s, body)
    if isinstance(body, UpdatesAttested):
        return tuple(topics), _write_attested(time_s, body)
    if isinstance(body, UpdateObjected):
        return tuple(topics), _write_objected(time_s, body)
    if isinstance(body, PeerAdmitted):
        return tuple(topics), _write_admitted(time_s, body)
    if isinstance(body, PeerRetired):
        return tuple(topics), _write_retired(time_s, body)
    return tuple(topics), _write_announced(time_s, body)
