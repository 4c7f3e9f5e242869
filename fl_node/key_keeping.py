"""The life of a peer's keys: when a fresh one is due, when an old one goes, and what is saved before it does.

Rules are pure functions of the log; rounds are those that the federation has reached in common
(:func:`fl_node.pacing.common_round`). Time in docs/encryption.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from fl_node.content.names import cid_of_update
from fl_node.content.protocol import ContentStore
from fl_node.errors import (
    ContentError,
    ContentMismatch,
    ContentUnavailable,
    MalformedWeights,
    StoreFull,
    StoreUnreachable,
    Unreadable,
)
from fl_node.keys import Signer
from fl_node.pacing import common_round
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.readers import referred
from fl_node.records import Flag, PeerAnnounced, Reason, Role, UpdateRef
from fl_node.sealing import age, keyring, vault
from fl_node.sealing.age import Identity
from fl_node.sealing.header import Buffer
from fl_node.sealing.keyring import Keyring, Keys
from fl_node.sealing.vault import MemoryVault, Vault, Vaulting
from fl_node.spec import Spec

_NONE: Final = bytes(32)
#: What lies in the own store was bounded when it was fetched; a payload is smaller than its ciphertext.
_MOST_BYTES: Final = 1 << 40


class Secrecy:
    """What a member opens updates with: its keys, and its vault. Safe to share between threads."""

    def __init__(self, keys: Keys, kept: Vaulting) -> None:
        self.keys = keys
        self.vault = kept
        self._whole: set[bytes] = set()

    @classmethod
    def of(cls, state: Path, signer: Signer, tell: Callable[[str], None] = vault.warn) -> Secrecy:
        """Those of a state folder.

        Args:
            tell: is told of damage that was put right.

        Raises:
            KeyringError: they cannot be read, others may read them, or they are another account's.
        """
        secret = signer.derive(keyring.VAULT_INFO)
        return cls(Keyring(state / keyring.FOLDER_NAME, secret), Vault(state / vault.FOLDER_NAME, secret, tell))

    @classmethod
    def in_memory(cls) -> Secrecy:
        """A twin without folders, for simulations and tests."""
        return cls(Keys(), MemoryVault())

    def recipient(self, round: int = 0, log_size: int = 0) -> bytes:
        """The public key to announce, 32 bytes: the latest one. Where there is none, or where it is lost and only
        superseded ones are left (:func:`remember_superseded`), one is made now.

        Args:
            round, log_size: of now, for a key that is made.

        Raises:
            KeyringError: it cannot be kept.
        """
        current = self.keys.current()
        return (self.keys.make(round, log_size) if current is None else current).public

    def open(self, content: bytes, data: Buffer, most_bytes: int) -> tuple[Buffer, int | None]:
        """What an update's ciphertext holds: from the vault, or opened with whichever key fits.

        Args:
            content: digest of the ciphertext, as on the ledger.
            data: the ciphertext, checked against that digest.

        Returns:
            The payload, and how it is encoded where that is not as the ledger says.

        Raises:
            Unreadable: no key here opens it.
            MalformedWeights: not an age file, cut, altered, or more than ``most_bytes`` come out.
            KeyringError: the vault cannot be read.
        """
        recalled = self.recall(content, most_bytes)
        if recalled is not None:
            return recalled
        self._whole.discard(content)
        return age.unseal(data, self.keys.identities(), most_bytes), None

    def holds(self, content: bytes) -> bool:
        """Whether the vault has an update undamaged, so that no ciphertext is needed. Each is opened once to know.

        Raises:
            KeyringError: the vault cannot be read.
        """
        if not self.vault.has(content):
            return False
        if content not in self._whole and self.vault.get(content, _MOST_BYTES) is None:
            return False
        self._whole.add(content)
        return True

    def recall(self, content: bytes, most_bytes: int) -> tuple[Buffer, int | None] | None:
        """What the vault has of an update, for whoever has no ciphertext; ``None``: nothing."""
        found = self.vault.get(content, most_bytes)
        return None if found is None else (found.payload, found.encoding)


class GivenKeys:
    """What an auditor opens updates with: keys from files, and nothing else."""

    def __init__(self, identities: Sequence[Identity]) -> None:
        self._identities = tuple(identities)

    def open(self, content: bytes, data: Buffer, most_bytes: int) -> tuple[Buffer, int | None]:
        """As :meth:`Secrecy.open`."""
        return age.unseal(data, self._identities, most_bytes), None

    def holds(self, content: bytes) -> bool:
        """Nothing: there is no vault."""
        return False


# ---- rules -----------------------------------------------------------------------------------------------------


def announced_key(prefix: Prefix, number: int, size: int | None = None) -> bytes:
    """The key that a peer had announced at a log size (now), 32 bytes; zeros before the first."""
    said = _announced(prefix, number)
    return next((key for index, key in reversed(said) if size is None or index < size), _NONE)


def rotation_due(spec: Spec, prefix: Prefix, number: int, current_round: int) -> bool:
    """Whether a peer's key has served for as many rounds as the spec allows (``privacy.rotate_every``).

    They count from the announcement that first named the key, so that other news do not prolong its life.
    """
    said = _announced(prefix, number)
    if not spec.privacy.rotate_every or not said:
        return False
    first = len(said) - 1
    while first and said[first - 1][1] == said[-1][1]:
        first -= 1
    return current_round - _round_at(prefix, said[first][0]) >= spec.privacy.rotate_every


def superseded_rounds(prefix: Prefix, number: int) -> dict[bytes, int]:
    """By key that a peer once announced, and does not use now: the round in which it last announced another in its
    place."""
    said = _announced(prefix, number)
    rounds = {}
    for (_, before), (index, after) in pairwise(said):
        if before != after:
            rounds[before] = _round_at(prefix, index)
    return {key: round for key, round in rounds.items() if key != said[-1][1] and key != _NONE}


def overlap(spec: Spec, roles: Role) -> int:
    """Rounds for which a member keeps a key after the next was announced: what was under way is still read, and who
    only audits comes late."""
    return spec.privacy.overlap_rounds if roles & Role.PUBLISH else spec.privacy.auditor_rounds


def reached_round(prefix: Prefix, number: int) -> int:
    """The round up to which a peer needs no older keys: that which the federation has reached in common, but for a
    publisher under way none beyond its own last. One that was down comes back to updates of rounds that it missed."""
    common = common_round(prefix)
    last = prefix.latest(number)
    if last is None or last.final or not prefix.peer(number).publishes:
        return common
    return min(common, last.round)


def keys_to_destroy(
    spec: Spec, prefix: Prefix, number: int, publics: Iterable[bytes], current_round: int
) -> tuple[bytes, ...]:
    """Those of a peer's keys that are past their overlap. A key that the ledger never named is not among them.

    Raises:
        LookupError: no such peer in this log.
    """
    kept = overlap(spec, prefix.peer(number).roles)
    superseded = superseded_rounds(prefix, number)
    return tuple(key for key in publics if key in superseded and current_round - superseded[key] > kept)


def sealed_to(prefix: Prefix, number: int, public: bytes) -> Iterator[UpdateEntry]:
    """Every update that was sealed to this key of a peer, if its publisher did as the rules say."""
    said = _announced(prefix, number)
    if public not in {key for _, key in said}:
        return
    for facts in prefix.peers():
        for entry in prefix.updates(facts.number):
            if not entry.update.flags & Flag.ENCRYPTED:
                continue
            size = min(entry.update.sealed_at, entry.index)
            if next((key for index, key in reversed(said) if index < size), _NONE) == public:
                yield entry


def wanted(spec: Spec, prefix: Prefix, number: int) -> frozenset[UpdateRef]:
    """Updates that a peer may still want and perhaps never got: those that it called unavailable, and each active
    peer's latest with what that refers to."""
    found = set()
    for facts in prefix.peers():
        entry = prefix.latest(facts.number) if facts.active else None
        for _ in range(spec.encoding.full_every + 1):
            if entry is None:
                break
            found.add(entry.ref)
            entry = referred(prefix, entry)
        for update in prefix.updates(facts.number):
            said = prefix.objections(update.ref)
            if any(word.peer == number and word.reason == Reason.UNAVAILABLE for word in said):
                found.add(update.ref)
    return frozenset(found)


def _announced(prefix: Prefix, number: int) -> list[tuple[int, bytes]]:
    """A peer's announcements: entry and key."""
    facts = prefix.announcements(number)
    return [(fact.index, fact.body.recipient_key) for fact in facts if isinstance(fact.body, PeerAnnounced)]


def _round_at(prefix: Prefix, index: int) -> int:
    """The common round when an entry was recorded."""
    kept: dict[int, int] = prefix.derived.setdefault("common round at entry", {})
    if index not in kept:
        kept[index] = common_round(prefix.upto(index + 1))
    return kept[index]


# ---- acts ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tended:
    """What :func:`tend` did. ``made``: a new public key, to be announced; ``kept``: payloads that went into the vault;
    ``destroyed``: keys; ``forgotten``: payloads that left the vault."""

    made: bytes | None = None
    kept: int = 0
    destroyed: tuple[bytes, ...] = ()
    forgotten: int = 0


def tend(
    secrecy: Secrecy,
    spec: Spec,
    prefix: Prefix,
    number: int,
    store: ContentStore,
    *,
    oldest_round: int,
    fetch: Callable[[UpdateEntry], Buffer] | None = None,
) -> Tended:
    """Once a round: make a fresh key where one is due or asked for, destroy what is past its overlap, empty the vault
    of what the federation's retention no longer asks for.

    A crash at any instant loses nothing: whatever was not finished is found undone, and done, the next time. A key
    stays, for another overlap at most, where the content store has what it opens and does not give it in time.

    Args:
        number: this peer.
        oldest_round: the first round whose content is still kept.
        fetch: gets an update that the content store does not have, for what is still :func:`wanted`; ``None`` does not.

    Raises:
        KeyringError: the state folder cannot be written, or what a key still opens cannot be saved; then it stays.
        ContentError: the content store does not answer; the key stays likewise.
    """
    now = common_round(prefix)
    remember_superseded(secrecy.keys, prefix, number)
    held = [identity.public for identity in secrecy.keys.identities()]
    going = keys_to_destroy(spec, prefix, number, held, reached_round(prefix, number))
    longest = keys_to_destroy(
        spec, prefix, number, going, reached_round(prefix, number) - overlap(spec, prefix.peer(number).roles)
    )
    kept, destroyed = 0, []
    missing = wanted(spec, prefix, number) if going and fetch is not None else frozenset()
    for public in going:
        for entry in sealed_to(prefix, number, public):
            if fetch is not None and entry.ref in missing and entry.round >= oldest_round:
                _try_to_fetch(secrecy, entry, store, fetch)
        try:
            kept += before_destroying(secrecy, public, prefix, number, store, oldest_round=oldest_round)
        except ContentUnavailable:
            # A store that has it and is late may give it the next time. What it never gives keeps no key for ever.
            if public not in longest:
                continue
        secrecy.keys.destroy(public, now)
        destroyed.append(public)
    forgotten = forget(secrecy.vault, prefix, store, oldest_round)
    return Tended(_fresh(secrecy, spec, prefix, number, now), kept, tuple(destroyed), forgotten)


def remember_superseded(keys: Keys, prefix: Prefix, number: int) -> None:
    """Note beside a peer's keys which of them the ledger has a later one for: none of these is announced again.

    Raises:
        KeyringError: it cannot be written.
    """
    for public, round in superseded_rounds(prefix, number).items():
        if any(record.public == public and record.superseded != round for record in keys.records):
            keys.superseded(public, round)


def _fresh(secrecy: Secrecy, spec: Spec, prefix: Prefix, number: int, now: int) -> bytes | None:
    """A new key, unless one waits to be announced already; also in place of one that is lost."""
    said = announced_key(prefix, number)
    if secrecy.keys.current() is None:
        public = secrecy.recipient(now, prefix.size)
        secrecy.keys.rotation_done()
        return public if any(said) else None
    if secrecy.recipient() != said:
        return None
    if not (rotation_due(spec, prefix, number, now) or secrecy.keys.rotation_requested()):
        return None
    made = secrecy.keys.make(now, prefix.size)
    secrecy.keys.rotation_done()
    return made.public


def _try_to_fetch(
    secrecy: Secrecy, entry: UpdateEntry, store: ContentStore, fetch: Callable[[UpdateEntry], Buffer]
) -> None:
    """Have the content store get what it lacks, where somebody gives it now."""
    if secrecy.holds(entry.content) or store.has(cid_of_update(entry.update)):
        return
    try:
        fetch(entry)
    except (StoreFull, StoreUnreachable):
        raise
    except ContentError:
        pass  # nobody has it: with it, the key would open nothing either


def before_destroying(
    secrecy: Secrecy,
    public: bytes,
    prefix: Prefix,
    number: int,
    store: ContentStore,
    *,
    oldest_round: int,
) -> int:
    """Put into the vault what the content store still has that is sealed to a key; how many payloads that were.

    What the store does not have, or the key does not open, is left: nobody could have read it here.

    Raises:
        ContentUnavailable: the store has some of it and does not give it; the rest is in the vault.
        KeyringError: the vault cannot be written.
        ContentError: the content store does not answer.
    """
    identity = secrecy.keys.find(public)
    if identity is None:
        return 0
    there = secrecy.vault.contents()
    saved = 0
    late: ContentUnavailable | None = None
    for entry in sealed_to(prefix, number, public):
        if entry.content in there and secrecy.holds(entry.content):
            continue
        cid = cid_of_update(entry.update)
        if not store.has(cid):
            continue
        try:
            held = store.hold(cid, _MOST_BYTES)
        except ContentMismatch:
            continue
        except ContentUnavailable as cause:
            late = cause
            continue
        with suppress(Unreadable, MalformedWeights):
            payload = age.unseal(held.data, [identity], _MOST_BYTES)
            held.forget()
            secrecy.vault.put(entry.content, payload, round=max(entry.round, oldest_round))
            saved += 1
    if late is not None:
        raise late
    return saved


def forget(kept: Vaulting, prefix: Prefix, store: ContentStore, oldest_round: int) -> int:
    """Drop from the vault what is of rounds before ``oldest_round`` and no longer in the content store; how many."""
    if not oldest_round:
        return 0
    there = kept.contents()
    wanted = set()
    for facts in prefix.peers():
        for entry in prefix.updates(facts.number):
            if entry.content in there:
                with suppress(ContentError):
                    if store.has(cid_of_update(entry.update)):
                        wanted.add(entry.content)
    return kept.gc(oldest_round, wanted.__contains__)
