"""A ledger with a long log, served over JSON-RPC on this machine as an Ethereum node would: ``python -m
benchmarks.log_server ENTRIES [PEERS]`` prints where, and stops when its standard input ends.

The entries are of a :class:`MemoryChain`, so the contract's rules took them and their bytes are the contract's own: of
each round every peer publishes an update with six parents and attests three others; now and then one objects.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fl_node.ledger import views
from fl_node.ledger.abi import address_bytes
from fl_node.ledger.memory import MemoryChain, memory_account
from fl_node.records import Attestation, Flag, Member, Parent, Reason, Update, UpdateRef

PEERS = 20
PARENTS = 6
_SHARES = (166_667, 166_667, 166_667, 166_667, 166_666, 166_666)


def digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def busy_chain(entries: int, peers: int = PEERS) -> MemoryChain:
    """A chain whose log has so many entries, one in a block."""
    members = [Member(memory_account(n), f"site-{n}") for n in range(1, peers + 1)]
    chain = MemoryChain(members, spec_digest=digest("spec"), genesis_content=digest("genesis"), clock=lambda: 1.7e9)
    ledgers = [chain.ledger(member.account) for member in members]
    size, round_ = 1 + peers, 0
    while size < entries:
        round_ += 1
        seen = chain.tip().head
        for peer, ledger in enumerate(ledgers, 1):
            others = sorted((peer + 3 * step) % peers + 1 for step in range(PARENTS)) if round_ > 1 else []
            parents = [
                Parent(other, round_ - 1, digest("content", other, round_ - 1)[:4], share)
                for other, share in zip(others, _SHARES, strict=False)
            ]
            told = [digest(what, peer, round_) for what in ("content", "weights", "base", "report")]
            place = seen.size, seen.root, round_, round_
            ledger.publish(Update(told[0], Flag(0), *told[1:], *place, 900_000, 890_000, 1000, 200, 1), parents)
            size += 1
            if size == entries:
                return chain
        for peer, ledger in enumerate(ledgers, 1):
            items = [Attestation((peer + step) % peers + 1, round_, 880_000, 870_000) for step in range(3)]
            ledger.attest(bytes(32), items)
            size += 1
            if size == entries:
                return chain
        if round_ % 2:
            target = UpdateRef(round_ % peers + 1, round_)
            ledgers[(round_ + 7) % peers].object(target, Reason.UNAVAILABLE)
            size += 1
    return chain


class Node:
    """Answers what a reader of the ledger asks."""

    def __init__(self, chain: MemoryChain) -> None:
        self._chain = chain
        self._tip = chain.tip().number
        self._logs = [[_log(raw) for raw in chain.ledger().logs(number, number)] for number in range(self._tip + 1)]

    def answer(self, method: str, params: list[Any]) -> str:
        """The result, as JSON."""
        known = self._chain.identity
        if method == "eth_getLogs":
            first, last = int(params[0]["fromBlock"], 16), int(params[0]["toBlock"], 16)
            return "[" + ",".join(log for logs in self._logs[first : last + 1] for log in logs) + "]"
        if method == "eth_getBlockByNumber":
            number = self._tip if params[0] == "latest" else int(params[0], 16)
            block = self._chain.block(number)
            if block is None:
                return "null"
            return json.dumps({"number": hex(number), "hash": "0x" + block.hash.hex(), "transactions": []})
        if method == "eth_chainId":
            return json.dumps(hex(known.chain_id))
        if method == "eth_getCode":
            return '"0x60"'
        if method == "eth_call":
            return json.dumps("0x" + self._view(bytes.fromhex(params[0]["data"][2:]), params[1]).hex())
        raise ValueError(method)

    def _view(self, call: bytes, at: str) -> bytes:
        known = self._chain.identity
        if call == views.genesis_call():
            return known.genesis_content + known.genesis_weights + int(known.genesis_flags).to_bytes(32, "big")
        block = self._chain.block(self._tip if at == "latest" else int(at, 16))
        assert block is not None and call == views.state_call()
        numbers = (block.head.highest_round, PEERS, known.min_interval_s, 0, 0, known.chain_id)
        words = [number.to_bytes(32, "big") for number in (block.head.size, *numbers)]
        owner = bytes(12) + address_bytes(self._chain.owner)
        return b"".join([words[0], block.head.root, *words[1:], known.spec_digest, owner])


def _log(raw: Any) -> str:
    return json.dumps(
        {
            "blockNumber": hex(raw.block_number),
            "blockHash": "0x" + raw.block_hash.hex(),
            "transactionHash": "0x" + raw.tx_hash.hex(),
            "topics": ["0x" + topic.hex() for topic in raw.topics],
            "data": "0x" + raw.data.hex(),
            "removed": False,
        },
        separators=(",", ":"),
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    node: Node

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        several = asked if isinstance(asked, list) else [asked]
        told = ",".join(
            f'{{"jsonrpc":"2.0","id":{one["id"]},"result":{self.node.answer(one["method"], one["params"])}}}'
            for one in several
        )
        body = (f"[{told}]" if isinstance(asked, list) else told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *given: object) -> None:
        pass


def main() -> None:
    chain = busy_chain(int(sys.argv[1]), *map(int, sys.argv[2:3]))
    _Handler.node = Node(chain)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"rpc": f"http://127.0.0.1:{server.server_port}", "contract": chain.identity.address}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
