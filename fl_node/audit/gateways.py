"""Bytes for an audit: from folders that lie here, from gateways that the auditor names, from the peers' own."""

from __future__ import annotations

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
from fl_node.tables import ContentSpec

_PROBE_S: Final = 5.0
#: Gateways that are asked how large a file is.
_SIZE_ASKED: Final = 3
#: For one file, whatever the spec says.
_FILE_S: Final = 600.0


class GatewayBlobs:
    """Looks in folders first, then asks gateways. One that does not answer at the start is not asked again, and one
    that lets questions go unanswered is left alone for a while.

    Args:
        stores: content stores that lie here.
        given: gateways that the auditor names; asked first, at whatever address they are.
        announced: the peers' own, by number; an update's publisher is asked before the others.
        allow_networks: private networks in which those may be.
        timeout_s: for one file.
        scratch: folder for files on their way.

    ``given`` ones come from the auditor, so they may be at any address; announced ones come from strangers.
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
        self._fetcher = Fetcher(allow_networks, timeout_s=timeout_s, trusted=self._given)
        self._dead: Mapping[Endpoint, str] | None = None
        self._probing = threading.Lock()

    def follow(self, content: ContentSpec) -> None:
        """Ask as the spec says, once it is known. Not safe while somebody else asks."""
        self._fetcher.close()
        timeout_s = min(content.fetch_timeout_s, _FILE_S)
        self._fetcher = Fetcher(content.allow_networks, timeout_s=timeout_s, trusted=self._given)
        self._dead = None

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
            raise ContentUnavailable(f"{cid} is in no folder that was named, and {self._why_nobody()}")
        try:
            data = self._fetcher.fetch(cid, max_bytes, endpoints)
        except ContentUnavailable:
            if altered is not None:
                raise altered from None
            raise
        return self._spooled(data)

    def block(self, cid: Cid, max_bytes: int, ref: UpdateRef | None = None) -> memoryview:
        """One block of a file from a gateway, checked; for files that are too large to be held in memory.

        Raises:
            As :meth:`hold`.
        """
        endpoints = self._order(ref)
        if not endpoints:
            raise ContentUnavailable(f"{cid} cannot be had: {self._why_nobody()}")
        return self._fetcher.block(cid, max_bytes, endpoints)

    def asked(self, cid: Cid, ref: UpdateRef | None = None) -> Holders | None:
        """Ask every announced gateway whether it has the file's root block."""
        if not self._announced:
            return None
        # Each question begins elsewhere: who asks for many at a time does not wait for the same gateway with all.
        numbers = sorted(self._announced)
        first = int.from_bytes(cid.digest[:4], "big") % len(numbers)
        answers = {}
        for number in (*numbers[first:], *numbers[:first]):
            endpoint = self._announced[number]
            answers[number] = self._has(endpoint, cid) if self._answering(endpoint) else None

        def named(wanted: bool | None) -> tuple[str, ...]:
            return tuple(f"peer {one} {self._announced[one]}" for one in numbers if answers[one] is wanted)

        return Holders(named(True), named(False), named(None), answers.get(ref.peer) if ref is not None else None)

    def size(self, cid: Cid, ref: UpdateRef | None = None) -> int | None:
        """Bytes of a file as the first few that have it say; ``None`` where nobody says."""
        for endpoint in self._order(ref)[:_SIZE_ASKED]:
            try:
                return self._fetcher.size(cid, endpoint, timeout_s=_PROBE_S)
            except ContentError:
                continue
        return None

    def answering(self) -> tuple[int, int]:
        """How many of the announced gateways answer, and of how many."""
        return sum(map(self._answering, self._announced.values())), len(self._announced)

    def where(self, cid: Cid) -> str:
        """The first gateway that answers."""
        for endpoint in (*self._given, *self._announced.values()):
            if self._answering(endpoint):
                return str(endpoint)
        return ""

    def documents(self, path: str, max_bytes: int) -> dict[str, bytes]:
        """What gateways have at a path of their own, such as ``/checkpoint``, by gateway; of those that have it."""
        every = dict.fromkeys([*self._given, *self._announced.values()])
        live = sorted(filter(self._answering, every), key=str)

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
        return [one for one in dict.fromkeys([*first, *self._announced.values()]) if self._answering(one)]

    def _answering(self, endpoint: Endpoint) -> bool:
        return endpoint not in self._unreachable() and not self._fetcher.silent(endpoint)

    def _unreachable(self) -> Mapping[Endpoint, str]:
        """Gateways that could not be reached at the first look, and why."""
        with self._probing:
            if self._dead is None:
                every = list(dict.fromkeys([*self._given, *self._announced.values()]))
                with ThreadPoolExecutor(max(1, min(32, len(every))), "probe") as pool:
                    causes = list(pool.map(self._cannot_reach, every))
                self._dead = {one: cause for one, cause in zip(every, causes, strict=True) if cause is not None}
            return self._dead

    def _cannot_reach(self, endpoint: Endpoint) -> str | None:
        try:
            connection = self._fetcher.connect(endpoint, time.monotonic() + _PROBE_S)
        except ContentError as cause:
            return str(cause)
        self._fetcher.release(connection)
        return None

    def _why_nobody(self) -> str:
        """What is the matter with the gateways, where none is left to ask."""
        dead = self._unreachable()
        every = dict.fromkeys([*self._given, *self._announced.values()])
        causes = [dead.get(one, f"{one} left several questions unanswered") for one in every]
        if not causes:
            return "there is no gateway to ask; name one that has it with --content"
        first = "" if len(causes) == 1 else ", the first"
        return f"none of {len(causes)} gateways answers{first}: {causes[0]}; name one that has it with --content"

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
