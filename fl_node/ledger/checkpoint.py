"""Checkpoints: what a log was at one moment, as text that somebody signed and that is kept off the chain.

The format is a C2SP tlog-checkpoint (https://c2sp.org/tlog-checkpoint) inside a C2SP signed note
(https://c2sp.org/signed-note), signed as an EIP-191 message with an Ethereum key.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Size and root of one ledger's log at one block. Digests are 32 raw bytes; ``time_s`` is block time."""

    chain_id: int
    contract: str
    size: int
    root: bytes
    block_number: int
    block_hash: bytes
    time_s: int
    spec_digest: bytes


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint, its exact note (text and signatures), and the accounts whose signatures verify."""

    checkpoint: Checkpoint
    note: bytes
    signers: tuple[str, ...]
