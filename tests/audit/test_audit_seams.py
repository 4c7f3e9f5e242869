"""One suite for each seam of the audit: every source of bytes, of transactions and of blocks answers alike."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fl_node import keys
from fl_node.audit.gateways import GatewayBlobs
from fl_node.audit.means import Blobs, Blocks, Transactions
from fl_node.audit.memory import MemoryBlocks, MemoryTransactions, StoreBlobs
from fl_node.chains import FUNDERS, DevChain
from fl_node.content.blockstore import Blockstore
from fl_node.content.endpoints import parse_endpoint
from fl_node.content.gateway import Gateway
from fl_node.content.memory import MemoryStore
from fl_node.content.unixfs import cid_of
from fl_node.errors import ContentMalformed, ContentUnavailable, LedgerError
from fl_node.ledger.chain_look import RpcBlocks, RpcTransactions
from fl_node.ledger.deploy import Opening, committed_artifact, deploy
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.rpc import RpcReader
from fl_node.ledger.transport import Rpc
from fl_node.records import Entry, Flag
from fl_node.spec import Deployment

pytestmark = pytest.mark.xdist_group("audit-seams")
SMALL, LARGE = b"small" * 100, bytes(range(256)) * 36_000  # the latter goes to disk
FILES = (SMALL, LARGE)


@contextmanager
def of_stores(folder: Path) -> Iterator[Blobs]:
    stores = {1: MemoryStore(), 2: Blockstore(folder / "content")}
    stores[1].add(SMALL)
    stores[2].add(LARGE)
    yield StoreBlobs(stores, asking=True)


@contextmanager
def of_gateways(folder: Path) -> Iterator[Blobs]:
    store = Blockstore(folder / "content")
    for data in FILES:
        store.add(data)
    with Gateway(store) as gateway, Gateway(MemoryStore()) as empty:
        announced = {1: parse_endpoint(gateway.endpoint), 2: parse_endpoint(empty.endpoint)}
        blobs = GatewayBlobs(announced=announced, allow_networks=["127.0.0.0/8"], scratch=folder, timeout_s=10.0)
        yield blobs
        blobs.close()


BLOBS: dict[str, Callable[[Path], AbstractContextManager[Blobs]]] = {"stores": of_stores, "gateways": of_gateways}


@pytest.fixture(params=BLOBS)
def blobs(request: Any, tmp_path: Path) -> Iterator[Blobs]:
    with BLOBS[request.param](tmp_path) as found:
        yield found


@pytest.mark.parametrize("data", FILES, ids=["small", "large"])
def test_bytes_come_whole_and_can_be_read_again_after_they_were_let_go(blobs: Blobs, data: bytes) -> None:
    held = blobs.hold(cid_of(data), len(data))
    assert bytes(held.data) == data
    held.forget()
    assert io.BytesIO(held.data).read(10) == data[:10]


def test_what_nobody_has_is_unavailable(blobs: Blobs) -> None:
    with pytest.raises(ContentUnavailable):
        blobs.hold(cid_of(b"nobody's"), 100)


@pytest.mark.parametrize("data", FILES, ids=["small", "large"])
def test_what_is_too_large_is_refused(blobs: Blobs, data: bytes) -> None:
    with pytest.raises(ContentMalformed):
        blobs.hold(cid_of(data), len(data) - 1)


def test_who_has_it(blobs: Blobs) -> None:
    there, gone = blobs.asked(cid_of(SMALL)), blobs.asked(cid_of(b"nobody's"))
    assert there is not None and len(there.having) == 1 and len(there.lacking) == 1 and not there.silent
    assert gone is not None and not gone.having and len(gone.lacking) == 2


# ---- a chain's transactions and blocks, and the same in memory ------------------------------------------------------


@pytest.fixture(scope="module")
def chain() -> Iterator[tuple[Rpc, str, list[Entry]]]:
    with DevChain.start("anvil") as running:
        rpc = Rpc(running.rpc_url)
        opening = Opening(b"s" * 32, b"c" * 32, b"w" * 32, Flag(0), 0, FUNDERS[0][0], ())
        made = deploy(rpc, keys.from_private_key(FUNDERS[0][1]), opening).deployment
        with LedgerIndex(":memory:", RpcReader(made, None)) as index:
            index.sync()
            yield rpc, made.contract, index.entries()


@pytest.fixture(params=["rpc", "memory"])
def both(request: Any, chain: tuple[Rpc, str, list[Entry]]) -> tuple[Transactions, Blocks, list[Entry]]:
    rpc, contract, entries = chain
    transactions, blocks = RpcTransactions(rpc), RpcBlocks(rpc, contract)
    if request.param == "rpc":
        return transactions, blocks, entries
    raws = transactions.signed([entry.tx_hash for entry in entries])
    known = blocks.of(range(blocks.tip() + 1))
    kept = MemoryBlocks({number: block for number, block in known.items() if block}, blocks.code())
    return MemoryTransactions(raws), kept, entries


def test_transactions_by_hash(both: tuple[Transactions, Blocks, list[Entry]]) -> None:
    transactions, _, entries = both
    hashes = [entry.tx_hash for entry in entries]
    assert set(transactions.signed([*hashes, b"\1" * 32])) == set(hashes)
    assert transactions.signed([]) == {}


def test_blocks_by_number(both: tuple[Transactions, Blocks, list[Entry]]) -> None:
    _, blocks, entries = both
    entry = entries[0]
    found = blocks.of([entry.block_number, 10**6])
    assert found[10**6] is None
    block = found[entry.block_number]
    assert block is not None and block.hash == entry.block_hash and entry.tx_hash in block.transactions
    assert block.time_s == entry.time_s
    assert blocks.tip() >= entry.block_number and blocks.highest_round() == 0
    assert blocks.code() == committed_artifact().deployed


def test_the_contract_as_it_was_at_a_block(chain: tuple[Rpc, str, list[Entry]]) -> None:
    rpc, contract, entries = chain
    deployment = Deployment(chain_id=31337, contract=contract, first_block=entries[0].block_number, rpc=rpc.url)
    reader = RpcReader(deployment, None, rpc)
    assert reader.head_at(entries[0].block_number) == reader.head()
    with pytest.raises(LedgerError, match="has no block 1000000"):
        reader.head_at(10**6)
