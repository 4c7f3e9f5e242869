"""``fl-node monitor``"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from fl_node.audit.open_means import Where
from fl_node.cli.at_hand import identities_of, keys_at_hand
from fl_node.cli.reading import account_of
from fl_node.cli.settings import settings_of
from fl_node.cli.text import read_or_not, safe
from fl_node.cli.working import working_folder
from fl_node.config import NodeConfig
from fl_node.errors import AlarmRaised, UsageError
from fl_node.ledger.abi import address_bytes, checksum_address
from fl_node.monitor import Alarm, Monitor, Watched, watch


def monitor(arguments: argparse.Namespace) -> int:
    """Tell alarms as they come: with ``--json`` one object a line on stdout, else words.

    Raises:
        AlarmRaised: there was one.
    """
    if not 0.0 < arguments.every <= 86_400.0 or not arguments.silent_s > 0.0:
        raise UsageError(f"--every {arguments.every:g} --silent-s {arguments.silent_s:g}: expected seconds above 0")
    config = settings_of(arguments)
    account = _account(arguments, config)
    keys = keys_at_hand(identities_of(arguments), None)
    stop = threading.Event()

    def asked(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, asked)
    file = Path(config.federation)
    with working_folder(None, None if arguments.contract else file, "monitor") as folder:
        watched = Watched(
            where=Where(
                federation=file,
                rpc=config.rpc,
                contract=arguments.contract,
                content=arguments.sources,
                depth=arguments.depth,
                work=folder,
            ),
            account=account,
            state=config.state_path if _same(account, account_of(config)) else None,
            silent_s=arguments.silent_s,
            jobs=len(os.sched_getaffinity(0)),
            keys=keys,
        )
        watcher = Monitor(watched)

        def tell(alarm: Alarm) -> None:
            now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            if arguments.json:
                line = {"time": now, "kind": alarm.kind, "text": alarm.text, "detail": dict(alarm.detail)}
                print(json.dumps(line), flush=True)
            else:
                print(f"{now} {alarm.kind}: {safe(alarm.text)}", flush=True)

        def wait(seconds: float) -> bool:
            return arguments.once or stop.wait(seconds)

        if not arguments.json:
            whose = f", entries of {account}" if account else ""
            print(f"watching {arguments.contract or config.federation}{whose}", file=sys.stderr)
        with read_or_not():
            watch(watcher, tell, arguments.every, wait)
    if watcher.raised:
        raise AlarmRaised(f"{watcher.raised} alarms; see above for each")
    return 0


def _same(account: str | None, own: str | None) -> bool:
    return account is not None and own is not None and account.lower() == own.lower()


def _account(arguments: argparse.Namespace, config: NodeConfig) -> str | None:
    """Whose entries to know; who names an account or a state folder must not go unwatched for a slip of the hand."""
    if arguments.account is not None:
        try:
            return checksum_address(address_bytes(arguments.account))
        except ValueError as cause:
            raise UsageError(f"--account: {cause}") from cause
    account = account_of(config)
    if account is None and arguments.state is not None:
        raise UsageError(f"--state {arguments.state}: there is no key in {config.key_path}; expected a peer's folder")
    return account
