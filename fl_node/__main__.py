"""Entry point: ``fl-node`` and ``python -m fl_node``."""

from __future__ import annotations

import importlib
import os
import sys
import traceback

from fl_node.cli.parser import build_parser
from fl_node.cli.text import safe
from fl_node.errors import FlNodeError

COMMANDS = {
    "init": "setup",
    "run": "run",
    "status": "reading",
    "log": "reading",
    "show": "reading",
    "peers": "reading",
    "admit": "membership",
    "retire": "membership",
    "model": "model",
    "cid": "files",
    "gc": "files",
    "demo": "demo",
    "doctor": "doctor",
}

INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code. A known error is one message on stderr, a traceback only with ``--verbose``."""
    arguments = build_parser().parse_args(argv)
    try:
        module = importlib.import_module(f"fl_node.cli.{COMMANDS[arguments.command]}")
        code = getattr(module, arguments.command)(arguments)
        sys.stdout.flush()
        return int(code)
    except FlNodeError as error:
        if arguments.verbose:
            traceback.print_exc()
        # Messages quote strangers: reasons and endpoints on the ledger, answers of an RPC endpoint.
        print("fl-node: " + "\n".join(map(safe, str(error).split("\n"))), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fl-node: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`fl-node log | head`): nothing is wrong, and nobody is there to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if arguments.verbose:
            raise
        print(
            f"fl-node: unexpected {type(error).__name__}: {safe(str(error))}. This is a defect: "
            "run the command again with --verbose and report what it prints",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
