"""`fl-node` in an operating-system process of its own, forked from a server that has torch loaded; with faults.

A fault is a function of this module that changes the child before the command runs. There is no hook in the package:
what a fault replaces are its ordinary names.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["fl_node.demo.preload"])


class Run:
    """One command under way."""

    def __init__(self, folder: Path, argv: Sequence[str], fault: str = "", *given: Any, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*.out")))
        self.out, self.err = folder / f"{number}.out", folder / f"{number}.err"
        self.process: ForkServerProcess = _CONTEXT.Process(
            target=_child, args=([*map(str, argv)], str(self.out), str(self.err), fault, given, environment)
        )
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def wait(self, timeout_s: float = 60.0) -> int:
        """Exit code; negative: the signal that ended it."""
        self.process.join(timeout_s)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join(10.0)
            raise AssertionError(f"still running after {timeout_s} s: {self.stderr[-2000:]}{self.stdout[-2000:]}")
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()
        self.process.join(10.0)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def stdout(self) -> str:
        return self.out.read_text() if self.out.exists() else ""

    @property
    def stderr(self) -> str:
        return self.err.read_text() if self.err.exists() else ""

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """What ``run --json`` told so far."""
        lines = [line for line in self.stdout.splitlines(keepends=True) if line.endswith("\n")]
        told = [json.loads(line) for line in lines]
        return [event for event in told if not kind or event["kind"] == kind]

    def until(self, met: Callable[[], object], timeout_s: float = 60.0) -> None:
        """Wait until something is so, while the process runs."""
        deadline = time.monotonic() + timeout_s
        while not met():
            assert self.process.is_alive(), f"ended with {self.process.exitcode}: {self.stderr[-2000:]}"
            assert time.monotonic() < deadline, f"waited {timeout_s} s: {self.stdout[-1000:]}{self.stderr[-1000:]}"
            time.sleep(0.01)


def _child(
    argv: list[str], out: str, err: str, fault: str, given: tuple[Any, ...], environment: dict[str, str]
) -> None:
    import torch

    torch.set_num_threads(1)
    for path, number in ((out, 1), (err, 2)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = Path(os.devnull).open()  # noqa: SIM115
    os.environ.update(environment)
    from fl_node.__main__ import main

    _count_trainings()
    if fault:
        globals()[fault](*given)
    sys.exit(main(argv))


def _count_trainings() -> None:
    """One line a training in ``$TRAININGS``, written before it begins."""
    from fl_node.learning.training import Trainer

    path = os.environ.get("TRAININGS")
    if not path:
        return
    train = Trainer.train

    def counted(self: Any, weights: Any, sequence: int) -> Any:
        with Path(path).open("a") as file:
            file.write(f"{sequence}\n")
        return train(self, weights, sequence)

    Trainer.train = counted  # type: ignore[method-assign]


# ---- faults


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def die(where: str, sequence: int, after: bool = True) -> None:
    """SIGKILL to oneself after (or before) the named step of the round with this sequence."""
    import fl_node.round as round_module
    from fl_node.journal import Journal
    from fl_node.ledger.outbox import Outbox
    from fl_node.ledger.sender import Sender

    def deadly(original: Callable[..., Any], now: Callable[..., bool]) -> Callable[..., Any]:
        def replacement(*given: Any, **more: Any) -> Any:
            if not after and now(given, more, None):
                _die()
            found = original(*given, **more)
            if after and now(given, more, found):
                _die()
            return found

        return replacement

    label = f"publish sequence {sequence}"
    places: dict[str, tuple[Any, str, Callable[..., bool]]] = {
        "merge": (round_module, "merge", lambda g, m, f: g[1].sequence == sequence),
        "train": (round_module, "train", lambda g, m, f: g[1].sequence == sequence),
        "evaluate": (round_module, "evaluate", lambda g, m, f: g[1].sequence == sequence),
        "record": (round_module, "record", lambda g, m, f: g[1].sequence == sequence),
        "publish_weights": (round_module, "publish_weights", lambda g, m, f: g[2] == sequence),
        "publish_report": (round_module, "publish_report", lambda g, m, f: g[2] == sequence),
        "outbox": (Outbox, "store", lambda g, m, f: g[2] == label),
        "broadcast": (Sender, "_broadcast", lambda g, m, f: g[1].label == label),
        "receipt": (Sender, "_mined", lambda g, m, f: g[1].label == label and f is not None),
        "finish": (Journal, "finish", lambda g, m, f: (g[0].load() or g[0].last()).sequence == sequence),
        "announced": (Sender, "_broadcast", lambda g, m, f: g[1].label.startswith("announce")),
        "attested": (Sender, "_broadcast", lambda g, m, f: g[1].label.startswith("attest")),
    }
    owner, name, now = places[where]
    setattr(owner, name, deadly(getattr(owner, name), now))


def limit_files(size_bytes: int) -> None:
    """No file may grow beyond this: as a full disk, for processes that run as root."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))


def slow_training(seconds: float) -> None:
    """Every training takes this much longer."""
    from fl_node.learning.training import Trainer

    train = Trainer.train

    def slow(self: Any, weights: Any, sequence: int) -> Any:
        time.sleep(seconds)
        return train(self, weights, sequence)

    Trainer.train = slow  # type: ignore[method-assign]


def hang_fetching() -> None:
    """A fetch that goes on for a minute whatever happens."""
    import fl_node.choosing as choosing

    gather = choosing.gather

    def hanging(*given: Any, **more: Any) -> Any:
        time.sleep(60)
        return gather(*given, **more)

    choosing.gather = hanging


def die_before_noise(sequence: int) -> None:
    """SIGKILL to oneself once a private training is in the account, before anything is drawn for it."""
    from fl_node.learning.private import Privacy

    spend = Privacy.spend

    def deadly(self: Any, number: int) -> Any:
        found = spend(self, number)
        if number == sequence:
            _die()
        return found

    Privacy.spend = deadly  # type: ignore[method-assign]
