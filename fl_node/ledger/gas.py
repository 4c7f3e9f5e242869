"""Gas limits: fixed formulas, never ``eth_estimateGas``.

An estimate holds for the state it was made in; when another peer's entry lands first, the tree append may climb more
levels and the estimate is too low. A limit costs nothing unless used, so each has room for the deepest append of a log
a thousand entries longer. Tests measure the room that is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fl_node.records import Attestation, Parent, Update

_LEVEL: Final = 6_000
_CALL_BYTE: Final = 16


def append(size: int) -> int:
    """Gas for adding a leaf to a log of about ``size`` entries, at worst."""
    return 60_000 + _LEVEL * (size + 1_000).bit_length()


def publish(size: int, update: Update, parents: Sequence[Parent]) -> int:
    """Limit of ``publish``."""
    return 120_000 + append(size) + 10_000 * len(parents) + 60 * len(update.extra)


def attest(size: int, items: Sequence[Attestation]) -> int:
    """Limit of ``attest``: each item may open a storage slot of its own."""
    return 60_000 + append(size) + 35_000 * len(items)


def small(size: int, text_bytes: int = 0) -> int:
    """Limit of ``object``, ``announce``, ``admit`` and ``retire``."""
    return 160_000 + append(size) + 60 * text_bytes


def deploy(code: bytes, members: int) -> int:
    """Limit of the deployment. 256 members stay below the usual block limit of 30 million."""
    return 600_000 + 250 * len(code) + 84_000 * members
