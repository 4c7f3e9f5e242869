"""A real federation on a real chain: contract, keys, shards and folders, ready for `fl-node run`."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offspring import Run
from replay import Replay

from fl_node import keys
from fl_node.chains import FUNDERS, DevChain
from fl_node.config import write_config
from fl_node.content.blockstore import Blockstore
from fl_node.content.cid import Cid
from fl_node.deployment import open_federation, write_genesis
from fl_node.key_keeping import Secrecy
from fl_node.learning.data import load
from fl_node.learning.partition import partition
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.rpc import RpcLedger, RpcReader
from fl_node.ledger.transport import Rpc
from fl_node.merging import weights
from fl_node.records import Entry, Member
from fl_node.spec import Federation, genesis_path, parse_federation, read_federation

PASSWORD = "of a test"
SPEC: dict[str, dict[str, Any]] = {
    "training": {"learning_rate": 0.5, "epochs": 1},
    "rounds": {"planned": 2, "linger_s": 10.0},
    "content": {"allow_networks": ["127.0.0.0/8"], "fetch_timeout_s": 5.0},
    "privacy": {"key_wait_s": 0.0},  # members of a test need not all be up
}
#: For tests whose members are written by hand, or are never up together.
CLEAR = {"encrypt": False}


def toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["format = 1", 'name = "test"']
    for name, table in tables.items():
        lines += [f"\n[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Consortium:
    """``states[n - 1]`` is the folder of peer n; ``file`` the deployed federation file."""

    chain: DevChain
    folder: Path
    file: Path
    federation: Federation
    states: list[Path]
    owner: keys.Signer

    def run(self, peer: int, *argv: str, fault: str = "", given: tuple[Any, ...] = (), **environment: str) -> Run:
        """`fl-node run --json` as this peer."""
        state = self.states[peer - 1]
        given_environment = {"FL_NODE_PASSWORD": PASSWORD, "TRAININGS": str(state / "trainings"), **environment}
        return Run(state / "runs", ["run", "--json", "--state", str(state), *argv], fault, *given, **given_environment)

    def trainings(self, peer: int) -> list[int]:
        path = self.states[peer - 1] / "trainings"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def ledger(self, signer: keys.Signer) -> RpcLedger:
        assert self.federation.deployment is not None
        return RpcLedger(self.federation.deployment, self.federation.digest, signer)

    def peer_ledger(self, peer: int) -> RpcLedger:
        return self.ledger(keys.load(self.states[peer - 1] / "key.json", PASSWORD))

    def entries(self) -> list[Entry]:
        assert self.federation.deployment is not None
        reader = RpcReader(self.federation.deployment, self.federation.digest)
        with LedgerIndex(":memory:", reader) as index:
            index.sync()
            return index.entries()

    def replay(self) -> Replay:
        genesis = weights.decode(genesis_path(self.file).read_bytes()).tensors
        return Replay(self.federation.spec, self.entries(), genesis, self.read, self.opener())

    def announce_keys(self) -> None:
        """Every member's key, so that whoever publishes first publishes for all."""
        for state in self.states:
            signer = keys.load(state / "key.json", PASSWORD)
            ledger = self.ledger(signer)
            ledger.announce(1, Secrecy.of(state, signer).recipient(), bytes(32), "http://127.0.0.1:9")
            ledger.close()

    def opener(self, peer: int = 1) -> Secrecy | None:
        """The keys of a peer; none where nothing is encrypted."""
        state = self.states[peer - 1]
        return (
            Secrecy.of(state, keys.load(state / "key.json", PASSWORD)) if self.federation.spec.privacy.encrypt else None
        )

    def read(self, cid: Cid) -> bytes:
        for state in self.states:
            store = Blockstore(state / "content")
            try:
                if store.has(cid):
                    return bytes(store.get(cid, 1 << 30))
            finally:
                store.close()
        raise AssertionError(f"no peer has {cid}")


def found(
    folder: Path, chain: DevChain, peers: int = 2, fund_wei: int = 10**18, rpc: str = "", **tables: Mapping[str, Any]
) -> Consortium:
    """Deploy a federation; peers 1 to n are admitted and funded, and each has a shard of the digits."""
    merged = {name: {**SPEC.get(name, {}), **tables.get(name, {})} for name in SPEC | tables}
    spec = toml(merged).encode()
    federation = parse_federation(spec)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "federation.toml"
    states = [folder / f"site-{n}" for n in range(1, peers + 1)]
    members = [Member(keys.create(state / "key.json", PASSWORD, light=True).address, state.name) for state in states]
    owner = keys.from_private_key(FUNDERS[0][1])
    genesis = write_genesis(federation.spec, genesis_path(file))
    open_federation(federation, Rpc(chain.rpc_url), owner, genesis, members=members, out=file, fund_wei=fund_wei)
    rows = load("digits", federation.spec.task, None, part="train")
    for state, share in zip(states, partition(rows.labels, peers, "iid", 0), strict=True):
        rows.rows(share).save(state / "data.npz")
        configure(state, file, rpc=rpc)
    return Consortium(chain, folder, file, read_federation(file), states, owner)


def configure(state: Path, file: Path, **values: Any) -> None:
    """The peer's node.toml."""
    settings = {
        "federation": str(file),
        "data": f"npz:{state / 'data.npz'}",
        "device": "cpu",
        "threads": 1,
        "poll_s": 0.05,
        "retry_s": 15.0,
    }
    write_config(state / "node.toml", {key: value for key, value in {**settings, **values}.items() if value != ""})
