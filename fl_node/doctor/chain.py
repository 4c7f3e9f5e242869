"""What a peer needs of the chain, and of the contract there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from fl_node.config import NodeConfig
from fl_node.doctor.finding import Finding, checked
from fl_node.errors import FlNodeError, KeystoreError
from fl_node.ledger.deploy import check_code
from fl_node.ledger.rpc import RpcReader
from fl_node.ledger.transport import Rpc, place_of
from fl_node.merging.fit import check_fit
from fl_node.own_trainings import own_address
from fl_node.records import Role
from fl_node.spec import Deployment, Federation, Spec

_ENOUGH_UPDATES = 100
_GAS_PER_UPDATE = 150_000
_CLOCK_S = 30.0


def chain_findings(config: NodeConfig, federation: Federation, deployment: Deployment) -> Iterator[Finding]:
    """The chain, the contract there, and what it has of this peer."""
    mend = f"start the chain, or name another endpoint with --rpc (got {place_of(deployment.rpc)})"
    finding, rpc = checked("chain", lambda: Rpc(deployment.rpc, timeout_s=5.0), mend)
    latest = None
    if rpc is not None:
        finding, latest = checked("chain", partial(rpc.call, "eth_getBlockByNumber", "latest", False), mend)
    yield finding
    if rpc is None or latest is None:
        for name in ("code", "spec", "policies", "membership", "balance", "clock"):
            yield Finding(name, "unknown", "needs the chain")
        return
    mend = "the federation file names another contract or chain: get the right file, or the right endpoint"
    yield checked("code", partial(check_code, rpc, deployment.contract), mend)[0]
    finding, reader = checked("spec", partial(RpcReader, deployment, federation.digest, rpc), mend)
    yield finding
    if reader is None:
        for name in ("policies", "membership", "balance"):
            yield Finding(name, "unknown", "needs the ledger")
    else:
        yield _policies(federation.spec, reader)
        yield _membership(config, reader)
        yield _balance(config, rpc)
    yield _clock(int(latest["timestamp"], 16))


def _policies(spec: Spec, reader: RpcReader) -> Finding:
    """Whether the spec's selection and aggregation fit the members that there are now."""
    mend = "ask the coordinator to admit the peers that the spec is made for, or to deploy a spec for those there are"
    finding, warnings = checked(
        "policies",
        lambda: check_fit(
            spec, [peer.number for peer in reader.peers() if peer.retired_from is None and peer.roles & Role.PUBLISH]
        ),
        mend,
    )
    return Finding("policies", "ok", "; ".join(("can work", *warnings))) if warnings else finding


def _membership(config: NodeConfig, reader: RpcReader) -> Finding:
    """Whether the key in the state folder may publish: a retired peer finds out here, not when it starts."""
    try:
        address = own_address(config)
        state = reader.peer_of(address)
    except FlNodeError as error:
        return Finding("membership", "unknown", str(error), "make a key with `fl-node init`")
    if state is None:
        return Finding(
            "membership",
            "failed",
            f"{address} is not a member of this federation",
            f"give the address to the coordinator, who runs `fl-node admit {address} --site SITE`",
        )
    who = f"peer {state.number} of site {state.site}"
    if state.retired_from is not None:
        return Finding(
            "membership",
            "failed",
            f"{who} is retired: its entries from {state.retired_from} on do not count",
            "make a new key with `fl-node init` and ask the coordinator to admit it for your site",
        )
    if not state.roles & Role.PUBLISH:
        return Finding("membership", "failed", f"{who} may not publish", "ask the coordinator for that role")
    return Finding("membership", "ok", who)


def _balance(config: NodeConfig, rpc: Rpc) -> Finding:
    try:
        address = own_address(config)
    except KeystoreError as error:
        return Finding("balance", "unknown", str(error), "make one with `fl-node init`")
    try:
        wei, price = int(rpc.call("eth_getBalance", address, "latest"), 16), int(rpc.call("eth_gasPrice"), 16)
    except FlNodeError as error:
        return Finding("balance", "unknown", str(error))
    updates = wei // max(1, price * _GAS_PER_UPDATE)
    message = f"{address} has {wei / 10**18:.4f} ETH: enough for about {min(updates, 10**9):,} updates at today's price"
    if updates >= _ENOUGH_UPDATES:
        return Finding("balance", "ok", message)
    return Finding("balance", "failed", message, f"send some funds to {address}")


def _clock(block_time_s: int) -> Finding:
    ahead = block_time_s - time.time()
    if ahead > _CLOCK_S:
        return Finding(
            "clock",
            "failed",
            f"the chain's newest block is {ahead:.0f} s ahead of this machine's clock",
            "set this machine's clock, by NTP: deadlines are counted in block time",
        )
    return Finding("clock", "ok", f"newest block {-ahead:.0f} s ago; not behind the chain's time")
