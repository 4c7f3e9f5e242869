"""Weights as bytes: the canonical safetensors file, its strict reader, the digest of tensors, the commitment to it.

The exact rules, so that an outsider can write a second program, are in docs/replay-rules.md. In short: names are sorted
by their UTF-8 bytes, numbers are little-endian, and a negative zero does not exist: :func:`encode`, :func:`decode` and
:func:`digest` all read ``-0.0`` as ``+0.0``, by its bits, so that nobody's arithmetic mode can make a difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fl_node.errors import MalformedWeights
from fl_node.merging import container
from fl_node.merging.container import HEADER_LIMIT as HEADER_LIMIT
from fl_node.merging.container import MAGNITUDE_LIMIT as MAGNITUDE_LIMIT
from fl_node.merging.container import METADATA_KEY as METADATA_KEY
from fl_node.merging.container import Array as Array
from fl_node.merging.container import Buffer as Buffer
from fl_node.merging.container import Schema as Schema
from fl_node.merging.container import Tensors as Tensors
from fl_node.merging.container import TensorSpec as TensorSpec

COMMITMENT_DOMAIN: Final = b"fl-node weights commitment 1"


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A decoded file. ``tensors`` are read-only, most of them views of the file's bytes. ``metadata`` is the value of
    the key ``fl-node``, empty where there is none."""

    tensors: dict[str, Array]
    metadata: str


def schema_of(tensors: Tensors) -> dict[str, TensorSpec]:
    """Names, dtypes and shapes of tensors.

    Raises:
        MalformedWeights: a dtype that cannot be published, half precision among them.
    """
    return container.schema_of(tensors)


def origin(chain_id: int, contract: str, peer: int, sequence: int) -> str:
    """The metadata value of an update's file: ``31337:0x5fbd…:3#12``, the address in lower case."""
    return f"{chain_id}:{contract.lower()}:{peer}#{sequence}"


def encode(tensors: Tensors, metadata: str = "") -> list[Buffer]:
    """The canonical safetensors file as a list of buffers to be written one after the other.

    The header is compact JSON: ``__metadata__`` with the one key ``fl-node`` (absent if ``metadata`` is empty), then
    the tensors in the order of their data (alignment, then name), padded with spaces to 8 bytes. The data are views
    of the arrays, not copies, wherever an array is contiguous, little-endian and free of negative zeros; so do not
    write to the arrays before the buffers are used.

    Raises:
        MalformedWeights: an unpublishable dtype or name, or a value that is not finite.
    """
    return container.write(tensors, metadata)


def encoded_size(schema: Schema, metadata_limit: int = 256) -> int:
    """An upper bound in bytes for a file of this schema by any writer: what a reader need accept at most."""
    names = sum(6 * len(name.encode()) + 24 * len(spec.shape) + 128 for name, spec in schema.items())
    return 8 + names + metadata_limit + 64 + sum(spec.nbytes for spec in schema.values())


def check_magnitude(tensors: Tensors, limit: float) -> None:
    """Refuse weights no training gives, which would overflow in whoever merges them.

    Raises:
        MalformedWeights: an element of a float32 or float64 tensor lies beyond +-``limit``.
    """
    for name, array in tensors.items():
        if array.dtype.kind == "f" and array.size and (largest := float(max(array.max(), -array.min()))) > limit:
            raise MalformedWeights(
                f"{name!r} holds {largest:g} in size, expected at most {limit:g} (merging.max_magnitude of the spec)"
            )


def decode(data: Buffer, expected: Schema | None = None) -> WeightsFile:
    """Read a safetensors file of a stranger.

    Every tensor is checked: names, dtypes and shapes against ``expected`` (where given), offsets against the file
    (they must tile it without gap, overlap or rest), values for being finite. Negative zeros come out as zeros.
    Tensors are read-only views of ``data`` unless they hold a negative zero or lie unaligned. No memory is taken for
    what a header merely claims.

    Raises:
        MalformedWeights: anything is wrong; the message says what was got and what was expected.
    """
    parsed = container.parse(data)
    if expected is not None:
        _check_schema(parsed.specs, expected)
    return WeightsFile(parsed.tensors(), parsed.metadata)


def digest(tensors: Tensors) -> bytes:
    """SHA-256 over decoded tensors in name order; 32 bytes. Never over a file: a safetensors header is not canonical.

    For each tensor: u64 length and UTF-8 bytes of its name, u64 length and ASCII bytes of its dtype, u64 number of
    dimensions, each dimension as u64, then its elements row by row; all little-endian, ``-0.0`` as ``+0.0``.

    Raises:
        MalformedWeights: an unpublishable dtype or name, or a value that is not finite.
    """
    total = hashlib.sha256()
    schema = schema_of(tensors)
    for name in sorted(tensors):
        container.check_name(name)
        spec = schema[name]
        total.update(_prefixed(name.encode()) + _prefixed(spec.dtype.encode()))
        total.update(b"".join(_u64(number) for number in (len(spec.shape), *spec.shape)))
        array = container.canonical(name, tensors[name], spec)
        if array.nbytes:
            total.update(container.bytes_of(array))
    return total.digest()


def commitment(chain_id: int, contract: str, peer: int, sequence: int, weights_digest: bytes) -> bytes:
    """What the ledger holds in ``weights``: binds the digest of the tensors to one update of one peer; 32 bytes.

    ``sha256(abi.encodePacked("fl-node weights commitment 1", uint256 chain, address, uint32 peer, uint32 sequence,
    bytes32 digest))``. So equal models of two peers do not look equal, and a copier cannot use another's commitment.
    """
    if len(weights_digest) != 32:
        raise ValueError(f"a digest of weights has 32 bytes, got {len(weights_digest)}")
    address = bytes.fromhex(contract.removeprefix("0x"))
    if len(address) != 20:
        raise ValueError(f"a contract address has 20 bytes, got {len(address)}: {contract}")
    place = chain_id.to_bytes(32, "big") + address + peer.to_bytes(4, "big") + sequence.to_bytes(4, "big")
    return hashlib.sha256(COMMITMENT_DOMAIN + place + weights_digest).digest()


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "little")


def _prefixed(raw: bytes) -> bytes:
    return _u64(len(raw)) + raw


def _check_schema(found: Schema, expected: Schema) -> None:
    missing = sorted(set(expected) - set(found))
    extra = sorted(set(found) - set(expected))
    if missing or extra:
        parts = [f"missing {_few(missing)}"] * bool(missing) + [f"unexpected {_few(extra)}"] * bool(extra)
        raise MalformedWeights(f"got {len(found)} tensors, expected {len(expected)}: {'; '.join(parts)}")
    for name in sorted(expected):
        if found[name] != expected[name]:
            raise MalformedWeights(f"tensor {name!r} is {found[name]}, expected {expected[name]}")


def _few(names: Sequence[str]) -> str:
    return ", ".join(repr(name[:80]) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
