"""What one round works with: the spec, the four rooms' adapters, and where this peer stands.

The seams are small Protocols, so that a simulation can put twins in memory behind them: the log (:class:`LogIndex`),
drafts (:class:`Drafts`), others' bytes (:class:`Fetching`), besides :class:`Ledger` and :class:`ContentStore`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from fl_node.content.cid import Cid
from fl_node.content.endpoints import Endpoint
from fl_node.content.meter import Meter
from fl_node.content.protocol import ContentStore
from fl_node.journal import Draft
from fl_node.key_keeping import Secrecy
from fl_node.ledger.index import Synced
from fl_node.ledger.protocol import Ledger
from fl_node.merging.weights import Schema, Tensors
from fl_node.own_layers import OwnLayers
from fl_node.prefix import Prefix
from fl_node.progress import Emit, Event, Stopwatch
from fl_node.records import Entry
from fl_node.residual import Residuals
from fl_node.spec import Spec

if TYPE_CHECKING:
    from fl_node.learning.training import Trainer

CLOCK_MARGIN_S = 5


class Stopped(Exception):
    """This peer was asked to stop, and the step under way is finished."""


class Moved(Exception):
    """The chain was reorganised under the step under way: look again at what is to be done."""


class LogIndex(Protocol):
    """The checked log: :class:`fl_node.ledger.index.LedgerIndex`."""

    def sync(self) -> Synced: ...

    def root(self, size: int | None = None) -> bytes: ...

    def entries(self, start: int = 0, /) -> Sequence[Entry]: ...

    def ahead(self) -> Sequence[Entry]: ...

    def close(self) -> None: ...


class Drafts(Protocol):
    """Where the round under way stands: :class:`fl_node.journal.Journal`."""

    def load(self) -> Draft | None: ...

    def last(self) -> Draft | None: ...

    def save(self, draft: Draft) -> Draft: ...

    def finish(self) -> None: ...

    def discard(self) -> None: ...


class Fetching(Protocol):
    """Others' bytes into the own store: :class:`fl_node.content.fetch.Fetcher`."""

    def fetch_into(
        self,
        store: ContentStore,
        cid: Cid,
        max_bytes: int,
        endpoints: Sequence[str | Endpoint],
        /,
        *,
        label: str,
        round: int | None,
    ) -> memoryview: ...


@dataclass(slots=True)
class Peer:
    """One member at work. ``prefix`` is the log so far, folded; :meth:`sync` brings it up to date.

    ``schema`` and ``genesis`` are of what is published and merged: without personal tensors
    (:func:`fl_node.merging.personal.published`). ``own_layers`` holds those; it is needed only where the spec keeps
    some. ``secrecy`` holds the keys that open what others encrypted, ``residuals`` what an encoding could not carry;
    each is needed only where the spec asks for it. ``base_scores``: validation scores, in ppm, of bases that this peer
    scored, by how they came about. ``known_bases``: bases by digest, which need not be made again to be scored; a
    simulation may share one table among its peers, and empty it as it likes. ``None`` keeps none, for want of memory.
    ``verified``: likewise the tensors of updates, by content digest and commitment, whose check need not be repeated.
    ``skipped``: members that updates were last not sealed for, and why.
    """

    spec: Spec
    number: int
    ledger: Ledger
    index: LogIndex
    prefix: Prefix
    store: ContentStore
    fetcher: Fetching
    trainer: Trainer
    schema: Schema
    genesis: Callable[[], Tensors]
    journal: Drafts
    watch: Stopwatch
    emit: Emit
    stop: threading.Event
    own_layers: OwnLayers | None = None
    secrecy: Secrecy | None = None
    residuals: Residuals | None = None
    meter: Meter | None = None
    fetched_bytes: int = 0
    published_bytes: int = 0
    base_scores: dict[bytes, int] = field(default_factory=dict)
    known_bases: MutableMapping[bytes, Tensors] | None = None
    verified: MutableMapping[bytes, Tensors] | None = None
    skipped: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.spec.merging.personal and self.own_layers is None:
            raise ValueError("merging.personal names tensors, but there are no own_layers to keep them in")
        if self.spec.privacy.encrypt and self.secrecy is None:
            raise ValueError("privacy.encrypt asks for encryption, but there is no secrecy to hold the keys")

    def whole(self, shared: Tensors, sequence: int) -> Tensors:
        """A whole model to train or to score: shared tensors with one's own personal ones, as they stood after one's
        update ``sequence``."""
        return shared if self.own_layers is None else self.own_layers.join(shared, sequence)

    def sync(self) -> bool:
        """Follow the chain; whether anything changed. A reorganisation is told, and its entries leave the prefix.

        Raises:
            ChainUnavailable: the endpoint does not answer; nothing was changed.
            InconsistentLog: the endpoint's entries do not have the contract's root.
        """
        synced = self.index.sync()
        if not synced.added and not synced.orphaned:
            return False
        kept = self.prefix.size
        if synced.orphaned:
            kept = min(kept, min(entry.index for entry in synced.orphaned))
            self.emit(
                Event(
                    "reorganised",
                    f"the chain dropped {len(synced.orphaned)} entries from {kept} on; following it",
                    {"entries": [entry.index for entry in synced.orphaned]},
                )
            )
        self.prefix = self.prefix.upto(kept).extend(self.index.entries(kept))
        if any(getattr(entry.body, "peer", None) == self.number for entry in synced.orphaned):
            self._send_again(kept)
        return True

    def _send_again(self, kept: int) -> None:
        """Own entries fell off the chain. An update goes out again as it was if the log it had seen still stands;
        otherwise its round is played again, and the journal's last draft keeps the training from being lost."""
        last = self.journal.last()
        if last is None or last.seen <= kept:
            self.ledger.recover()

    def step_done(self) -> None:
        """Between two steps: leave here if somebody asked to.

        Raises:
            Stopped: somebody did.
        """
        if self.stop.is_set():
            raise Stopped

    def chain_time_s(self) -> int:
        """A time before which no further entry can be recorded: that of the last entry, or the clock less a margin.

        An idle development chain makes no blocks, so its head alone would let nobody's deadline ever pass. The margin
        covers a block on its way and clocks that differ.
        """
        return max(self.prefix.time_s, int(time.time()) - CLOCK_MARGIN_S)
