"""A finished demo whose chain and gateways are there again: what the explorer fetches and audits is real."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ui_logs import Explored

from fl_node.chains import DevChain
from fl_node.content.blockstore import Blockstore
from fl_node.content.endpoints import parse_endpoint
from fl_node.content.gateway import Gateway
from fl_node.ledger.log_store import LogStore
from fl_node.ledger.note_folder import NoteFolder
from fl_node.log_routes import log_routes
from fl_node.records import PeerAnnounced
from ledger_ui import Options, create_app
from ledger_ui.federation import Source


@dataclass
class Left:
    """What a demo left: its folder, and its chain and gateways, which can be stopped and started."""

    folder: Path
    stack: ExitStack = field(default_factory=ExitStack)
    chain: DevChain | None = None
    gateways: dict[int, Gateway] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.folder / "federation.toml"

    def explorer(self, folder: Path, **options: Any) -> Explored:
        """An explorer over it with an index of its own, level with the log; nothing runs."""
        source = Source(self.file, index=folder / "explorer.sqlite")
        chosen: dict[str, Any] = {"hosts": (), "harvest": True, "verify": True, **options}
        app = create_app(Options(sources=(source,), **chosen), start=False)
        one = Explored(app, None, self.file)  # type: ignore[arg-type]
        one.look()
        return one

    def serve(self) -> None:
        """Have the peers' gateways answer at the addresses that they announced."""
        with closing(LogStore(self.folder / "federation.sqlite")) as log:
            bodies = [entry.body for entry in log.entries(kinds=["PeerAnnounced"])]
        # Of a long demo, each peer's latest: its keys change, its address does not.
        said = {body.peer: body for body in bodies if isinstance(body, PeerAnnounced)}
        sites = sorted(self.folder.glob("site-*"))
        for body in said.values():
            state = sites[body.peer - 1]
            store = self.stack.enter_context(closing(Blockstore(state / "content", readonly=True)))
            own = self.stack.enter_context(closing(LogStore(state / "index.sqlite")))
            routes = log_routes(own, NoteFolder(state / "checkpoints"))
            port = parse_endpoint(body.endpoint).port
            self.gateways[body.peer] = self.stack.enter_context(Gateway(store, port=port, routes=routes))


def left(folder: Path) -> Iterator[Left]:
    """For a fixture: run a demo of three peers and two rounds, and bring chain and gateways back."""
    kept = folder / "kept"
    command = ["demo", "--peers", "3", "--rounds", "2", "--preset", "best-of", "--no-baselines", "--no-ui"]
    subprocess.run(
        [sys.executable, "-m", "fl_node", *command, "--state", str(kept), "--json", "-"],
        check=True,
        capture_output=True,
    )
    yield from again(kept)


def again(kept: Path) -> Iterator[Left]:
    """For a fixture: bring chain and gateways of a finished demo back."""
    one = Left(kept)
    with one.stack:
        rpc = _rpc_of(one.file)
        one.chain = one.stack.enter_context(
            DevChain.start("anvil", port=int(rpc.rsplit(":", 1)[1]), state=kept / "anvil.json")
        )
        one.serve()
        yield one


def _rpc_of(file: Path) -> str:
    from fl_node.spec import read_federation

    found = read_federation(file).deployment
    assert found is not None
    return found.rpc
