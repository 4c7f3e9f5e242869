"""The same federation over a real chain: every peer writes with a key of its own to a contract on Anvil."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from fl_node import keys
from fl_node.chains import FUNDERS, DevChain, set_balance
from fl_node.deployment import open_federation, write_genesis
from fl_node.errors import UsageError
from fl_node.ledger.rpc import RpcLedger
from fl_node.ledger.transport import Rpc
from fl_node.peer import CLOCK_MARGIN_S
from fl_node.records import Member
from fl_node.simulation.deal import Dealt
from fl_node.simulation.faults import Cast
from fl_node.simulation.federation import World, put_together, site_of
from fl_node.spec import Federation

#: A key for each, and a block for each entry: beyond this the wait is for the chain alone.
MOST_PEERS = 64
_FUND_WEI = 10 * 10**18
_PAUSE_S = 0.05


@dataclass(slots=True)
class WallClock:
    """A real chain's blocks have the real time; waiting for it is real."""

    def __call__(self) -> float:
        return time.time() - CLOCK_MARGIN_S

    def advance(self, seconds: float) -> None:
        """Let a little time pass, if there is nothing to do but wait."""
        if seconds > 0:
            time.sleep(min(seconds, _PAUSE_S))


@contextmanager
def on_anvil(federation: Federation, dealt: Dealt, cast: Cast) -> Iterator[World]:
    """A federation over :class:`RpcLedger`, its founding members in play; the chain is gone on leaving.

    Raises:
        UsageError: too many peers, or Anvil is not installed.
        LedgerError: the deployment failed.
    """
    if len(dealt.splits) > MOST_PEERS:
        raise UsageError(
            f"--ledger anvil with {len(dealt.splits)} peers: expected at most {MOST_PEERS}; use --ledger memory"
        )
    spec = federation.spec
    signers = {number: _signer(cast.seed, number) for number in range(1, len(dealt.splits) + 1)}
    founders = [number for number in signers if number not in cast.joins]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="fl-node-simulation-")))
        chain = stack.enter_context(DevChain.start("anvil"))
        deployer = keys.from_private_key(FUNDERS[0][1])
        opened = open_federation(
            federation,
            Rpc(chain.rpc_url),
            deployer,
            write_genesis(spec, folder / "genesis.safetensors"),
            members=[Member(signers[number].address, site_of(number)) for number in founders],
        )
        deployment = opened.federation.deployment
        assert deployment is not None
        deployment = deployment.model_copy(update={"rpc": chain.rpc_url})
        ledgers: dict[int, RpcLedger] = {}
        for number, signer in signers.items():
            set_balance(chain.rpc_url, "anvil", signer.address, _FUND_WEI)
            ledgers[number] = RpcLedger(deployment, federation.digest, signer)
            stack.callback(ledgers[number].close)
        owner = RpcLedger(deployment, federation.digest, deployer)
        stack.callback(owner.close)
        yield put_together(federation, dealt, cast, WallClock(), owner, ledgers.__getitem__, founders)


def _signer(seed: int, number: int) -> keys.Signer:
    """A key that anybody can derive, for a chain that is gone when the simulation ends."""
    return keys.from_private_key(hashlib.sha256(f"fl-node simulation key {seed} {number}".encode()).digest())
