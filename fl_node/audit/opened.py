"""One update's bytes, as far as they could be had and read, and what was found out about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from fl_node.audit.known import Sketch
from fl_node.audit.verdicts import Finding, Result
from fl_node.content.protocol import Held
from fl_node.merging.weights import Array, Tensors
from fl_node.prefix import UpdateEntry

#: The checks of an update's own bytes, in the order in which they are looked at.
NAMES: Final = ("bytes", "sealed", "well-formed", "commitment")
_OF_WEIGHTS: Final = ("well-formed", "commitment")


@dataclass(frozen=True, slots=True)
class Opened:
    """One update's bytes.

    ``findings`` are of the checks :data:`NAMES`. ``tensors`` is ``None`` where the bytes could not be had or read.
    """

    findings: tuple[Finding, ...]
    tensors: Tensors | None = None
    held: Held | None = None
    digest: bytes | None = None
    sketch: Sketch | None = None
    resident_bytes: int = 0

    @property
    def good(self) -> bool:
        """Whether these are weights of the model, and those that their publisher committed to."""
        return all(finding.result is Result.OK for finding in self.findings if finding.check in _OF_WEIGHTS)

    @property
    def unreadable(self) -> bool:
        """Whether no key at hand opens it."""
        return any(finding.check in _OF_WEIGHTS and finding.data.get("encrypted") for finding in self.findings)

    @property
    def mapped(self) -> bool:
        """Whether the bytes lie in a file that is held open."""
        return self.held is not None and not self.held.in_memory

    def without_bytes(self) -> Opened:
        """What was found out, the weights let go."""
        return replace(self, tensors=None, held=None, resident_bytes=0)


def unread(*findings: Finding, because: Finding) -> Opened:
    """What is known of an update whose weights could not be read: these findings, and of the rest nothing, because of
    one of them."""
    if because.data.get("encrypted"):
        text, data = because.detail, {"encrypted": True}
    else:
        text, data = f"without a good result of {because.check} there is nothing to look at", {}
    rest = (Finding(name, Result.UNKNOWN, text, data) for name in NAMES[len(findings) :])
    return Opened((*findings, *rest))


def explain(opened: Sequence[Opened], entries: Sequence[UpdateEntry]) -> tuple[str | None, bool]:
    """Why these cannot all be used, in words, and whether that is a fact about their publishers (malformed, another
    commitment) rather than something that is not known."""
    for one, entry in zip(opened, entries, strict=True):
        if not one.good:
            worst = first_trouble(one)
            fact = worst.result is Result.FAILED and worst.check != "bytes"
            return f"{entry.ref}: {worst.check}: {worst.detail}", fact
    return None, False


def first_trouble(opened: Opened) -> Finding:
    """The first finding that says why an update's weights cannot be used, of one whose cannot."""
    return next(one for one in opened.findings if one.check != "sealed" and one.result is not Result.OK)


def resident(held: Held, tensors: Tensors) -> int:
    """Bytes in memory: of the file, where it lies in no file of its own, and of tensors that are no views of it."""
    file = memoryview(held.data).nbytes if held.in_memory else 0
    return file + sum(array.nbytes for array in tensors.values() if _copied(array))


def _copied(array: Array) -> bool:
    """Whether an array has memory of its own instead of looking at the file's bytes."""
    base: object = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return isinstance(base, np.ndarray)
