"""Who can read an encrypted update: a pure function of the log. docs/replay-rules.md, section 12.

An update's bytes are encrypted for every active member that had announced a usable key at log size ``sealedAt``. A key
is bound to its member by the announcement, which the member's account signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fl_node.prefix import PeerFacts, Prefix, UpdateEntry
from fl_node.records import Flag, UpdateRef

#: So many members can read an update at most: opening one takes time in the order of the square of its recipients.
MOST_READERS: Final = 256
#: Recipients of an age file at most: the readers, and its publisher where that is none of them.
MOST_RECIPIENTS: Final = MOST_READERS + 1
_FIELD: Final = 2**255 - 19
#: u-coordinates of small order on Curve25519 and its twist: with them, everybody knows the shared secret (RFC 7748,
#: section 6.1; the list is that of Bernstein, cr.yp.to/ecdh.html#validate, less the values that are not canonical).
_SMALL_ORDER: Final = frozenset(
    {
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _FIELD - 1,
    }
)


@dataclass(frozen=True, slots=True)
class Readers:
    """Whom an update is sealed for. ``keys``: X25519 public keys, 32 bytes, by peer number. ``skipped``: active members
    that it cannot be sealed for, and why."""

    keys: Mapping[int, bytes]
    skipped: Mapping[int, str]

    @property
    def recipients(self) -> tuple[bytes, ...]:
        """The distinct keys, in the order of peer numbers."""
        return tuple(dict.fromkeys(self.keys.values()))


def valid_key(public: bytes) -> bool:
    """Whether 32 bytes are an X25519 public key that one can encrypt to: canonical, and not of small order."""
    if len(public) != 32:
        return False
    number = int.from_bytes(public, "little")
    return number < _FIELD and number not in _SMALL_ORDER


def readers_at(prefix: Prefix) -> Readers:
    """The readers as of the end of this log. Of more than :data:`MOST_READERS` members, those with the lowest numbers.

    >>> readers_at(Prefix([])).recipients
    ()
    """
    keys: dict[int, bytes] = {}
    skipped: dict[int, str] = {}
    for facts in prefix.peers():
        if not facts.active:
            continue
        trouble = _trouble(facts)
        if trouble is not None:
            skipped[facts.number] = trouble
        elif len(keys) >= MOST_READERS:
            skipped[facts.number] = f"only {MOST_READERS} members can read an update"
        elif facts.announcement is not None:
            keys[facts.number] = facts.announcement.recipient_key
    return Readers(keys, skipped)


def recipients_of(prefix: Prefix, publisher: int) -> tuple[bytes, ...]:
    """The distinct keys that a member's update is encrypted to as of the end of this log: its readers', and its own
    where it is none of them (:data:`MOST_READERS`), for a publisher reads what it published.

    Raises:
        LookupError: no such peer in this log.
    """
    keys = list(readers_at(prefix).keys.values())
    facts = prefix.peer(publisher)
    if facts.announcement is not None and _trouble(facts) is None:
        keys.append(facts.announcement.recipient_key)
    return tuple(dict.fromkeys(keys))


def _trouble(facts: PeerFacts) -> str | None:
    if facts.announcement is None or not any(facts.announcement.recipient_key):
        return "has announced no key"
    if not valid_key(facts.announcement.recipient_key):
        return f"announced at entry {facts.announced} what is no usable X25519 key"
    return None


def sealed_for(prefix: Prefix, entry: UpdateEntry, peer: int, most_links: int) -> bool:
    """Whether an update, and every earlier one that it refers to, was sealed for a peer (or is not encrypted).

    What refers to something that is no earlier update of its publisher is left to whoever reads its bytes.

    Args:
        prefix: a log that has the update.
        most_links: ``encoding.full_every`` of the spec; a longer chain is not followed.
    """
    for _ in range(most_links + 1):
        if entry.ref.peer != peer and entry.update.flags & Flag.ENCRYPTED and not _had_key(prefix, entry, peer):
            return False
        before = referred(prefix, entry)
        if before is None:
            return True
        entry = before
    return True


def referred(prefix: Prefix, entry: UpdateEntry) -> UpdateEntry | None:
    """The earlier update of the same publisher that an update's bytes refer to; ``None``: the genesis, or what the
    rules do not allow (see :func:`bad_reference`)."""
    ref = UpdateRef.unpack(entry.update.refers_to)
    if ref is None or ref.peer != entry.ref.peer or not 1 <= ref.sequence < entry.ref.sequence:
        return None
    return prefix.update(ref)


def bad_reference(prefix: Prefix, entry: UpdateEntry, most_links: int) -> str | None:
    """Why nobody need follow an update's reference; ``None`` where it is as the rules allow."""
    for links in range(most_links + 1):
        before = referred(prefix, entry)
        if before is None:
            ref = UpdateRef.unpack(entry.update.refers_to)
            return None if ref is None else f"{entry.ref} refers to {ref}, expected an earlier update of its publisher"
        if links == most_links:
            break
        entry = before
    return f"{entry.ref} is more than {most_links} references away from a full update (encoding.full_every)"


def _had_key(prefix: Prefix, entry: UpdateEntry, peer: int) -> bool:
    """Whether a peer was a reader as of the log size that an update names."""
    size = min(entry.update.sealed_at, entry.index)
    try:
        view = prefix.upto(size)
        facts = view.peer(peer)
    except LookupError:
        return False
    # Peers are numbered in the order of admission, so that only those beyond the limit can be too many.
    if peer > MOST_READERS:
        return peer in readers_at(view).keys
    return facts.active and _trouble(facts) is None
