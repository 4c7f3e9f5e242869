"""Processes of a demo: forked from one server that has torch and web3 loaded, and none left behind.

Loading torch and web3 costs a process two seconds; a fork of a process that has them costs milliseconds. The parent
loads neither. Each child tells its story through a pipe; a child that dies without a word is noticed by its exit.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

from fl_node.errors import FlNodeError, UsageError

PRELOAD = ("fl_node.demo.preload",)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Done:
    """A child's last word: what it returned."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """A child's last word: what went wrong, and with which code ``fl-node`` would have left."""

    message: str
    exit_code: int = 1


@dataclass(slots=True)
class Child:
    """One process and the pipe it talks through."""

    name: str
    process: ForkServerProcess
    pipe: Connection
    result: Done | Failed | None = None


class Crew:
    """Starts children and hears them out. On leaving, whatever still runs is stopped.

    Usage::

        with Crew() as crew:
            crew.start("peer 1", work, arguments)
            for child, message in crew.hear(): ...
    """

    def __init__(self) -> None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, "1")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOAD))
        self.children: list[Child] = []

    def load(self) -> None:
        """Start the server, which begins to load at once, while the parent does something else.

        Raises:
            UsageError: the folder for temporary files cannot hold the server's socket.
        """
        try:
            self._load()
        except OSError as cause:
            folder = tempfile.gettempdir()
            raise UsageError(
                f"cannot start processes with temporary files in {folder}: {cause}; expected a short path that can be "
                "written: set TMPDIR to one"
            ) from cause

    def _load(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            forkserver.ensure_running()
            return
        # It would let blocked signals through in between, if the server had to start it.
        resource_tracker.ensure_running()
        # Ctrl-C goes to the whole terminal; the server is not to hear it, not even while it loads. Blocked, it waits
        # for this process instead of being lost.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGINT, before)
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def __enter__(self) -> Crew:
        self.load()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            _end_server()
        self.stop()

    def start(self, name: str, work: str, *arguments: Any) -> Child:
        """Run ``fl_node.demo.workers.<work>(send, *arguments)`` in a new process.

        By name, since the parent does not import what it would need torch for. ``send`` takes anything picklable.
        """
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_child, args=(theirs, work, arguments), name=name)
        _start(process)
        theirs.close()
        child = Child(name, process, ours)
        self.children.append(child)
        return child

    def hear(self, *waited: Child) -> Iterator[tuple[Child, Any]]:
        """Messages of all children as they come, until the waited ones (default: all) have said their last word."""
        while any(child.result is None for child in (waited or self.children)):
            open_pipes = {child.pipe: child for child in self.children if child.result is None}
            for ready in multiprocessing.connection.wait(list(open_pipes), timeout=0.25):
                assert isinstance(ready, Connection)
                child = open_pipes[ready]
                try:
                    message = ready.recv()
                except (EOFError, OSError):
                    child.process.join(5.0)
                    message = Failed(f"the process ended without a word (exit code {child.process.exitcode})")
                if isinstance(message, Done | Failed):
                    child.result = message
                yield child, message

    def stop(self, grace_s: float = 1.0) -> None:
        """Ask what still runs to leave, then make it."""
        alive = [child.process for child in self.children if child.process.is_alive()]
        for process in alive:
            process.terminate()
        deadline = time.monotonic() + grace_s
        for process in alive:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join(5.0)
        for child in self.children:
            child.pipe.close()


def _start(process: ForkServerProcess) -> None:
    """Start a process: at once, or when the server has loaded everything, up to some seconds. In a thread, so that a
    signal is heard meanwhile; then the server goes, and with it the child if it is there already."""
    failures: list[Exception] = []

    def work() -> None:
        try:
            process.start()
        except Exception as failure:  # whatever it is, the demo cannot go on without this process
            failures.append(failure)

    thread = threading.Thread(target=work, name=f"start {process.name}", daemon=True)
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        _end_server()
        raise
    if failures:
        raise FlNodeError(
            f"cannot start the process {process.name}: {failures[0] or type(failures[0]).__name__}; expected the "
            "demo's server of processes to answer: has somebody ended it?"
        ) from failures[0]


def _end_server() -> None:
    """End the fork server, loaded or not; its children end with it. A later crew starts another."""
    pid = getattr(forkserver._forkserver, "_forkserver_pid", None)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _child(pipe: Connection, work: str, arguments: tuple[Any, ...]) -> None:
    # Ctrl-C goes to the whole terminal; the parent decides what becomes of its children.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent()
    try:
        # Loaded before the fork, unless something is missing: then this says what.
        import torch

        import fl_node.demo.preload  # noqa: F401

        # Before any work: a child forked after a threaded torch operation hangs at its first one otherwise.
        torch.set_num_threads(1)
        from fl_node.demo import workers

        pipe.send(Done(getattr(workers, work)(pipe.send, *arguments)))
    except FlNodeError as error:
        pipe.send(Failed(str(error), error.exit_code))
    except BaseException as error:
        traceback.print_exc(file=sys.stderr)
        pipe.send(Failed(f"{type(error).__name__}: {error}"))
    finally:
        pipe.close()
        sys.stdout.flush()
        sys.stderr.flush()
        # Everything is closed and said. Taking torch's and web3's modules apart would cost a tenth of a second.
        os._exit(0)


def _die_with_parent() -> None:
    """Have this process end when the demo is gone, however it went. Not asked nicely: nobody is there to wait, and a
    peer's state survives it.

    The kernel tells of the fork server's end only (on Linux), and the server goes on while it has children; so a thread
    watches the demo itself.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_outlive, args=(parent.sentinel,), name="parent-watch", daemon=True).start()


def _outlive(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
