"""The contract's tree, judged by implementations that are not ours: pymerkle and sigstore read a real chain's logs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from pymerkle import InmemoryTree
from sigstore._internal.merkle import verify_merkle_inclusion
from sigstore.errors import VerificationError
from web3 import Web3

from benchmarks.gas import Federation
from fl_node.chains import DevChain


@dataclass(frozen=True)
class History:
    """Raw preimages in order of entry, and the contract's root after each transaction, by size."""

    entries: list[bytes]
    roots: dict[int, bytes]


@pytest.fixture(scope="module")
def history() -> History:
    """Seven rounds of updates and attestations on Anvil: 1 opening, 4 admissions, 4 announcements, 57 others."""
    with DevChain.start("anvil") as chain:
        web3 = Web3(Web3.HTTPProvider(chain.rpc_url))
        federation = Federation.deploy(web3)
        federation.play(7)
        contract = federation.contract
        logs = web3.eth.get_logs({"address": contract.address, "fromBlock": 0})
        roots: dict[int, bytes] = {}
        for block in range(logs[0]["blockNumber"], web3.eth.block_number + 1):
            size = contract.functions.size().call(block_identifier=block)
            roots[size] = contract.functions.root().call(block_identifier=block)
    entries = [b"".join(bytes(topic) for topic in log["topics"]) + bytes(log["data"]) for log in logs]
    return History(entries, roots)


def test_the_logs_are_all_the_entries(history: History) -> None:
    assert len(history.entries) == max(history.roots) == 66
    assert sorted(history.roots) == list(range(5, 67))


def test_pymerkle_has_the_same_root_at_every_size(history: History) -> None:
    tree = InmemoryTree(algorithm="sha256")
    for entry in history.entries:
        tree.append_entry(entry)
        if tree.get_size() in history.roots:
            assert tree.get_root() == history.roots[tree.get_size()]


def _proof(entries: list[bytes], index: int) -> list[bytes]:
    """RFC 6962, section 2.1.1, as written there."""
    if len(entries) == 1:
        return []
    split = 1 << (len(entries) - 1).bit_length() - 1
    if index < split:
        return [*_proof(entries[:split], index), _root(entries[split:])]
    return [*_proof(entries[split:], index - split), _root(entries[:split])]


def _root(entries: list[bytes]) -> bytes:
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    split = 1 << (len(entries) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + _root(entries[:split]) + _root(entries[split:])).digest()


def _accepted_by_sigstore(entry: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> bool:
    # What the verifier reads of a transparency log's entry, and no more.
    proven = SimpleNamespace(log_index=index, tree_size=size, root_hash=root, hashes=proof)
    logged = SimpleNamespace(_inner=SimpleNamespace(canonicalized_body=entry, inclusion_proof=proven))
    try:
        verify_merkle_inclusion(logged)  # type: ignore[arg-type]
    except VerificationError:
        return False
    return True


@pytest.mark.parametrize("size", [5, 8, 21, 64, 66])
def test_sigstore_accepts_every_entry_under_the_contracts_root(history: History, size: int) -> None:
    entries, root = history.entries[:size], history.roots[size]
    for index, entry in enumerate(entries):
        proof = _proof(entries, index)
        assert _accepted_by_sigstore(entry, index, size, proof, root)
        assert not _accepted_by_sigstore(entry + b"\x00", index, size, proof, root)
        assert not _accepted_by_sigstore(entry, (index + 1) % size, size, proof, root)
        assert not _accepted_by_sigstore(entry, index, size, proof, hashlib.sha256(root).digest())
