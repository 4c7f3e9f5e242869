"""Layers kept personal: tensors, by name pattern, that a peer neither publishes nor merges (``merging.personal``).

Patterns are those of a shell (``*``, ``?``, ``[abc]``), case-sensitive, over the whole name: ``head.*``. What peers
publish, merge, digest and record is the shared part alone; every peer joins its own personal part to a merged base
before it trains, and takes it off again before it publishes. The genesis holds all tensors: a peer's personal part
starts from it.

Where a round uses this: the schema that others' files are checked against is ``shared_schema(spec, schema)``; the base
that is digested and recorded is the merge of shared parts; training and evaluation start from ``joined(spec, base,
own)``; and only ``published(spec, trained)`` is encoded. The personal part is state of the peer, to be kept by it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from typing import TypeVar

from fl_node.errors import MalformedWeights, SpecError
from fl_node.merging.weights import Array, Schema, Tensors, TensorSpec
from fl_node.spec import Spec

T = TypeVar("T")


def is_personal(spec: Spec, name: str) -> bool:
    """Whether a tensor of this name stays with its peer."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in spec.merging.personal)


def check_personal(spec: Spec, names: Iterable[str]) -> None:
    """Refuse patterns that do not fit the model's tensors.

    Raises:
        SpecError: a pattern matches no tensor, or together they match every one, so that nothing is left to merge.
    """
    known = sorted(names)
    for pattern in spec.merging.personal:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in known):
            raise SpecError(
                f"merging.personal: the pattern {pattern!r} matches none of the model's tensors; expected a pattern "
                f"of some of {', '.join(known)}"
            )
    if spec.merging.personal and all(is_personal(spec, name) for name in known):
        raise SpecError(
            f"merging.personal = {list(spec.merging.personal)} matches every tensor of the model; expected some of "
            f"{', '.join(known)} to be left, for peers to share"
        )


def shared_schema(spec: Spec, schema: Schema) -> dict[str, TensorSpec]:
    """The schema of what is published and merged.

    Raises:
        SpecError: see :func:`check_personal`.
    """
    check_personal(spec, schema)
    return _shared(spec, schema)


def published(spec: Spec, tensors: Tensors) -> dict[str, Array]:
    """A model's shared part: what is published, merged and digested. The arrays themselves, not copies."""
    return _shared(spec, tensors)


def kept(spec: Spec, tensors: Tensors) -> dict[str, Array]:
    """A model's personal part: what stays with the peer; empty where the spec keeps nothing."""
    return {name: array for name, array in tensors.items() if is_personal(spec, name)}


def joined(spec: Spec, merged: Tensors, own: Tensors) -> dict[str, Array]:
    """A whole model: the shared tensors of ``merged``, the personal ones of ``own``, in name order.

    Args:
        merged: a shared part; no personal tensor in it.
        own: this peer's personal part, or a whole model of which only that part is taken.

    Raises:
        MalformedWeights: ``merged`` holds a personal tensor, or a pattern matches none of ``own``.
    """
    strange = sorted(name for name in merged if is_personal(spec, name))
    if strange:
        raise MalformedWeights(f"got the personal tensors {', '.join(strange)} in a merged base, expected none")
    mine = kept(spec, own)
    for pattern in spec.merging.personal:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in mine):
            raise MalformedWeights(
                f"the peer's own model holds no tensor for merging.personal pattern {pattern!r}; got {sorted(own)}"
            )
    return dict(sorted({**merged, **mine}.items()))


def _shared(spec: Spec, table: Mapping[str, T]) -> dict[str, T]:
    return {name: value for name, value in table.items() if not is_personal(spec, name)}
