"""How an explorer was asked to run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fl_node.causes import in_words
from fl_node.errors import UsageError
from ledger_ui.federation import Source

LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: Of a server with sixteen threads that is half.
LISTENERS = 8


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of one explorer.

    Attributes:
        sources: the federations to show.
        poll_s: seconds between looks at the chain.
        hosts: names by which browsers may address it; empty: any. Keeps other sites' pages from reading it through a
            name of theirs that points here.
        secret: user:password, or a bare token, that readers must give; empty: none.
        harvest: fetch reports and checkpoints, and ask for content, from the peers' gateways.
        verify: let readers start audits ("verify now").
        monitor: run the monitor beside, and show its alarms.
        listeners: readers that may be told of changes as they come; each holds a thread of the server.
    """

    sources: tuple[Source, ...] = ()
    poll_s: float = 1.0
    hosts: tuple[str, ...] = LOOPBACK
    secret: str = ""
    harvest: bool = True
    verify: bool = True
    monitor: bool = False
    listeners: int = LISTENERS

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] | None = None) -> Options:
        """For WSGI servers that call the factory without arguments: ``FL_NODE_UI_FEDERATIONS`` (files, separated as in
        PATH), ``FL_NODE_RPC``, ``FL_NODE_UI_HOSTS`` (by commas; ``*``: any), ``FL_NODE_UI_SECRET_FILE``,
        ``FL_NODE_UI_LISTENERS``, ``FL_NODE_UI_WITHOUT`` (``harvest``, ``verify``, or both by commas),
        ``FL_NODE_UI_MONITOR`` (``1``: with it).

        Raises:
            UsageError: no federation is named, the secret cannot be read, or a value is none.
        """
        given = os.environ if environment is None else environment
        files = [name for name in given.get("FL_NODE_UI_FEDERATIONS", "").split(os.pathsep) if name]
        if not files:
            raise UsageError("FL_NODE_UI_FEDERATIONS is not set; expected the federation files to show")
        hosts = given.get("FL_NODE_UI_HOSTS", ",".join(LOOPBACK))
        secret_file = given.get("FL_NODE_UI_SECRET_FILE", "")
        listeners = given.get("FL_NODE_UI_LISTENERS", str(LISTENERS))
        if not (listeners.isascii() and listeners.isdecimal() and int(listeners) <= 10_000):
            raise UsageError(f"FL_NODE_UI_LISTENERS {listeners[:20]!r}: expected a number of readers, from 0")
        without = {name.strip() for name in given.get("FL_NODE_UI_WITHOUT", "").split(",") if name.strip()}
        if not without <= {"harvest", "verify"}:
            raise UsageError(f"FL_NODE_UI_WITHOUT {', '.join(sorted(without))[:80]}: expected harvest, verify, or both")
        return cls(
            sources=tuple(Source(Path(name), given.get("FL_NODE_RPC", "")) for name in files),
            hosts=() if hosts == "*" else tuple(name.strip() for name in hosts.split(",") if name.strip()),
            secret=read_secret(Path(secret_file)) if secret_file else "",
            harvest="harvest" not in without,
            verify="verify" not in without,
            monitor=given.get("FL_NODE_UI_MONITOR", "") == "1",
            listeners=int(listeners),
        )


def read_secret(file: Path) -> str:
    """The first line of a file: ``user:password``, or a token.

    Raises:
        UsageError: it cannot be read, is open to others, or is too short to keep anybody out.
    """
    try:
        mode = file.stat().st_mode
        secret = file.read_text("utf-8").splitlines()[0].strip() if file.stat().st_size else ""
    except (OSError, UnicodeDecodeError) as cause:
        raise UsageError(f"cannot read the secret in {file}: {in_words(cause)}; name a readable text file") from cause
    if mode & 0o077:
        raise UsageError(f"{file} can be read by others (mode {mode & 0o777:o}); expected 600: chmod 600 {file}")
    if len(secret) < 12:
        raise UsageError(f"the secret in {file} has {len(secret)} characters; expected 12 or more on its first line")
    return secret
