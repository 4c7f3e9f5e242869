"""What a demo found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OnChain:
    """A deployed ledger."""

    contract: str
    chain_id: int
    gas_used: int


@dataclass(frozen=True, slots=True)
class Judged:
    """Accuracies, of masks Dice, on the common test set, by peer; ``None`` for a peer without a closing update."""

    accuracies: tuple[float | None, ...]
    updates: int
    entries: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Packed:
    """An evidence pack of the whole demo. ``digest``: SHA-256 of its manifest in hexadecimal; ``missing``: what could
    not be had and is not in it."""

    file: str
    digest: str
    size_bytes: int
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Accuracies are fractions on the common test set, where ``measure`` says so Dice of masks; ``None`` where a peer
    left no final model. Sizes in bytes."""

    sites: tuple[str, ...]
    federated: tuple[float | None, ...]
    alone: tuple[float | None, ...]
    pooled: float | None
    updates: int
    entries: int
    root: str
    rpc: str
    chain_id: int
    contract: str
    federation_file: str
    bytes: dict[str, int]
    seconds: dict[str, float]
    failures: tuple[str, ...] = ()
    measure: str = "accuracy"
    preset: str | None = None
    pack: Packed | None = None
