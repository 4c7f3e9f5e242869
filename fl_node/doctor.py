"""Checks of everything a peer needs, each with how to mend it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fl_node.access import deployed
from fl_node.budget import Account
from fl_node.config import WILDCARDS, NodeConfig
from fl_node.content.endpoints import parse_endpoint
from fl_node.content.factory import open_store
from fl_node.content.fetch import Fetcher
from fl_node.content.gateway import Gateway
from fl_node.content.memory import MemoryStore
from fl_node.content.tls import NO_PIN, ServerTls
from fl_node.errors import ContentError, FlNodeError, KeystoreError, PortTaken
from fl_node.ledger.abi import address_bytes, checksum_address
from fl_node.ledger.deploy import check_code
from fl_node.ledger.rpc import RpcReader
from fl_node.ledger.transport import Rpc, place_of
from fl_node.merging.fit import check_fit
from fl_node.records import Role
from fl_node.serving import loopback, tls_of
from fl_node.spec import Deployment, Federation, Spec

_ENOUGH_UPDATES = 100
_GAS_PER_UPDATE = 150_000
_DISK_BYTES = 1 << 30
_CLOCK_S = 30.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. ``result``: ``ok``, ``failed``, or ``unknown`` where it could not be made; ``mend``: what to do."""

    name: str
    result: str
    message: str
    mend: str = ""


def examine(config: NodeConfig) -> Iterator[Finding]:
    """All checks in order; later ones are ``unknown`` where they need what an earlier one found missing."""
    opened = _checked("federation file", lambda: deployed(config), "ask your coordinator for the deployed file")
    yield opened[0]
    if opened[1] is None:
        for name in ("chain", "code", "spec", "policies", "membership", "balance"):
            yield Finding(name, "unknown", "needs the federation file")
    else:
        federation, deployment = opened[1]
        yield from _chain(config, federation, deployment)
    yield from _content(config)
    yield _disk(config)
    if opened[1] is not None and opened[1][0].spec.privacy.mechanism != "none":
        yield _privacy(config, *opened[1])


def _privacy(config: NodeConfig, federation: Federation, deployment: Deployment) -> Finding:
    """Whether the account of the privacy budget can be read, and what is spent."""
    asked = federation.spec.privacy
    ledger = f"{deployment.chain_id}/{checksum_address(address_bytes(deployment.contract))}"
    mend = "put the newest copy of privacy.json back, or give the budget up with `fl-node privacy --assume-spent`"
    finding, account = _checked("privacy budget", lambda: Account(config.state_path, ledger), mend)
    if account is None:
        return finding
    rest = "; it was given up, so all of it counts" if account.assumed_spent else ""
    spent = f"epsilon {account.told(asked.epsilon):.4g} of {asked.epsilon:g} spent at delta {asked.delta:g}{rest}"
    return Finding("privacy budget", "ok", f"{spent}, in {len(account.spent)} trainings")


def _chain(config: NodeConfig, federation: Federation, deployment: Deployment) -> Iterator[Finding]:
    rpc = Rpc(deployment.rpc, timeout_s=5.0)
    mend = f"start the chain, or name another endpoint with --rpc (got {place_of(deployment.rpc)})"
    finding, latest = _checked("chain", lambda: rpc.call("eth_getBlockByNumber", "latest", False), mend)
    yield finding
    if latest is None:
        for name in ("code", "spec", "policies", "membership", "balance", "clock"):
            yield Finding(name, "unknown", "needs the chain")
        return
    mend = "the federation file names another contract or chain: get the right file, or the right endpoint"
    yield _checked("code", lambda: check_code(rpc, deployment.contract), mend)[0]
    finding, reader = _checked("spec", lambda: RpcReader(deployment, federation.digest, rpc), mend)
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
    finding, warnings = _checked(
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
        address = _address(config)
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


def _address(config: NodeConfig) -> str:
    """The address of the keystore, which needs no password. Raises KeystoreError if there is none."""
    try:
        told = str(json.loads(config.key_path.read_text())["address"]).removeprefix("0x")
        return checksum_address(address_bytes("0x" + told))
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise KeystoreError(f"no keystore at {config.key_path}: {cause}; make one with `fl-node init`") from cause


def _balance(config: NodeConfig, rpc: Rpc) -> Finding:
    try:
        address = _address(config)
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


def _content(config: NodeConfig) -> Iterator[Finding]:
    folder = config.state_path / "content"
    if config.content == "embedded" and not config.state_path.is_dir():
        yield Finding("content store", "unknown", f"no state folder {config.state_path}", "make it with `fl-node init`")
    else:
        mend = (
            "free some space, or make the folder writable" if config.content == "embedded" else "start the IPFS daemon"
        )
        yield _checked("content store", lambda: _try_store(config, folder), mend)[0]
    # While one tries the port, it can be reached from outside as it will be by the others.
    mend = "the settings tls, tls_cert, tls_key and endpoint must go together: docs/operating.md, TLS"
    finding, found = _checked("gateway TLS", lambda: [tls_of(config)], mend)
    if found is None:
        yield finding
        return
    (tls,) = found
    with ExitStack() as stack:
        mend = "another process has the address, or it is not this machine's: stop it, or choose with --host and --port"
        yield _checked("gateway port", lambda: _listen(config, tls, stack), mend)[0]
        if config.endpoint:
            mend = "the announced URL must reach this peer's gateway from outside: check the URL, proxy, DNS, firewall"
            yield _checked("endpoint", lambda: _reach(config.endpoint, tls), mend)[0]


def _listen(config: NodeConfig, tls: ServerTls | None, stack: ExitStack) -> str:
    try:
        gateway = stack.enter_context(Gateway(MemoryStore(), config.host, config.port, tls=tls))
    except PortTaken:
        if config.port and config.host not in WILDCARDS:
            host = f"[{config.host}]" if ":" in config.host else config.host
            url = f"{'http' if tls is None else 'https'}://{host}:{config.port}"
            with suppress(FlNodeError):
                return f"in use by a gateway that {_reach(url, tls)}: is this peer running?"
        raise
    if tls is None and not loopback(config.host):
        return f"free: {gateway.endpoint}, in the clear: reports and who asks for what can be read on the way (tls)"
    return f"free: {gateway.endpoint}"


def _try_store(config: NodeConfig, folder: Path) -> str:
    store = open_store(config.content, folder, config.ipfs_api)
    try:
        probe = f"fl-node doctor {time.time_ns()}".encode()
        cid = store.add(probe, label="doctor")
        if bytes(store.get(cid, 1 << 10)) != probe:
            raise FlNodeError("the store gave back other bytes than it was given")
        store.unpin(cid, "doctor")
    finally:
        store.close()
    return "wrote and read back a probe"


def _reach(url: str, tls: ServerTls | None = None) -> str:
    """Ask for what every gateway has, the block of no bytes, as other peers would: with the pin that they know."""
    pin = NO_PIN if tls is None else tls.pin
    endpoint = parse_endpoint(url, pin if any(pin) else b"")
    with Fetcher(trusted=[endpoint]) as fetcher:
        try:
            fetcher.document("/ipfs/bafkqaaa?format=raw", 1 << 10, endpoint)
        except ContentError as cause:
            raise FlNodeError(f"{url} does not answer as a content gateway would: {cause}") from cause
    return f"answers at {url}"


def _disk(config: NodeConfig) -> Finding:
    folder = config.state_path if config.state_path.exists() else Path()
    free = shutil.disk_usage(folder).free
    message = f"{free / 1024**3:.1f} GiB free at {folder.resolve()}"
    if free >= _DISK_BYTES:
        return Finding("disk", "ok", message)
    return Finding("disk", "failed", message, "free some space, or run `fl-node gc`: a round needs room for its models")


def _checked(name: str, look: Callable[[], T], mend: str) -> tuple[Finding, T | None]:
    try:
        found = look()
    except FlNodeError as error:
        return Finding(name, "failed", str(error), mend), None
    message = found if isinstance(found, str) else "as expected"
    return Finding(name, "ok", message), found
