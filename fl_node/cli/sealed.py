"""How an update is written and who can read it, in words for a terminal."""

from __future__ import annotations

from typing import Any

from fl_node.merging.encodings import is_delta, name_of
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.readers import bad_reference, readers_at
from fl_node.records import Flag, Update, UpdateRef

_FLAGS = {Flag.DAG_PB: "dag-pb", Flag.ENCRYPTED: "encrypted", Flag.FINAL: "final"}


def encoding_words(update: Update) -> str:
    """An update's encoding by name, with what it is a change of.

    >>> encoding_words(Update(b"", Flag(0), b"", b"", b"", 0, b"", 3, 3, 0, 0, 0, 0, 1, 2 | 0x80, 1 << 32 | 2))
    'int8-delta+zstd, what changed since 1#2'
    """
    name = name_of(update.encoding)
    return f"{name}, what changed since {reference(update)}" if is_delta(update.encoding) else name


def reference(update: Update) -> str:
    """The update that the bytes of another one refer to, by name; or the genesis."""
    return str(UpdateRef.unpack(update.refers_to) or "the genesis")


def short_words(update: Update) -> str:
    """How an update is written, in some words of a line."""
    return f"{name_of(update.encoding)}, {'encrypted' if update.flags & Flag.ENCRYPTED else 'in the clear'}"


def told(prefix: Prefix, entry: UpdateEntry, full_every: int) -> dict[str, Any]:
    """What the numbers of an entry mean, JSON-ready: names beside them, and who can read it by the log alone.

    Args:
        full_every: ``encoding.full_every`` of the spec.
    """
    update = entry.update
    found: dict[str, Any] = {
        "encoding_name": name_of(update.encoding),
        "refers_to_update": str(ref) if (ref := UpdateRef.unpack(update.refers_to)) is not None else None,
        "reference_trouble": bad_reference(prefix, entry, full_every),
        "encrypted": bool(update.flags & Flag.ENCRYPTED),
        "readers": None,
        "skipped": None,
    }
    if found["encrypted"]:
        readers = readers_at(prefix.upto(min(update.sealed_at, entry.index)))
        found["readers"] = sorted(readers.keys)
        found["skipped"] = {str(peer): why for peer, why in sorted(readers.skipped.items())}
    return found


def in_words(entry: UpdateEntry, known: dict[str, Any], *, wanted: bool) -> dict[str, str]:
    """The same for people, by the names of the entry's fields.

    Args:
        known: of :func:`told`.
        wanted: the spec asks for encryption.
    """
    update = entry.update
    flags = [name for flag, name in _FLAGS.items() if update.flags & flag]
    found = {
        "flags": ", ".join(flags) or "none",
        "encoding": encoding_words(update),
        "refers_to": known["reference_trouble"] or reference(update),
    }
    if not known["encrypted"]:
        open_to_all = "in the clear: anybody can read it"
        found["sealed_at"] = f"{open_to_all}, though the spec asks for encryption" if wanted else open_to_all
        return found
    size = min(update.sealed_at, entry.index)
    found["sealed_at"] = (
        f"readable by members and auditors as of entry {size - 1}" if size else "for nobody in this log"
    )
    found["readers"] = ", ".join(f"peer {peer}" for peer in known["readers"]) or "nobody"
    found["skipped"] = "; ".join(f"peer {peer} {why}" for peer, why in known["skipped"].items()) or "nobody"
    return found
