"""How an update's bytes carry its weights: the encoding in words, and the update that they refer to."""

from __future__ import annotations

import sqlite3
from typing import Final

from pydantic import Field

from fl_node.errors import MalformedWeights
from fl_node.merging.encodings import is_delta, kind_of, name_of
from fl_node.records import ZSTD, Encoding, UpdateRef
from ledger_ui.contexts import Context, Ref

_WORDS: Final = {
    Encoding.SAFETENSORS: "every value, as float32",
    Encoding.F16: "every value, in half precision",
    Encoding.INT8_DELTA: "what changed since {since}, in 8 bits a value with a scale for each block",
    Encoding.TOP_K_DELTA: "of what changed since {since} the largest values",
}


class Carried(Context):
    """How the published bytes are written."""

    encoding: str = Field(description="by name, as int8-delta+zstd; a number that this version does not know by that")
    words: str = Field(description="what that means")
    delta: bool = Field(description="the bytes say only what changed since the update that they refer to")
    refers_to: Ref | None = Field(description="that update; none: the genesis")
    refers_entry: int | None = Field(description="its entry; none: the genesis, or it is not in this log")
    trouble: str = Field(description="why nobody can follow that reference; empty: it is as the rules allow")


def words_of(encoding: int, refers_to: int) -> str:
    """What an encoding means.

    >>> words_of(3, 0)
    'of what changed since the genesis the largest values'
    """
    try:
        words = _WORDS[kind_of(encoding)].format(since=since(refers_to))
    except MalformedWeights:
        return "in a way that this version does not know"
    return words + ("; then compressed by zstd" if encoding & ZSTD else "")


def since(refers_to: int) -> str:
    """The update that ``Update.refers_to`` names, or the genesis.

    >>> since(0), since(3 << 32 | 12)
    ('the genesis', '3#12')
    """
    return str(UpdateRef.unpack(refers_to) or "the genesis")


def carried(db: sqlite3.Connection, ref: UpdateRef, encoding: int, refers_to: int) -> Carried:
    """How an update's bytes carry its weights. See ``fl_node.readers.bad_reference`` for the rule."""
    target = UpdateRef.unpack(refers_to)
    row = (
        target
        and db.execute(
            "SELECT idx FROM updates WHERE peer = ? AND sequence = ?", (target.peer, target.sequence)
        ).fetchone()
    )
    trouble = ""
    if target is not None and (target.peer != ref.peer or not 1 <= target.sequence < ref.sequence):
        trouble = f"It refers to {target}, which is no earlier update of its publisher: nobody need follow that."
    elif target is not None and not row:
        trouble = f"It refers to {target}, which is not in this log."
    return Carried(
        encoding=name_of(encoding),
        words=words_of(encoding, refers_to),
        delta=is_delta(encoding),
        refers_to=None if target is None else str(target),
        refers_entry=row[0] if row else None,
        trouble=trouble,
    )
