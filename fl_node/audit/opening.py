"""Check 14: the contract is our code, and spec and genesis are those that it was opened with."""

from __future__ import annotations

import os
from typing import Final

from fl_node.audit.means import Means
from fl_node.audit.verdicts import Finding, Result
from fl_node.content.names import cid_of_genesis
from fl_node.errors import (
    ChainUnavailable,
    ContentError,
    ContentMalformed,
    ContentMismatch,
    ContentTooLarge,
    MalformedWeights,
)
from fl_node.ledger.deploy import committed_artifact
from fl_node.merging import weights
from fl_node.merging.personal import published
from fl_node.merging.weights import Tensors

NAME = "opening"
_MOST_BYTES: Final = 1 << 40


def code(means: Means) -> Finding:
    """The code at the address is the compiled contract that ships with this package."""
    if means.blocks is None:
        text = "only a chain has the contract's code; the transaction that deployed it is checked as entry 0's"
        return Finding(NAME, Result.UNKNOWN, text, asked=False)
    try:
        got = means.blocks.code()
    except ChainUnavailable as cause:
        return Finding(NAME, Result.UNKNOWN, f"the contract's code could not be read: {cause}")
    expected = committed_artifact().deployed
    if got != expected:
        text = f"the {len(got)} bytes of code at {means.identity.address} are not the {len(expected)} of this version's"
        return Finding(NAME, Result.FAILED, text)
    return Finding(NAME, Result.OK, f"the code at {means.identity.address} is this version's contract")


def spec(means: Means) -> Finding:
    """The spec's bytes have the digest that entry 0 holds, and the contract its least interval."""
    opened, identity = means.prefix.opened, means.identity
    expected = opened.spec_digest
    data = {"spec_digest": expected.hex()}
    if (opened.chain_id, opened.ledger.lower()) != (identity.chain_id, identity.address.lower()):
        text = f"entry 0 opens the ledger {opened.ledger} on chain {opened.chain_id}, not {identity.address} on chain "
        return Finding(NAME, Result.FAILED, f"{text}{identity.chain_id}: it is another ledger's log", data)
    if means.federation is None:
        return Finding(NAME, Result.UNKNOWN, "the spec's bytes could not be had", data)
    got = means.federation.digest
    if got != expected:
        text = f"the spec has SHA-256 {got.hex()}, the ledger was opened with {expected.hex()}: it was changed since"
        return Finding(NAME, Result.FAILED, text, {**data, "got": got.hex()})
    wanted, given = means.federation.spec.rounds.min_interval_s, means.prefix.opened.min_interval_s
    if wanted != given:
        text = f"the spec asks for {wanted} s between updates, the contract for {given} s"
        return Finding(NAME, Result.FAILED, text, data)
    return Finding(NAME, Result.OK, f"the spec is the one that the ledger was opened with, {expected.hex()}", data)


def genesis(means: Means) -> tuple[Finding, Tensors | None]:
    """The initial weights are those of entry 0. Returns the shared tensors too, without personal ones."""
    opened = means.prefix.opened
    cid = cid_of_genesis(opened)
    data = {"cid": str(cid)}
    try:
        held = means.blobs.hold(cid, _most_bytes())
        whole = weights.decode(held.data).tensors
    except ContentTooLarge as cause:
        return Finding(NAME, Result.UNKNOWN, f"the genesis is too large for this machine: {cause}", data), None
    except (ContentMismatch, MalformedWeights) as cause:
        if isinstance(cause, ContentMalformed | MalformedWeights):
            return Finding(NAME, Result.FAILED, f"the genesis cannot be read: {cause}", data), None
        return Finding(NAME, Result.FAILED, f"the genesis: {cause}", data), None
    except ContentError as cause:
        return Finding(NAME, Result.UNKNOWN, f"nobody gives the genesis weights: {cause}", data), None
    digest = weights.digest(whole)
    if digest != opened.genesis_weights:
        text = f"the genesis weights have digest {digest.hex()}, the ledger has {opened.genesis_weights.hex()}"
        return Finding(NAME, Result.FAILED, text, data), None
    shared = whole if means.federation is None else published(means.federation.spec, whole)
    return Finding(NAME, Result.OK, f"the genesis weights are the ledger's, {digest.hex()}", data), shared


def _most_bytes() -> int:
    """What is taken of a genesis at most. How large a model is nobody can tell before its genesis is there, and whoever
    opened the ledger can name anything: so no more than a part of this machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(_MOST_BYTES, memory // 4)
