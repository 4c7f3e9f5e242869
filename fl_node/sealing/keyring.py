"""This peer's private keys, and what is remembered of those that were destroyed.

A key is a file of its own, an age identity wrapped for the *vault key*, which follows from the account's private key:
who has the state folder alone can open none. What is known of each key without opening it lies beside them in
``keyring.json``. Order makes it safe: a key is on disk before the list names it, and the list calls it destroyed
before it is erased, so that the next start finishes whatever a crash left half done.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from fl_node.errors import KeyringError, MalformedWeights, Unreadable, UsageError
from fl_node.sealing import age
from fl_node.sealing.age import Identity
from fl_node.sealing.identities import identity_file, parse_identities
from fl_node.sealing.keytext import parse_recipient, recipient_text
from fl_node.sealing.private_files import check_private, erase, private_folder, remove_abandoned, write_private

FOLDER_NAME: Final = "keys"
LIST_NAME: Final = "keyring.json"
REQUEST_NAME: Final = "rotate.request"
#: What the vault key is derived for: :meth:`fl_node.keys.Signer.derive`.
VAULT_INFO: Final = b"fl-node vault 1"
_LOCK_NAME: Final = "lock"
_LOCK_S: Final = 10.0
_MOST_FILE_BYTES: Final = 1 << 16
_MADE: Final = re.compile(rb"# fl-node key, made in round ([0-9]{1,18}) at log size ([0-9]{1,18})\n")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key without its private half. ``superseded`` is the round in which a later key was announced, ``destroyed``
    the round in which the private half was erased; ``None``: not yet."""

    public: bytes
    made_round: int
    made_size: int
    superseded: int | None = None
    destroyed: int | None = None


class Keys:
    """Keys in memory: for simulations, and what :class:`Keyring` keeps on disk. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._records: tuple[KeyRecord, ...] = ()
        self._identities: dict[bytes, Identity] = {}
        self._requested = False

    @property
    def records(self) -> tuple[KeyRecord, ...]:
        """All keys that there ever were, in the order in which they were made."""
        return self._records

    def current(self) -> Identity | None:
        """The key that was made last, announced or not, of those that no later one took the place of: a key that was
        superseded, perhaps because somebody else saw it, never comes back. ``None``: there is none, or it is lost."""
        with self._lock:
            found = (self._identities.get(one.public) for one in reversed(self._records) if one.superseded is None)
            return next((identity for identity in found if identity is not None), None)

    def identities(self) -> tuple[Identity, ...]:
        """The private keys, newest first."""
        with self._lock:
            found = (self._identities.get(record.public) for record in reversed(self._records))
            return tuple(identity for identity in found if identity is not None)

    def find(self, public: bytes) -> Identity | None:
        """The private key of a public one; ``None`` where it is not here (any more)."""
        return self._identities.get(public)

    def make(self, round: int, log_size: int) -> Identity:
        """A new key; from now on it is :meth:`current`. It survives a power cut once this returns.

        Raises:
            KeyringError: it cannot be kept; nothing was changed.
        """
        with self._writing():
            identity = Identity.generate()
            record = KeyRecord(identity.public, round, log_size)
            self._keep(identity, record)
            self._replace((*self._records, record))
            self._identities[identity.public] = identity
            return identity

    def superseded(self, public: bytes, round: int) -> None:
        """Remember the round in which a later key than this was announced."""
        self._note(public, superseded=round)

    def destroy(self, public: bytes, round: int) -> None:
        """Erase a private key. Its record stays.

        Raises:
            KeyringError: it cannot be erased.
        """
        self._note(public, destroyed=round)
        with self._writing():
            self._identities.pop(public, None)
            self._erase(public)

    def request_rotation(self) -> None:
        """Ask whoever tends these keys for a new one."""
        self._requested = True

    def rotation_requested(self) -> bool:
        """Whether somebody asked for a new key."""
        return self._requested

    def rotation_done(self) -> None:
        """What was asked for is made."""
        self._requested = False

    def _note(self, public: bytes, **changes: int) -> None:
        with self._writing():
            self._replace(
                tuple(
                    replace(record, **changes) if record.public == public else record  # type: ignore[arg-type]
                    for record in self._records
                )
            )

    # ---- what a keyring on disk does as well ----

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            yield

    def _replace(self, records: tuple[KeyRecord, ...]) -> None:
        self._records = records

    def _keep(self, identity: Identity, record: KeyRecord) -> None:
        """Keep a private key."""

    def _erase(self, public: bytes) -> None:
        """Erase a private key."""


class Keyring(Keys):
    """Keys in a folder of mode 0700, each in a file of mode 0600. Several processes may read, one at a time writes.

    Args:
        folder: made where it is missing.
        secret: 32 bytes that the vault key is made of.

    Raises:
        KeyringError: others may read the folder, it cannot be read, or its keys are another account's.
    """

    def __init__(self, folder: Path, secret: bytes) -> None:
        super().__init__()
        self._folder = private_folder(folder)
        self._vault_key = Identity.of(secret)
        with self._writing():
            self._finish()
        remove_abandoned(folder)

    def request_rotation(self) -> None:
        """As :meth:`Keys.request_rotation`, of a process that tends these keys now or next."""
        request_rotation(self._folder)

    def rotation_requested(self) -> bool:
        """As :meth:`Keys.rotation_requested`."""
        return rotation_pending(self._folder)

    def rotation_done(self) -> None:
        """As :meth:`Keys.rotation_done`."""
        (self._folder / REQUEST_NAME).unlink(missing_ok=True)

    def _finish(self) -> None:
        """Take in keys that were made and not listed, erase those that are listed as destroyed."""
        for record in self._records:
            if record.destroyed is not None:
                self._erase(record.public)
        known = {record.public for record in self._records}
        for path in sorted(self._folder.glob("age1*.age"), key=lambda path: path.stat().st_mtime_ns):
            identity, record = self._open(path)
            if record.public not in known:
                self._replace((*self._records, record))
            self._identities[record.public] = identity

    def _open(self, path: Path) -> tuple[Identity, KeyRecord]:
        check_private(path)
        try:
            content = bytes(age.unseal(path.read_bytes(), [self._vault_key], _MOST_FILE_BYTES))
        except OSError as cause:
            raise KeyringError(f"cannot read the key {path}: {cause.strerror}") from cause
        except Unreadable as cause:
            raise KeyringError(
                f"{path} was not written by the account whose key is given; expected the keys of one account: name "
                "the right --key, or another --state folder"
            ) from cause
        except MalformedWeights as cause:
            raise KeyringError(
                f"the key {path} is damaged: {cause}; restore it, or move it away: if it is the key in use, a fresh "
                "one is announced then, and what was encrypted to this one and is not in the vault cannot be read here"
            ) from cause
        (identity,) = parse_identities(content, str(path))
        made = _MADE.match(content)
        round_, size = (int(made[1]), int(made[2])) if made else (0, 0)
        return identity, KeyRecord(identity.public, round_, size)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock, _locked(self._folder / _LOCK_NAME):
            self._records = read_records(self._folder)
            yield

    def _replace(self, records: tuple[KeyRecord, ...]) -> None:
        table = {"format": 1, "keys": [_plain(record) for record in records]}
        write_private(self._folder / LIST_NAME, [json.dumps(table, indent=1).encode() + b"\n"])
        self._records = records

    def _keep(self, identity: Identity, record: KeyRecord) -> None:
        comment = f"fl-node key, made in round {record.made_round} at log size {record.made_size}"
        text = identity_file([(identity, comment)])
        write_private(self._path(record.public), [age.seal(text, [self._vault_key.public])])

    def _erase(self, public: bytes) -> None:
        erase(self._path(public))

    def _path(self, public: bytes) -> Path:
        return self._folder / f"{recipient_text(public)}.age"


def read_records(folder: Path) -> tuple[KeyRecord, ...]:
    """What is known of a folder's keys without opening any; empty where there is no folder.

    Raises:
        KeyringError: others may read it, or it is damaged.
    """
    path = folder / LIST_NAME
    if not path.exists():
        return ()
    check_private(path)
    try:
        return _parsed(path.read_bytes())
    except OSError as cause:
        raise KeyringError(f"cannot read {path}: {cause.strerror}") from cause
    except (ValueError, UsageError) as cause:
        raise KeyringError(
            f"{path} is damaged: {cause}; move it away: it is made again from the keys beside it, without those that "
            "were destroyed"
        ) from cause


def kept_keys(folder: Path) -> frozenset[bytes]:
    """The public halves of the keys whose private half lies in a folder, by the names of its files."""
    found = set()
    for path in folder.glob("age1*.age"):
        with suppress(UsageError):
            found.add(parse_recipient(path.stem))
    return frozenset(found)


def rotation_pending(folder: Path) -> bool:
    """Whether a rotation was asked for and is still to come (:func:`request_rotation`)."""
    return (folder / REQUEST_NAME).exists()


def request_rotation(folder: Path) -> None:
    """Ask the process that tends the keys of this folder for a new one.

    Raises:
        KeyringError: the folder cannot be written.
    """
    write_private(private_folder(folder) / REQUEST_NAME, [b"asked by fl-node keys rotate\n"])


def _plain(record: KeyRecord) -> dict[str, Any]:
    return {
        "public": recipient_text(record.public),
        "made_round": record.made_round,
        "made_size": record.made_size,
        "superseded": record.superseded,
        "destroyed": record.destroyed,
    }


def _parsed(content: bytes) -> tuple[KeyRecord, ...]:
    """The records of a list.

    Raises:
        ValueError, UsageError: it is none; the message says what was expected.
    """
    try:
        table = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as cause:
        raise ValueError("it is no JSON") from cause
    if not isinstance(table, dict) or not isinstance(table.get("keys"), list):
        raise ValueError("expected a JSON object with a list named keys")
    return tuple(_record(number, item) for number, item in enumerate(table["keys"], 1))


def _record(number: int, item: object) -> KeyRecord:
    if not isinstance(item, dict) or not isinstance(item.get("public"), str):
        raise ValueError(f"entry {number} of its keys has no public key; expected an object with public: age1...")
    for name in ("made_round", "made_size", "superseded", "destroyed"):
        value = item.get(name)
        optional = name in ("superseded", "destroyed")
        if not (type(value) is int and value >= 0) and not (optional and name in item and value is None):
            kind = "a round or null" if optional else "a number from 0"
            raise ValueError(f"entry {number} of its keys has no usable {name}; expected {kind}")
    public = parse_recipient(item["public"])
    return KeyRecord(public, item["made_round"], item["made_size"], item["superseded"], item["destroyed"])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an operating-system lock, which falls with the process."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError as cause:
        raise KeyringError(
            f"the folder {path.parent} was deleted while it was in use; put it back, or start again without it: a "
            "fresh key is announced then, and what was encrypted to the old ones cannot be read here"
        ) from cause
    except OSError as cause:
        raise KeyringError(f"cannot open the lock {path}: {cause.strerror}; check the folder's permissions") from cause
    try:
        deadline = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as cause:
                if time.monotonic() > deadline:
                    raise KeyringError(f"another process writes keys ({path}); wait for it, or stop it") from cause
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)
