"""Bytes for an audit: from folders that lie here, from gateways that the auditor names, from the peers' own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from fl_node.audit.means import Holders
from fl_node.content.blockstore import Blockstore
from fl_node.content.cid import Cid
from fl_node.content.endpoints import Endpoint, parse_endpoint, without_secrets
from fl_node.content.fetch import Fetcher
from fl_node.content.protocol import ContentStore, Held
from fl_node.content.spool import spooled
from fl_node.errors import ContentError, ContentMismatch, ContentUnavailable, UsageError
from fl_node.prefix import Prefix
from fl_node.records import UpdateRef

_PROBE_S: Final = 5.0


class GatewayBlobs:
    """Looks in folders first, then asks gateways. A gateway that does not answer at the start is not asked again.

    Args:
        stores: content stores that lie here.
        given: gateways that the auditor names; asked first, at whatever address they are.
        announced: the peers' own, by number; addresses are bound by ``allow_networks``.
        publishers: the peer that published an update is asked before the others.
        scratch: folder for files on their way.

    ``given`` addresses come from the auditor, so they may be private ones; announced ones come from strangers.
    """

    def __init__(
        self,
        *,
        stores: Sequence[ContentStore] = (),
        given: Sequence[Endpoint] = (),
        announced: Mapping[int, Endpoint] | None = None,
        allow_networks: Sequence[str] = (),
        timeout_s: float = 60.0,
        scratch: Path | None = None,
    ) -> None:
        self._stores, self._given = tuple(stores), tuple(given)
        self._announced = dict(announced or {})
        self._scratch = scratch
        networks = [*allow_networks, *(network for endpoint in given for network in addresses_of(endpoint))]
        self._fetcher = Fetcher(networks, timeout_s=timeout_s)
        self._live: frozenset[Endpoint] | None = None
        self._probing = threading.Lock()

    def close(self) -> None:
        """Close connections and stores."""
        self._fetcher.close()
        for store in self._stores:
            store.close()

    def hold(self, cid: Cid, max_bytes: int, ref: UpdateRef | None = None) -> Held:
        """As :class:`fl_node.audit.means.Blobs` says."""
        altered: ContentMismatch | None = None
        for store in self._stores:
            try:
                if store.has(cid):
                    return store.hold(cid, max_bytes)
            except ContentUnavailable:
                continue
            except ContentMismatch as cause:
                altered = cause  # another place may have it undamaged
        endpoints = self._order(ref)
        if not endpoints:
            if altered is not None:
                raise altered
            silent = len(self._announced) + len(self._given)
            raise ContentUnavailable(
                f"{cid} is in no folder that was named, and none of {silent} gateways answers; name one that has it "
                "with --content"
            )
        try:
            data = self._fetcher.fetch(cid, max_bytes, endpoints)
        except ContentUnavailable:
            if altered is not None:
                raise altered from None
            raise
        return self._spooled(data)

    def asked(self, cid: Cid, ref: UpdateRef | None = None) -> Holders | None:
        """Ask every announced gateway whether it has the file's root block."""
        if not self._announced:
            return None
        having: list[str] = []
        lacking: list[str] = []
        silent: list[str] = []
        publisher: bool | None = None
        live = self._alive()
        for number, endpoint in sorted(self._announced.items()):
            name = f"peer {number} {endpoint}"
            answer = self._has(endpoint, cid) if endpoint in live else None
            (silent if answer is None else having if answer else lacking).append(name)
            if ref is not None and number == ref.peer:
                publisher = answer
        return Holders(tuple(having), tuple(lacking), tuple(silent), publisher)

    def where(self, cid: Cid) -> str:
        """The first gateway that answers."""
        for endpoint in (*self._given, *self._announced.values()):
            if endpoint in self._alive():
                return str(endpoint)
        return ""

    def documents(self, path: str, max_bytes: int) -> dict[str, bytes]:
        """What gateways have at a path of their own, such as ``/checkpoint``, by gateway; of those that have it."""
        live = sorted(self._alive(), key=str)

        def ask(endpoint: Endpoint) -> bytes | None:
            try:
                return self._fetcher.document(path, max_bytes, endpoint, timeout_s=_PROBE_S)
            except ContentError:
                return None

        with ThreadPoolExecutor(max(1, min(16, len(live))), "ask") as pool:
            answers = list(pool.map(ask, live))
        return {str(one): answer for one, answer in zip(live, answers, strict=True) if answer is not None}

    # ---- below -----------------------------------------------------------------------------------------------------

    def _order(self, ref: UpdateRef | None) -> list[Endpoint]:
        own = self._announced.get(ref.peer) if ref is not None else None
        first = [*self._given, *([] if own is None else [own])]
        live = self._alive()
        return [one for one in dict.fromkeys([*first, *self._announced.values()]) if one in live]

    def _alive(self) -> frozenset[Endpoint]:
        """Gateways that answered at the first look."""
        with self._probing:
            if self._live is None:
                every = list(dict.fromkeys([*self._given, *self._announced.values()]))
                with ThreadPoolExecutor(max(1, min(32, len(every))), "probe") as pool:
                    answers = list(pool.map(self._answers, every))
                self._live = frozenset(one for one, answer in zip(every, answers, strict=True) if answer)
            return self._live

    def _answers(self, endpoint: Endpoint) -> bool:
        try:
            connection = self._fetcher.connect(endpoint, time.monotonic() + _PROBE_S)
        except ContentError:
            return False
        self._fetcher.release(connection)
        return True

    def _has(self, endpoint: Endpoint, cid: Cid) -> bool | None:
        try:
            return self._fetcher.has(cid, endpoint, timeout_s=_PROBE_S)
        except ContentError:
            return None

    def _spooled(self, data: memoryview) -> Held:
        if self._scratch is None:
            return Held(data)
        try:
            return spooled([data], data.nbytes, self._scratch)
        except OSError:
            return Held(data)  # no room on the disk: memory will have to do


def announced(prefix: Prefix) -> dict[int, Endpoint]:
    """The gateways that active peers announced, those that can be used at all, by peer number."""
    found = {}
    for facts in prefix.peers():
        if facts.active and facts.announcement is not None:
            with suppress(ContentUnavailable):
                pin = facts.announcement.tls_pin
                found[facts.number] = parse_endpoint(facts.announcement.endpoint, pin if any(pin) else b"")
    return found


def sources(named: Sequence[str]) -> tuple[list[ContentStore], list[Endpoint]]:
    """What ``--content`` names: folders of a content store, and gateways.

    Raises:
        UsageError: neither.
    """
    stores: list[ContentStore] = []
    endpoints: list[Endpoint] = []
    for name in named:
        if name.startswith(("http://", "https://")):
            try:
                endpoints.append(parse_endpoint(name))
            except ContentUnavailable as cause:
                raise UsageError(f"--content: {cause}") from cause
            continue
        folder = next((one for one in (Path(name), Path(name) / "content") if (one / "objects").is_dir()), None)
        if folder is None:
            raise UsageError(
                f"--content {without_secrets(name)}: neither the URL of a gateway nor a folder with a content store in "
                "it; expected http://HOST:PORT, or a peer's state or content folder"
            )
        stores.append(Blockstore(folder, readonly=True))
    return stores, endpoints


def addresses_of(endpoint: Endpoint) -> list[str]:
    """The addresses of a gateway that the auditor trusts enough to name it."""
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [str(where[0]).partition("%")[0] for _, _, _, _, where in found]
