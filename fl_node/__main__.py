"""Entry point: ``fl-node`` and ``python -m fl_node``."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from fl_node.cli.exposed import exposed_key
from fl_node.cli.text import nobody_reads, told
from fl_node.errors import FlNodeError, StoreFull, UsageError
from fl_node.sealing.redaction import redacted
from fl_node.unwritable import NO_ROOM

COMMANDS = {
    "init": "setup",
    "run": "run",
    "status": "reading",
    "log": "reading",
    "show": "reading",
    "peers": "reading",
    "admit": "membership",
    "retire": "membership",
    "keys": "keys",
    "share": "share",
    "receive": "share",
    "audit": "audit",
    "checkpoint": "checkpoint",
    "monitor": "monitor",
    "export": "export",
    "verify": "verify",
    "lineage": "lineage",
    "model": "model",
    "traffic": "traffic",
    "privacy": "privacy",
    "cid": "files",
    "gc": "files",
    "demo": "demo",
    "simulate": "simulate",
    "doctor": "doctor",
    "ui": "ui",
}

INTERRUPTED = 130
#: The name is to blame, or whoever has the folder: not the program.
_NO_SUCH_NAME = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR})


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code. A known error is one message on stderr, a traceback only with ``--verbose``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal's encoding lacks ends nothing
    exposed = exposed_key(sys.argv[1:] if argv is None else argv)
    if exposed is not None:
        print(f"fl-node: {exposed}", file=sys.stderr)
        return UsageError.exit_code
    with _leaving_at_once():
        arguments, command = _parsed(argv)
    return _written(_ran(command, arguments))


def _ran(command: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    try:
        return int(command(arguments))
    except FlNodeError as error:
        if arguments.verbose:
            _trace()
        print(f"fl-node: {told(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fl-node: interrupted", file=sys.stderr, flush=True)
        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, _leave_untold)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`fl-node log | head`): nothing is wrong, and nobody is there to tell.
        nobody_reads()
        return 0
    except Exception as error:
        if arguments.verbose:
            _trace()
            return 1
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return _no_room(error)
        if isinstance(error, OSError) and error.errno in _NO_SUCH_NAME and error.filename is not None:
            print(f"fl-node: cannot use {told(str(error.filename))}: {error.strerror}; name another", file=sys.stderr)
            return UsageError.exit_code
        print(
            f"fl-node: unexpected {type(error).__name__}: {told(str(error))}. This is a defect: "
            "run the command again with --verbose and report what it prints",
            file=sys.stderr,
        )
        return 1


def _trace() -> None:
    """The traceback of the error at hand, without private keys."""
    print(redacted(traceback.format_exc()), end="", file=sys.stderr)


def _written(code: int) -> int:
    """What a command printed is out, or why not is told; its exit code."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        nobody_reads()
    except OSError as error:
        return code or _no_room(error)
    return code


def _no_room(error: OSError) -> int:
    where = "standard output" if error.filename is None else error.filename
    print(
        f"fl-node: cannot write {told(str(where))}: {error.strerror}; free some space, or write elsewhere",
        file=sys.stderr,
    )
    nobody_reads()
    return StoreFull.exit_code


def _parsed(argv: list[str] | None) -> tuple[argparse.Namespace, Callable[[argparse.Namespace], int]]:
    """The command line and the command that it names, imported. Takes a tenth of a second and more."""
    from fl_node.cli.parser import build_parser

    arguments = build_parser().parse_args(argv)
    module = importlib.import_module(f"fl_node.cli.{COMMANDS[arguments.command]}")
    return arguments, getattr(module, arguments.command)


@contextmanager
def _leaving_at_once() -> Iterator[None]:
    """While this lasts Ctrl-C ends the process there and then: nothing is under way that would have to be undone, and
    an exception in the middle of an import is told as a traceback. Afterwards the second one does."""
    # Whoever calls from a thread, or has a handler of their own, keeps what they have.
    ours = threading.current_thread() is threading.main_thread()
    if not (ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _interrupt)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"fl-node: interrupted\n")
    os._exit(INTERRUPTED)


def _leave_untold(number: int, frame: FrameType | None) -> None:
    """What the second Ctrl-C does once the first one has been told: only threads that still wait are left."""
    os._exit(INTERRUPTED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first Ctrl-C lets what is under way be undone, and threads come to an end. Some wait for a stranger's answer:
    whoever does not want to, presses again."""
    signal.signal(signal.SIGINT, _leave)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
