"""What a demo shows a person: a live table while it runs, and the result."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from fl_node.demo.result import DemoResult
from fl_node.progress import Event

#: Of so many models a cell still names each; shares that differ by less are told as equal.
_NAMED = 6
_ALIKE_PPM = 5_000
#: What a demo that is not on a terminal tells line by line, besides the rounds.
_TOLD = (
    *("left-out", "missing", "skipped", "stopped", "waiting-for-chain", "reorganised", "moved"),
    *("alarm-inconsistent", "alarm-equivocation"),
)

#: Parts of a demo's wall time; every other phase is the mean over peers.
WHOLE = ("total", "setup", "federation", "baselines")


def percent(ppm: float | None) -> str:
    """A score in ppm as a percentage; a dash for none."""
    return "-" if ppm is None else f"{ppm / 10_000:.1f} %"


def mebibytes(count: float) -> str:
    """Bytes for people, in binary units."""
    if count < 1024 * 1024:
        return f"{count / 1024:.0f} KiB"
    return f"{count / 1024 / 1024:.1f} MiB"


def short(site: str) -> str:
    """A site's name in a cell that holds several."""
    return site.removeprefix("site-")


def mixture(parents: Sequence[Sequence[int]], sites: Sequence[str]) -> str:
    """What a base was merged from: whose models, with their shares where these differ.

    >>> mixture([[1, 500_000], [3, 500_000]], ["site-a", "site-b", "site-c"])
    'a c'
    >>> mixture([[1, 650_000], [2, 350_000], [3, 0]], ["site-a", "site-b", "site-c"])
    'a 65 % b 35 %'
    """
    merged = [(short(sites[peer - 1]), share) for peer, share in parents if share]
    if not merged:
        return "genesis"
    if len(merged) > _NAMED:
        return f"{len(merged)} models"
    shares = [share for _, share in merged]
    if max(shares) - min(shares) < _ALIKE_PPM:
        return " ".join(name for name, _ in merged)
    return " ".join(f"{name} {share / 10_000:.0f} %" for name, share in merged)


@dataclass(slots=True)
class Row:
    """The last that was heard of one peer."""

    site: str
    state: str = "starting"
    round: int = 0
    score_ppm: int | None = None
    base_score_ppm: int | None = None
    merged: str = ""
    bytes: int = 0
    heard: float = field(default_factory=time.monotonic)

    def hear(self, event: Event, sites: Sequence[str]) -> None:
        self.heard = time.monotonic()
        detail = event.detail
        if event.kind == "recorded":
            self.round = detail["round"]
            self.score_ppm = detail["score_ppm"]
            self.base_score_ppm = detail["base_score_ppm"]
            self.merged = mixture(detail["parents"], sites)
            self.state = "closed" if detail["final"] else "recorded"
        self.bytes = detail.get("bytes", self.bytes)
        if event.kind == "waiting":
            self.state = _waiting(detail, sites)
        elif event.kind in ("training", "attested", "stopped"):
            self.state = event.kind


def _waiting(detail: Mapping[str, Any], sites: Sequence[str]) -> str:
    if detail.get("peer"):  # in a ring
        return f"waits for {short(sites[detail['peer'] - 1])}"
    return "waits for attestations" if "peers" in detail else "waits for the others"


class Board:
    """All rows; drawn in place on a terminal, told line by line elsewhere."""

    def __init__(self, console: Console, sites: Sequence[str], planned: int) -> None:
        self._console = console
        self._planned = planned
        self._sites = sites
        self._live: Live | None = None
        self.rows = [Row(site) for site in sites]

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While this lasts, the board is on screen."""
        if not self._console.is_terminal:
            yield
            return
        with Live(self._draw(), console=self._console, refresh_per_second=8, transient=True) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def hear(self, number: int, event: Event) -> None:
        """Take in what one peer said."""
        row = self.rows[number]
        row.hear(event, self._sites)
        if self._live is not None:
            self._live.update(self._draw())
        elif event.kind == "recorded":
            kind = "closing model" if event.detail["final"] else f"round {row.round}"
            self._console.print(
                f"{row.site}: {kind}, merged {row.merged}, "
                f"score {percent(row.base_score_ppm)} merged, {percent(row.score_ppm)} published",
                highlight=False,
                soft_wrap=True,
            )
        elif event.kind in _TOLD:
            self._console.print(f"{row.site}: {event.text}", highlight=False, markup=False, soft_wrap=True)

    def _draw(self) -> Table:
        table = Table(title="Peers", title_justify="left")
        for name in ("site", "round", "merged model", "after training", "merged from", "fetched", "last seen", "state"):
            text = name in ("site", "merged from", "state")
            table.add_column(name, justify="left" if text else "right", no_wrap=not text)
        now = time.monotonic()
        for row in self.rows:
            table.add_row(
                row.site,
                f"{min(row.round, self._planned)}/{self._planned}",
                percent(row.base_score_ppm),
                percent(row.score_ppm),
                row.merged,
                mebibytes(row.bytes),
                f"{now - row.heard:.0f} s ago",
                row.state,
            )
        return table


def show_result(console: Console, result: DemoResult) -> None:
    """The closing table: what federating was worth, what it left on the ledger, what it took."""
    # Not as the table's title, which would be broken at the table's width.
    console.print(f"[italic]{result.measure.capitalize()} on a test set that no peer trained on[/italic]")
    table = Table()
    table.add_column("peer")
    table.add_column("federated", justify="right")
    if result.alone:
        table.add_column("trained alone", justify="right")
        table.add_column("gain", justify="right")
    for number, site in enumerate(result.sites):
        federated = result.federated[number]
        cells = [site, _share(federated)]
        if result.alone:
            alone = result.alone[number]
            gain = None if federated is None or alone is None else federated - alone
            cells += [_share(alone), "-" if gain is None else f"{gain * 100:+.1f}"]
        table.add_row(*cells)
    if result.pooled is not None:
        table.add_section()
        table.add_row("all data in one place", _share(result.pooled), *([] if not result.alone else ["", ""]))
    console.print(table)
    facts = [
        ("ledger", f"{result.entries} entries, {result.updates} updates"),
        ("root", "0x" + result.root),
        ("contract", f"{result.contract} (chain {result.chain_id})"),
        ("content", f"{mebibytes(result.bytes['published'])} published, {mebibytes(result.bytes['fetched'])} fetched"),
        ("seconds", ", ".join(f"{name} {result.seconds[name]:.1f}" for name in WHOLE)),
        ("a peer", _phases(result.seconds)),
        ("federation", result.federation_file),
    ]
    facts.append(("explorer", f"fl-node ui --federation {shlex.quote(result.federation_file)}"))
    if result.pack is not None:
        facts.append(("pack", f"{result.pack.file}, {mebibytes(result.pack.size_bytes)}: fl-node verify"))
    for name, text in facts:
        console.print(f"[bold]{name:<11}[/bold]{text}", highlight=False, soft_wrap=True)


def _phases(seconds: Mapping[str, float]) -> str:
    """What a peer spent its time on, the longest first; what took less than a millisecond is left out."""
    spent = sorted(((value, name) for name, value in seconds.items() if name not in WHOLE), reverse=True)
    return ", ".join(f"{name} {value * 1000:.0f} ms" for value, name in spent if value >= 0.001)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f} %"


def as_json(result: DemoResult) -> dict[str, Any]:
    """The result as documented in docs/cli.md."""
    return {
        "preset": result.preset,
        "updates": result.updates,
        "entries": result.entries,
        "root": "0x" + result.root,
        "rpc": result.rpc,
        "chain_id": result.chain_id,
        "contract": result.contract,
        "federation_file": result.federation_file,
        "sites": list(result.sites),
        "measure": result.measure,
        "accuracy": {
            "federated": list(result.federated),
            "alone": list(result.alone),
            "pooled": result.pooled,
        },
        "bytes": result.bytes,
        "seconds": result.seconds,
        "failures": list(result.failures),
        "pack": None if result.pack is None else asdict(result.pack),
    }
