"""The demo from start to end: chain, data, contract, peers, baselines, judgement, result."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from fl_node.chains import DevChain
from fl_node.config import NodeConfig, write_config
from fl_node.demo.crew import Child, Crew, Done, Failed
from fl_node.demo.explorer import Explorer
from fl_node.demo.result import DemoResult, Judged, OnChain
from fl_node.demo.settings import DemoSettings
from fl_node.demo.table import Board
from fl_node.errors import FlNodeError, StoreFull, UsageError
from fl_node.learning.data import load_packed
from fl_node.learning.partition import partition
from fl_node.progress import Ended, Event
from fl_node.spec import named_code, parse_federation

MAKING = ("read", "select", "fetch", "trust", "merge", "attest", "train", "evaluate", "publish", "record")
PHASES = (*MAKING, "wait", "linger")


def play(settings: DemoSettings, console: Console, crew: Crew, began: float) -> DemoResult:
    """Run the demo with a crew that is already loading. Whatever happens, no process is left behind.

    ``began``: ``time.perf_counter()`` when the user's command started.

    Raises:
        FlNodeError: the chain, the deployment or the data set failed. A peer that fails does not raise: the others go
            on, and the result names it.
    """
    with ExitStack() as stack:
        stack.enter_context(crew)
        folder = _folder(settings)
        sites = tuple(f"site-{chr(ord('a') + n) if n < 26 else n}" for n in range(settings.peers))
        states = [folder / site for site in sites]
        try:
            for state in states:
                state.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise StoreFull(f"cannot make {states[0]}: {cause.strerror}; name another folder with --state") from cause
        spec_file, out = folder / "federation.spec.toml", folder / "federation.toml"
        spec_file.write_text(settings.spec_text())
        # Before any child is started: that waits for the server to have loaded everything. And before the chain: data
        # that cannot be dealt out need none.
        shards, test_file = _deal(settings, folder, states)
        chain = stack.enter_context(DevChain.start(settings.chain, state=_chain_state(settings, folder)))
        stack.callback(crew.stop)  # before the chain stops: a peer that waits for its chain is slow to leave
        console.print(f"chain       {settings.chain} at {chain.rpc_url}", highlight=False)
        opening = crew.start("deployment", "open_on_chain", settings.chain, chain.rpc_url, spec_file, out, states)
        on_chain: OnChain = _answer(crew, opening)
        console.print(f"contract    {on_chain.contract}, {on_chain.gas_used:,} gas", highlight=False)
        explorer = Explorer(crew, console)
        if settings.ui:
            explorer.start(out)
        setup_s = time.perf_counter() - began

        # Whoever names a model of their own on this command line has agreed to run it.
        code = named_code(parse_federation(settings.spec_text().encode()).spec)
        peers = [
            crew.start(site, "be_peer", _configured(out, state, shard, code))
            for site, state, shard in zip(sites, states, shards, strict=True)
        ]
        board = Board(console, sites, settings.rounds)
        with board.shown():
            ended = _hear_out(crew, peers, board, out, explorer)
        federation_s = time.perf_counter() - began - setup_s

        packing = None
        if settings.export is not None:
            packing = crew.start("evidence pack", "export_pack", out, states, settings.export.absolute())
        judging = crew.start("judgement", "judge", out, states, test_file)
        baselines: list[Child] = []
        if settings.baselines:
            baselines = [
                crew.start("baseline: pooled", "train_baseline", spec_file, shards, test_file, True),
                crew.start("baseline: alone", "train_baseline", spec_file, shards, test_file, False),
            ]
        if packing is not None:
            for _ in crew.hear(packing):
                pass
        judged: Judged = _answer(crew, judging, explorer)
        explorer.finish(judged.entries)
        pooled, alone = (_answer(crew, child) for child in baselines) if baselines else ((None,), ())
        baselines_s = time.perf_counter() - began - setup_s - federation_s
        done = [end for end in ended if end is not None]
        seconds = {"total": 0.0, "setup": setup_s, "federation": federation_s, "baselines": baselines_s}
        for phase in PHASES:
            seconds[phase] = sum(end.seconds.get(phase, 0.0) for end in done) / max(1, len(done))
        seconds["total"] = time.perf_counter() - began
        return DemoResult(
            sites=sites,
            federated=judged.accuracies,
            alone=tuple(alone),
            pooled=pooled[0],
            updates=judged.updates,
            entries=judged.entries,
            root=judged.root.hex(),
            rpc=chain.rpc_url,
            chain_id=on_chain.chain_id,
            contract=on_chain.contract,
            federation_file=str(out),
            bytes={
                "published": sum(end.published_bytes for end in done),
                "fetched": sum(end.fetched_bytes for end in done),
            },
            seconds={name: round(value, 3) for name, value in seconds.items()},
            preset=settings.preset,
            measure="accuracy" if settings.recipe.kind == "classification" else "Dice",
            failures=tuple(
                f"{child.name}: {child.result.message}"
                for child in (*peers, *([] if packing is None else [packing]))
                if isinstance(child.result, Failed)
            ),
            pack=packing.result.value if packing is not None and isinstance(packing.result, Done) else None,
        )


def _folder(settings: DemoSettings) -> Path:
    """The demo's folder: a new temporary one, or the given one if no demo ran there before."""
    if settings.state is None:
        return Path(tempfile.mkdtemp(prefix="fl-node-demo-"))
    if (settings.state / "federation.toml").exists():
        raise UsageError(
            f"{settings.state} holds an earlier demo; expected a new folder: name another with --state, or remove it"
        )
    return settings.state


def _chain_state(settings: DemoSettings, folder: Path) -> Path | None:
    """Where the chain is kept, if the demo's folder is to be kept and the tool can."""
    if settings.state is None or settings.chain == "hardhat":
        return None
    return folder / ("anvil.json" if settings.chain == "anvil" else "ganache")


def _deal(settings: DemoSettings, folder: Path, states: Sequence[Path]) -> tuple[list[Path], Path]:
    """Split the data set into a common test set and one shard per peer, each in a file of its own."""
    task = parse_federation(settings.spec_text().encode()).spec.task
    test_file = folder / "test.npz"
    load_packed(settings.dataset, task, settings.data_dir, "test").save(test_file)
    rows = load_packed(settings.dataset, task, settings.data_dir, "train")
    shards = []
    for state, indices in zip(
        states, partition(rows.strata, settings.peers, settings.partition, settings.seed), strict=True
    ):
        shards.append(state / "data.npz")
        rows.rows(indices).save(shards[-1])
    return shards, test_file


def _configured(federation_file: Path, state: Path, shard: Path, code: Sequence[str]) -> NodeConfig:
    """A peer's settings, also left as its node.toml, so that `fl-node run --state DIR` goes on from here."""
    values: dict[str, Any] = {
        "federation": str(federation_file),
        "data": f"npz:{shard}",
        "device": "cpu",
        "threads": 1,
        "poll_s": 0.02,
        "retry_s": 15.0,
        "checkpoint_every": 8,
        "allow_code": ",".join(code),
    }
    write_config(state / "node.toml", values)
    return NodeConfig(state=str(state), **values)


def _answer(crew: Crew, child: Child, explorer: Explorer | None = None) -> Any:
    for said_by, message in crew.hear(child):
        if explorer is not None:
            explorer.hear(said_by, message)
    if isinstance(child.result, Done):
        return child.result.value
    message = child.result.message if child.result else "no answer"
    error = FlNodeError(f"{child.name} failed: {message}")
    error.exit_code = child.result.exit_code if child.result else 1
    raise error


def _hear_out(
    crew: Crew, peers: Sequence[Child], board: Board, federation_file: Path, explorer: Explorer
) -> list[Ended | None]:
    """Show what the peers tell until all have ended. One that fails is retired, as a coordinator would do it, so that
    nobody waits for it."""
    for child, message in crew.hear(*peers):
        if explorer.hear(child, message) or child not in peers:
            continue
        number = peers.index(child)
        if isinstance(message, Event):
            board.hear(number, message)
        elif isinstance(message, Failed):
            board.hear(number, Event("stopped", f"failed: {message.message}", {}))
            crew.start(f"retirement of {child.name}", "retire_peer", federation_file, number + 1)
    return [child.result.value if isinstance(child.result, Done) else None for child in peers]
