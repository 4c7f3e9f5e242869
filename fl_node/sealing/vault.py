"""What was opened and is still wanted: payloads of updates by their content digest, encrypted at rest.

An update is sealed to the key that a peer had when it was published. Before that key is destroyed, what is still kept
of those updates goes in here, so that replay survives the rotation of keys; so does what another member shared. A
payload is an age file for the vault key, which follows from the account's private key.
"""

from __future__ import annotations

import re
import struct
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from fl_node.errors import KeyringError, MalformedWeights, Unreadable
from fl_node.sealing import age
from fl_node.sealing.age import Identity
from fl_node.sealing.header import Buffer
from fl_node.sealing.private_files import check_private, private_folder, remove_abandoned, write_private

FOLDER_NAME: Final = "vault"
# 48 bytes, so that tensors behind them lie aligned.
_HEAD: Final = struct.Struct("<8s32sB7x")
_MAGIC: Final = b"FLVAULT1"
_AS_RECORDED: Final = 255
_TICK_NS: Final = 2_000_000_000
_NAME: Final = re.compile(r"([0-9a-f]{64})-([0-9]{1,18})\.age")


@dataclass(frozen=True, slots=True)
class Opened:
    """A payload. ``encoding``: how it is encoded where that is not as the ledger has it; 0 for the whole weights."""

    payload: Buffer
    encoding: int | None


class Vaulting(Protocol):
    """Payloads by content digest: :class:`Vault`, :class:`MemoryVault`."""

    def put(
        self, content: bytes, payload: Buffer | Sequence[Buffer], *, round: int, encoding: int | None = None
    ) -> None: ...

    def get(self, content: bytes, most_bytes: int) -> Opened | None: ...

    def has(self, content: bytes) -> bool: ...

    def contents(self) -> frozenset[bytes]: ...

    def gc(self, oldest_round: int, wanted: Callable[[bytes], bool] = ...) -> int: ...


def _nothing(content: bytes) -> bool:
    return False


def warn(text: str) -> None:
    """Tell of damage where nobody else does."""
    warnings.warn(text, stacklevel=2)


class MemoryVault:
    """A vault in memory, for simulations and tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[bytes, tuple[int, Opened]] = {}

    def put(
        self, content: bytes, payload: Buffer | Sequence[Buffer], *, round: int, encoding: int | None = None
    ) -> None:
        """Keep a payload."""
        whole = b"".join(map(bytes, _several(payload)))
        with self._lock:
            self._held[content] = (round, Opened(whole, encoding))

    def get(self, content: bytes, most_bytes: int) -> Opened | None:
        """A payload, or ``None``."""
        found = self._held.get(content)
        return found[1] if found and memoryview(found[1].payload).nbytes <= most_bytes else None

    def has(self, content: bytes) -> bool:
        """Whether a payload is there."""
        return content in self._held

    def contents(self) -> frozenset[bytes]:
        """What there is, by content digest."""
        return frozenset(self._held)

    def gc(self, oldest_round: int, wanted: Callable[[bytes], bool] = _nothing) -> int:
        """Drop what is of rounds before ``oldest_round`` and not ``wanted``; how many that were."""
        with self._lock:
            gone = [content for content, (round, _) in self._held.items() if round < oldest_round]
            gone = [content for content in gone if not wanted(content)]
            for content in gone:
                del self._held[content]
        return len(gone)


class Vault:
    """A vault in a folder of mode 0700, a file for each payload. Several processes and threads may read and write.

    Args:
        folder: made where it is missing.
        secret: 32 bytes that the vault key is made of.
        tell: is told of a file that is damaged, and was deleted.

    Raises:
        KeyringError: others may read the folder, or it cannot be made.
    """

    def __init__(self, folder: Path, secret: bytes, tell: Callable[[str], None] = warn) -> None:
        self._folder = private_folder(folder)
        self._key = Identity.of(secret)
        self._tell = tell
        self._lock = threading.Lock()
        self._seen: tuple[int, dict[bytes, set[int]]] = (-1, {})

    def put(
        self, content: bytes, payload: Buffer | Sequence[Buffer], *, round: int, encoding: int | None = None
    ) -> None:
        """Keep a payload; it survives a power cut once this returns.

        Args:
            content: digest of the ciphertext, as on the ledger.
            payload: what it holds, in one or more buffers.
            round: of the update: see :meth:`gc`.
            encoding: how ``payload`` is encoded, where that is not as the ledger has it.

        Raises:
            KeyringError: it cannot be written.
        """
        head = _HEAD.pack(_MAGIC, content, _AS_RECORDED if encoding is None else encoding)
        private_folder(self._folder)  # somebody may have deleted it meanwhile
        write_private(self._path(content, round), [age.seal([head, *_several(payload)], [self._key.public])])

    def get(self, content: bytes, most_bytes: int) -> Opened | None:
        """A payload, or ``None``. A damaged file is as good as none: it is told, and deleted.

        Raises:
            KeyringError: it cannot be read, others may read it, or it is another account's.
        """
        for round in self._index().get(content, ()):
            path = self._path(content, round)
            try:
                return self._read(path, content, most_bytes)
            except FileNotFoundError:
                continue
            except OSError as cause:
                raise KeyringError(f"cannot read {path}: {cause.strerror}; check the state folder") from cause
            except Unreadable as cause:
                raise KeyringError(f"{path} was not written by the account whose key is given") from cause
            except MalformedWeights as error:
                self._tell(
                    f"the file {path} of the vault is damaged, and was deleted: {error}; the update is looked for "
                    "elsewhere, and where no key opens it any more, ask another member to `fl-node share` it"
                )
                path.unlink(missing_ok=True)
        return None

    def has(self, content: bytes) -> bool:
        """Whether a payload is there.

        Raises:
            KeyringError: the folder cannot be read.
        """
        return content in self._index()

    def contents(self) -> frozenset[bytes]:
        """What there is, by content digest.

        Raises:
            KeyringError: the folder cannot be read.
        """
        return frozenset(self._index())

    def gc(self, oldest_round: int, wanted: Callable[[bytes], bool] = _nothing) -> int:
        """Drop what is of rounds before ``oldest_round`` and not ``wanted``; how many that were."""
        remove_abandoned(self._folder)
        gone = 0
        for content, rounds in self._index().items():
            old = [round for round in rounds if round < oldest_round]
            if old and not wanted(content):
                for round in old:
                    self._path(content, round).unlink(missing_ok=True)
                gone += 1
        return gone

    def _read(self, path: Path, content: bytes, most_bytes: int) -> Opened:
        if not path.exists():
            raise FileNotFoundError
        check_private(path, "")
        if path.stat().st_size > age.sealed_size(most_bytes + _HEAD.size, 1):
            raise MalformedWeights(f"it has {path.stat().st_size} bytes, more than {most_bytes} need")
        whole = age.unseal(path.read_bytes(), [self._key], most_bytes + _HEAD.size)
        if len(whole) < _HEAD.size:
            raise MalformedWeights(f"it holds {len(whole)} bytes, expected at least {_HEAD.size}")
        magic, named, encoding = _HEAD.unpack_from(whole)
        if (magic, named) != (_MAGIC, content):
            raise MalformedWeights("it is not what its name says")
        return Opened(whole[_HEAD.size :], None if encoding == _AS_RECORDED else encoding)

    def _index(self) -> dict[bytes, set[int]]:
        """Rounds by content digest, as the folder has them now. It is listed only where it may have changed. One that
        somebody deleted while this was open is empty."""
        try:
            return self._listed()
        except FileNotFoundError:
            return {}
        except OSError as cause:
            raise KeyringError(f"cannot read {self._folder}: {cause.strerror}; check the state folder") from cause

    def _listed(self) -> dict[bytes, set[int]]:
        changed = self._folder.stat().st_mtime_ns
        with self._lock:
            seen, found = self._seen
            if seen == changed:
                return found
            found = {}
            for path in self._folder.iterdir():
                if match := _NAME.fullmatch(path.name):
                    found.setdefault(bytes.fromhex(match[1]), set()).add(int(match[2]))
            # Clocks of file systems tick slowly: what changes within a tick after a look would not be seen.
            settled = time.time_ns() - changed > _TICK_NS
            self._seen = (changed if settled else -1, found)
            return found

    def _path(self, content: bytes, round: int) -> Path:
        return self._folder / f"{content.hex()}-{round}.age"


def _several(payload: Buffer | Sequence[Buffer]) -> Sequence[Buffer]:
    return [payload] if isinstance(payload, bytes | bytearray | memoryview) else payload
