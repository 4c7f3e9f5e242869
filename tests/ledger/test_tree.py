"""The tree against RFC 6962's definition, pymerkle's roots and sigstore's verifier."""

from __future__ import annotations

import functools
import hashlib
from types import SimpleNamespace

import pymerkle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sigstore._internal import merkle as sigstore_merkle
from sigstore.errors import VerificationError

from fl_node.ledger import tree

PREIMAGES = [bytes([n]) * (n % 70) + n.to_bytes(4, "big") for n in range(200)]
LEAVES = [tree.leaf_hash(raw) for raw in PREIMAGES]

# RFC 6962 test vectors of Google's certificate-transparency implementation: eight leaves, roots at sizes 1 to 8.
VECTOR_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
VECTOR_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@functools.cache
def subtree(level: int, position: int) -> bytes:
    if level == 0:
        return LEAVES[position]
    return tree.node_hash(subtree(level - 1, 2 * position), subtree(level - 1, 2 * position + 1))


def by_definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    split = max(1 << k for k in range(10) if 1 << k < len(leaves))
    return tree.node_hash(by_definition(leaves[:split]), by_definition(leaves[split:]))


def test_published_vectors() -> None:
    leaves = [tree.leaf_hash(bytes.fromhex(leaf)) for leaf in VECTOR_LEAVES]
    assert [tree.root(leaves[:size]).hex() for size in range(1, 9)] == VECTOR_ROOTS
    assert tree.root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_roots_agree_with_the_definition_at_every_size() -> None:
    for size in range(len(LEAVES) + 1):
        expected = by_definition(LEAVES[:size])
        assert tree.root(LEAVES[:size]) == tree.root_at(size, subtree) == expected
        grown = tree.Grown(LEAVES[:size])
        assert grown.size == size and tree.root_at(size, grown.subtree) == expected
        assert all(grown.subtree(*peak) == subtree(*peak) for peak in tree.peaks(size))
        frontier = tree.Frontier.at(size, subtree)
        assert frontier.root == expected
        if size < len(LEAVES):
            frontier.append(LEAVES[size])
            assert frontier.root == by_definition(LEAVES[: size + 1])


def test_roots_agree_with_pymerkle() -> None:
    theirs = pymerkle.InmemoryTree(algorithm="sha256")
    for size, preimage in enumerate(PREIMAGES, start=1):
        theirs.append_entry(preimage)
        assert theirs.get_root() == tree.root(LEAVES[:size])


def test_appending_names_the_subtrees_it_completes() -> None:
    frontier, known = tree.Frontier(), {}
    for leaf in LEAVES:
        for level, position, node in frontier.append(leaf):
            known[level, position] = node
    assert known == {(level, position): subtree(level, position) for level, position in known}
    assert len(known) == sum(len(LEAVES) >> level for level in range(1, 8))


def entry(index: int, size: int, proof: list[bytes], root: bytes, body: bytes) -> SimpleNamespace:
    """What sigstore's verifier reads of a transparency log entry."""
    inclusion = SimpleNamespace(log_index=index, tree_size=size, hashes=proof, root_hash=root)
    return SimpleNamespace(_inner=SimpleNamespace(inclusion_proof=inclusion, canonicalized_body=body))


def accepted_by_sigstore(index: int, size: int, proof: list[bytes], root: bytes, body: bytes) -> bool:
    try:
        sigstore_merkle.verify_merkle_inclusion(entry(index, size, proof, root, body))  # type: ignore[arg-type]
    except VerificationError:
        return False
    return True


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 13, 40])
def test_inclusion_proofs_convince_sigstore_and_tampered_ones_nobody(size: int) -> None:
    root = tree.root(LEAVES[:size])
    for index in range(size):
        proof = tree.inclusion_proof(index, size, subtree)
        assert tree.verify_inclusion(LEAVES[index], index, size, proof, root)
        assert accepted_by_sigstore(index, size, proof, root, PREIMAGES[index])
        for bad in ([*proof, bytes(32)], proof[:-1], [bytes(32), *proof[1:]]):
            if bad != proof:
                assert not tree.verify_inclusion(LEAVES[index], index, size, bad, root)
                assert not accepted_by_sigstore(index, size, bad, root, PREIMAGES[index])
        assert not tree.verify_inclusion(LEAVES[index + 1], index, size, proof, root)


@given(st.data())
def test_a_proof_is_of_one_place_only(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(LEAVES)))
    index = data.draw(st.integers(0, size - 1))
    proof, root = tree.inclusion_proof(index, size, subtree), tree.root_at(size, subtree)
    assert len(proof) <= size.bit_length()
    other = data.draw(st.integers(-2, size + 2))
    assert tree.verify_inclusion(LEAVES[index], other, size, proof, root) == (other == index)


@given(st.data())
def test_consistency_proofs_bind_both_roots_and_sizes(data: st.DataObject) -> None:
    new = data.draw(st.integers(1, len(LEAVES)))
    old = data.draw(st.integers(1, new))
    roots = [tree.root_at(size, subtree) for size in (old, new)]
    proof = tree.consistency_proof(old, new, subtree)
    assert tree.verify_consistency(old, new, roots[0], roots[1], proof)
    assert not tree.verify_consistency(old, new, bytes(32), roots[1], proof)
    assert not tree.verify_consistency(old, new, roots[0], bytes(32), proof) or old == new
    assert not tree.verify_consistency(old, new, roots[0], roots[1], [*proof, bytes(32)])
    if proof:
        position = data.draw(st.integers(0, len(proof) - 1))
        proof[position] = bytes(32)
        assert not tree.verify_consistency(old, new, roots[0], roots[1], proof)


def test_nothing_is_a_prefix_of_everything() -> None:
    assert tree.verify_consistency(0, 5, tree.EMPTY_ROOT, tree.root(LEAVES[:5]), [])
    assert not tree.verify_consistency(0, 5, bytes(32), tree.root(LEAVES[:5]), [])
    for refused in (lambda: tree.inclusion_proof(3, 3, subtree), lambda: tree.consistency_proof(0, 3, subtree)):
        with pytest.raises(ValueError, match="expected"):
            refused()
    with pytest.raises(ValueError, match="expected 2"):
        tree.Frontier(3, [bytes(32)])
