"""Where a peer's content lies, how others reach it, and whether there is room."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from fl_node.config import WILDCARDS, NodeConfig
from fl_node.content.endpoints import parse_endpoint
from fl_node.content.factory import open_store
from fl_node.content.fetch import Fetcher
from fl_node.content.gateway import Gateway
from fl_node.content.memory import MemoryStore
from fl_node.content.tls import NO_PIN, ServerTls
from fl_node.doctor.finding import Finding, checked
from fl_node.errors import ContentError, FlNodeError, PortTaken
from fl_node.serving import loopback, tls_of

_DISK_BYTES = 1 << 30


def content_findings(config: NodeConfig) -> Iterator[Finding]:
    """The content store, and how others reach it."""
    folder = config.state_path / "content"
    if config.content == "embedded" and not config.state_path.is_dir():
        yield Finding("content store", "unknown", f"no state folder {config.state_path}", "make it with `fl-node init`")
    else:
        mend = (
            "free some space, or make the folder writable" if config.content == "embedded" else "start the IPFS daemon"
        )
        yield checked("content store", lambda: _try_store(config, folder), mend)[0]
    # While one tries the port, it can be reached from outside as it will be by the others.
    mend = "the settings tls, tls_cert, tls_key and endpoint must go together: docs/operating.md, TLS"
    finding, found = checked("gateway TLS", lambda: [tls_of(config)], mend)
    if found is None:
        yield finding
        return
    (tls,) = found
    with ExitStack() as stack:
        mend = "another process has the address, or it is not this machine's: stop it, or choose with --host and --port"
        yield checked("gateway port", lambda: _listen(config, tls, stack), mend)[0]
        if config.endpoint:
            mend = "the announced URL must reach this peer's gateway from outside: check the URL, proxy, DNS, firewall"
            yield checked("endpoint", lambda: _reach(config.endpoint, tls), mend)[0]


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


def disk_finding(config: NodeConfig) -> Finding:
    """Whether there is room."""
    folder = config.state_path if config.state_path.exists() else Path()
    free = shutil.disk_usage(folder).free
    message = f"{free / 1024**3:.1f} GiB free at {folder.resolve()}"
    if free >= _DISK_BYTES:
        return Finding("disk", "ok", message)
    return Finding("disk", "failed", message, "free some space, or run `fl-node gc`: a round needs room for its models")
