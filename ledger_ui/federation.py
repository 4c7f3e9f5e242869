"""One federation in the explorer: its file, its index, and what runs beside it."""

from __future__ import annotations

import os
import re
import tempfile
import threading
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fl_node.access import deployed
from fl_node.caches import own_folder
from fl_node.config import NodeConfig
from fl_node.ledger.abi import address_bytes, checksum_address
from fl_node.ledger.protocol import LedgerReader
from fl_node.ledger.rpc import RpcReader
from fl_node.ledger.transport import Rpc
from fl_node.spec import Deployment, Federation, Spec
from ledger_ui.index.follower import Follower
from ledger_ui.index.harvest import Harvester
from ledger_ui.index.held import hold
from ledger_ui.index.replayed import Replayed
from ledger_ui.index.store import Store
from ledger_ui.jobs import Jobs
from ledger_ui.watch import Watch

_LONGEST_NAME: Final = 24


@dataclass(frozen=True, slots=True)
class Source:
    """A federation as the user named it.

    Attributes:
        rpc: endpoint to ask instead of the file's hint.
        index: where its index is kept instead of beside the file.
        connect: opens its ledger instead of the endpoint; called again until it answers.
    """

    file: Path
    rpc: str = ""
    index: Path | None = None
    connect: Callable[[], LedgerReader] | None = None


class Shown:
    """A federation that is shown.

    Args:
        source: what the user named.
        poll_s: seconds between looks at the chain.
        verify: readers may have audits and packs made.
        monitor: run ``fl-node monitor`` beside.
        harvest: peers are asked for reports, checkpoints and content, and the endpoint for transactions.

    Raises:
        SpecError: the file is malformed, or nobody has deployed it.
    """

    def __init__(
        self, source: Source, poll_s: float = 1.0, *, verify: bool = False, harvest: bool = False, monitor: bool = False
    ) -> None:
        config = NodeConfig(federation=str(source.file), rpc=source.rpc)
        self.source = source
        self.federation: Federation
        self.deployment: Deployment
        self.federation, self.deployment = deployed(config)
        self.slug = slug_of(self.spec.name, self.deployment.contract)
        own = own_folder(source.file, "explorer")
        place = self.deployment
        ledger = f"{place.chain_id}/{checksum_address(address_bytes(place.contract))}/{self.federation.digest.hex()}"
        # Where this user's processes know by which indexes they made; without a cache, for as long as this one lasts.
        if own is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="fl-node-explorer-")  # goes with this object
        traces = Path(self._scratch.name) if own is None else own.parent / "made-here"
        self.store = Store(source.index or _place(source.file, own), ledger, traces)
        self.store.prepare()
        self._heard = threading.Condition()
        self._changes = 0
        self._ended = False
        self.follower = Follower(
            self.store, source.connect or self._connect, self.spec.rounds.depth, poll_s, self.changed
        )
        self.follower.after_fold(Replayed(self.spec))
        self.follower.after_fold(hold)
        rpc = self.deployment.rpc
        self.jobs = Jobs(self.store, source.file, rpc, self.changed, self._leads, works=verify)
        self.harvester = Harvester(self.store, self.spec, rpc, lambda: self.follower.now.state, self.changed)
        #: Whether peers are asked for more than the log.
        self.harvests = harvest
        self.watch = Watch(self.store, source.file, rpc, self.changed, self._leads)
        #: Whether the monitor runs beside.
        self.watches = monitor
        #: Whether audits and packs may be asked for here.
        self.verifies = verify

    @property
    def spec(self) -> Spec:
        return self.federation.spec

    def start(self) -> None:
        """Begin to follow the chain."""
        self.follower.start()
        self.jobs.start()
        if self.harvests:
            self.harvester.start()
        if self.watches:
            self.watch.start()

    def stop(self) -> None:
        """Stop what runs; the index stays."""
        self.end()
        self.jobs.stop()
        self.harvester.stop()
        self.watch.stop()
        self.follower.stop()
        self.store.close()

    def end(self) -> None:
        """Have everything come to an end, without waiting for it: listeners go, children are ended."""
        self._ended = True
        self.jobs.end()
        self.harvester.end()
        self.watch.end()
        self.changed()

    @property
    def ended(self) -> bool:
        return self._ended

    def changed(self) -> None:
        """Something that pages show is another now: wake those who wait for it."""
        with self._heard:
            self._changes += 1
            self._heard.notify_all()

    def wait(self, known: int, timeout_s: float) -> int:
        """Until there was a change after the ``known``-th, or the time is over; how many there were."""
        with self._heard:
            self._heard.wait_for(lambda: self._changes != known or self._ended, timeout_s)
            return self._changes

    def _leads(self) -> bool:
        """Whether it is this process that keeps the index."""
        return self.follower.now.state not in ("starting", "elsewhere")

    def _connect(self) -> RpcReader:
        return RpcReader(self.deployment, self.federation.digest, Rpc(self.deployment.rpc))


def _place(file: Path, own: Path | None) -> Path:
    """Where a federation's index lies: beside its file, or in the user's own folder where nothing can be written
    there."""
    beside = file.with_name(f"{file.name}.explorer.sqlite")
    writable = os.access(beside.parent, os.W_OK) and (not beside.exists() or os.access(beside, os.W_OK))
    if writable or own is None:
        return beside
    own.mkdir(parents=True, exist_ok=True)
    return own / "explorer.sqlite"


def slug_of(name: str, contract: str) -> str:
    """A federation's part of every address: its name and the start of its contract's address.

    >>> slug_of("Häuser & Höfe", "0x5FbDB2315678afecb367f032d93F642f64180aa3")
    'hauser-hofe-5fbdb231'
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = re.sub("[^a-z0-9]+", "-", plain).strip("-")[:_LONGEST_NAME].strip("-")
    return f"{words or 'federation'}-{contract.lower().removeprefix('0x')[:8]}"
