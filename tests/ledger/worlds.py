"""Ledgers to test against: the one in memory and real chains, behind one face."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fl_node import keys
from fl_node.chains import FUNDERS, DevChain, call, set_balance
from fl_node.ledger.deploy import Deployed, Opening, deploy
from fl_node.ledger.memory import MemoryChain, memory_account
from fl_node.ledger.protocol import Ledger
from fl_node.ledger.rpc import RpcLedger
from fl_node.ledger.sender import Patience
from fl_node.ledger.transport import Rpc
from fl_node.records import Flag, LedgerHead, Member, Parent, Role, Update, UpdatePublished

ETHER = 10**18
SPEC, CONTENT, WEIGHTS = (bytes([n]) * 32 for n in (1, 2, 3))
QUICK = Patience(bump_s=30.0, resend_s=0.5, deadline_s=20.0, poll_most_s=0.1)


@dataclass
class World:
    """One fresh ledger: the owner (no member), members 1 to n, and a funded outsider."""

    kind: str
    owner: Ledger
    members: list[Ledger]
    outsider: Ledger
    chain: DevChain | MemoryChain
    deployed: Deployed | None = None
    signers: list[keys.Signer] = field(default_factory=list)

    def mine(self) -> None:
        """An empty block."""
        if isinstance(self.chain, MemoryChain):
            self.chain.mine()
        else:
            call(self.chain.rpc_url, "evm_mine")

    def close(self) -> None:
        for ledger in [self.owner, *self.members, self.outsider]:
            if isinstance(ledger, RpcLedger):
                ledger.close()


def memory_world(roles: Sequence[Role], min_interval_s: int = 0) -> World:
    members = [Member(memory_account(n + 1), f"site-{n + 1}", role) for n, role in enumerate(roles)]
    chain = MemoryChain(
        members,
        spec_digest=SPEC,
        genesis_content=CONTENT,
        genesis_weights=WEIGHTS,
        genesis_flags=Flag.DAG_PB,
        min_interval_s=min_interval_s,
    )
    ledgers: list[Ledger] = [chain.ledger(member.account) for member in members]
    return World("memory", chain.ledger(), ledgers, chain.ledger(memory_account(99)), chain)


def chain_world(
    chain: DevChain,
    roles: Sequence[Role],
    min_interval_s: int = 0,
    state: Path | None = None,
    url: str | None = None,
    patience: Patience = QUICK,
) -> World:
    """Deploy a fresh ledger with fresh, funded keys. ``url`` puts something between the ledgers and the chain."""
    url = url or chain.rpc_url
    signers = [funded_signer(chain) for _ in range(len(roles) + 2)]
    owner, outsider, *peers = signers
    members = [
        Member(signer.address, f"site-{n + 1}", role) for n, (signer, role) in enumerate(zip(peers, roles, strict=True))
    ]
    opening = Opening(SPEC, CONTENT, WEIGHTS, Flag.DAG_PB, min_interval_s, owner.address, members)
    made = deploy(Rpc(chain.rpc_url), owner, opening)

    def ledger(signer: keys.Signer) -> RpcLedger:
        folder = None if state is None else state / signer.address
        return RpcLedger(made.deployment, SPEC, signer, folder, Rpc(url), patience)

    ledgers: list[Ledger] = [ledger(signer) for signer in peers]
    return World(chain.kind, ledger(owner), ledgers, ledger(outsider), chain, made, peers)


def funded_signer(chain: DevChain, wei: int = 100 * ETHER) -> keys.Signer:
    signer = keys.from_private_key(secrets.token_bytes(32))
    set_balance(chain.rpc_url, chain.kind, signer.address, wei)
    return signer


def dev_signer(number: int) -> keys.Signer:
    return keys.from_private_key(FUNDERS[number][1])


def an_update(head: LedgerHead, sequence: int, round_: int, **changes: object) -> Update:
    """A valid update that has seen everything, with random digests."""
    fields: dict[str, object] = {
        "content": os.urandom(32),
        "flags": Flag.DAG_PB,
        "weights": os.urandom(32),
        "base": os.urandom(32),
        "report": os.urandom(32),
        "seen": head.size,
        "seen_root": head.root,
        "sequence": sequence,
        "round": round_,
        "score_ppm": 912_345,
        "base_score_ppm": 900_001,
        "train_samples": 1200,
        "test_samples": 300,
        "rule": 1,
        "refers_to": 0,
        "sealed_at": 0,
        "extra": b"",
    }
    return Update(**(fields | changes))  # type: ignore[arg-type]


def shared(published: Sequence[UpdatePublished]) -> tuple[Parent, ...]:
    """Parents with equal shares, the rest of the million on the first."""
    ordered = sorted(published, key=lambda body: (body.peer, body.update.sequence))
    share = 1_000_000 // len(ordered)
    first = 1_000_000 - share * (len(ordered) - 1)
    return tuple(
        Parent(body.peer, body.update.sequence, body.update.content[:4], share if n else first)
        for n, body in enumerate(ordered)
    )
