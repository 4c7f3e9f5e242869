"""What the ledger costs: gas of real transactions on a development chain, medians over a federation in full use.

    python -m benchmarks.gas [--rounds 251] [--chain anvil]

Four peers publish an update with three parents each per round and attest the three other peers' updates: random
digests, real parents with real tags, as a node writes them. Writes ``benchmarks/results/gas.json`` and ``gas.md``.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shlex
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from web3 import Web3
from web3.contract import Contract

from fl_node.chains import KINDS, ChainKind, DevChain

RESULTS = Path(__file__).resolve().parent / "results"
ARTIFACT = Path(__file__).resolve().parent.parent / "fl_node" / "ledger" / "artifact" / "ModelLedger.json"
PEERS = 4
LIMITS = {"publish, 3 parents": 112_000, "attest, 3 items": 75_000}
SHARES = (333_334, 333_333, 333_333)


@dataclass
class Federation:
    """A deployed ledger with four peers, and the gas of everything done to it, by kind."""

    web3: Web3
    contract: Contract
    accounts: list[str]
    gas: dict[str, list[int]]

    @classmethod
    def deploy(cls, web3: Web3) -> Federation:
        artifact = json.loads(ARTIFACT.read_text(encoding="utf-8"))
        owner, *others = web3.eth.accounts
        accounts = list(others[:PEERS])
        factory = web3.eth.contract(abi=artifact["abi"], bytecode=artifact["bytecode"])
        members = [(account, secrets.token_bytes(32), 7) for account in accounts]
        arguments = (secrets.token_bytes(32), secrets.token_bytes(32), secrets.token_bytes(32), 0, 0, owner, members)
        receipt = web3.eth.wait_for_transaction_receipt(
            factory.constructor(*arguments).transact({"from": owner, "gas": 12_000_000})
        )
        contract = web3.eth.contract(address=receipt["contractAddress"], abi=artifact["abi"])
        return cls(web3, contract, accounts, {"deploy, 4 members": [receipt["gasUsed"]]})

    def send(self, kind: str, sender: str, function: Any) -> None:
        receipt = self.web3.eth.wait_for_transaction_receipt(function.transact({"from": sender, "gas": 1_000_000}))
        if receipt["status"] != 1:
            raise RuntimeError(f"{kind} failed in {receipt['transactionHash'].hex()}")
        self.gas.setdefault(kind, []).append(receipt["gasUsed"])

    def play(self, rounds: int) -> None:
        """Announce, then publish and attest, round after round."""
        functions = self.contract.functions
        for account in self.accounts:
            endpoint = "https://peer.example.org:4101"
            self.send("announce", account, functions.announce(1, _digest(), _digest(), endpoint))
        latest: dict[int, bytes] = {}
        size = 1 + 2 * PEERS
        for turn in range(1, rounds + 1):
            # What a peer merges: its own and two others' latest updates of the round before.
            merged = dict(latest)
            for number, account in enumerate(self.accounts, start=1):
                left_out = number % PEERS + 1
                parents = [
                    (peer, turn - 1, content[:4], SHARES[position])
                    for position, (peer, content) in enumerate(
                        (peer, content) for peer, content in sorted(merged.items()) if peer != left_out
                    )
                ]
                content = _digest()
                self.send(
                    f"publish, {len(parents)} parents",
                    account,
                    functions.publish(_update(content, size, turn), parents),
                )
                latest[number] = content
                size += 1
            for number, account in enumerate(self.accounts, start=1):
                items = [(peer, turn, _score(), _score()) for peer in range(1, PEERS + 1) if peer != number]
                self.send("attest, 3 items", account, functions.attest(_digest(), items))
                size += 1
        other = [(1, rounds)]
        for peer, sequence in other:
            self.send("object", self.accounts[1], functions.object(peer, sequence, 1, _digest()))


def _digest() -> bytes:
    return secrets.token_bytes(32)


def _score() -> int:
    return 500_000 + secrets.randbelow(500_000)


def _update(content: bytes, seen: int, turn: int) -> tuple[object, ...]:
    samples = 1_000 + secrets.randbelow(100_000)
    return (
        *(content, 0, 0, 0, _digest(), _digest(), _digest(), seen, _digest(), 0),
        *(turn, turn, _score(), _score(), samples, samples // 5, 1, b""),
    )


def summarise(gas: dict[str, list[int]]) -> dict[str, dict[str, int | None]]:
    """Per kind: count, median, least, greatest, and the limit where there is one."""
    return {
        kind: {
            "count": len(values),
            "median": round(statistics.median(values)),
            "least": min(values),
            "greatest": max(values),
            "limit": LIMITS.get(kind),
        }
        for kind, values in gas.items()
    }


def as_markdown(report: dict[str, Any]) -> str:
    lines = [
        "# Gas",
        "",
        f"`{report['command']}`: real transactions on {report['chain']}, {report['seconds']:.0f} s, "
        f"{report['entries']} entries, random digests, real parents.",
        "",
        "| transaction | count | median | least | greatest | limit |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for kind, row in report["gas"].items():
        limit = f"{row['limit']:,}" if row["limit"] else ""
        lines.append(
            f"| {kind} | {row['count']:,} | {row['median']:,} | {row['least']:,} | {row['greatest']:,} | {limit} |"
        )
    return "\n".join([*lines, ""])


def run(rounds: int, kind: ChainKind, *, write: bool = True) -> dict[str, Any]:
    """Play a federation and report; see the module."""
    started = time.monotonic()
    with DevChain.start(kind) as chain:
        federation = Federation.deploy(Web3(Web3.HTTPProvider(chain.rpc_url)))
        federation.play(rounds)
        entries = federation.contract.functions.size().call()
    report = {
        "command": shlex.join(["python", "-m", "benchmarks.gas", "--rounds", str(rounds), "--chain", kind]),
        "chain": kind,
        "entries": entries,
        "seconds": round(time.monotonic() - started, 1),
        "gas": summarise(federation.gas),
    }
    if write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "gas.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "gas.md").write_text(as_markdown(report), encoding="utf-8")
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=251, help="rounds of four updates and four attestations")
    parser.add_argument("--chain", choices=KINDS, default="anvil")
    parser.add_argument("--dry-run", action="store_true", help="measure and print, but write no file")
    arguments = parser.parse_args()
    report = run(arguments.rounds, arguments.chain, write=not arguments.dry_run)
    print(as_markdown(report))
    over = [kind for kind, row in report["gas"].items() if row["limit"] and row["median"] > row["limit"]]
    for kind in over:
        print(f"{kind}: over its limit", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
