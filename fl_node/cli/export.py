"""``fl-node export``"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from fl_node.audit.open_means import Where, means_of
from fl_node.cli.at_hand import identities_of, with_keys
from fl_node.cli.bar import bar
from fl_node.cli.settings import settings_of
from fl_node.cli.text import safe
from fl_node.errors import UsageError
from fl_node.evidence.layout import ALL, Scope
from fl_node.evidence.write import Exported, check_free
from fl_node.evidence.write import export as write_pack
from fl_node.records import UpdateRef
from fl_node.suggest import update_meant

_MOST_SHOWN = 20
IN_THE_CLEAR = (
    "WARNING: with keys, weights that are encrypted go into the pack IN THE CLEAR: whoever gets the file can use these "
    "models, and try to learn from them about the rows behind them. Without --identity and --state it holds none"
)


def export(arguments: argparse.Namespace) -> int:
    """Write an evidence pack; what could not be had is told, and is not in it."""
    config = settings_of(arguments)
    scope, out = scope_of(arguments), Path(arguments.out)
    identities = identities_of(arguments)
    check_free(out, arguments.force)  # before the work and not after it
    with tempfile.TemporaryDirectory(prefix="fl-node-export-") as work:
        where = Where(
            federation=Path(config.federation),
            rpc=config.rpc,
            contract=arguments.contract,
            content=arguments.sources,
            checkpoints=[Path(name) for name in arguments.checkpoints],
            depth=arguments.depth,
            work=Path(work),
        )
        with means_of(where) as found:
            means, keys = with_keys(found, identities, config if arguments.state is not None else None)
            if keys is not None:
                print(f"fl-node: {IN_THE_CLEAR}", file=sys.stderr)
            with bar() as tell:
                plain = keys is not None
                made = write_pack(
                    *(means, scope, out), blobs=arguments.blobs, plain=plain, force=arguments.force, progress=tell
                )
    if arguments.json:
        print(json.dumps(as_json(made), indent=1))
    else:
        show(made)
    return 0


def scope_of(arguments: argparse.Namespace) -> Scope:
    """Which updates the flags ask for.

    Raises:
        UsageError: no name of an update.
    """
    if arguments.all:
        return ALL
    if arguments.round is not None:
        return Scope("round", round=arguments.round)
    ref = UpdateRef.parse(arguments.update)
    if ref is None:
        meant = update_meant(arguments.update)
        raise UsageError(f"--update {arguments.update[:40]}: expected PEER#SEQUENCE, such as 3#12{meant}")
    return Scope("update", update=ref)


def as_json(made: Exported) -> dict[str, Any]:
    """What was written, JSON-ready."""
    return {
        "file": str(made.path),
        "pack": made.digest.hex(),
        "bytes": made.size,
        "files": made.files,
        "entries": made.entries,
        "updates": made.updates,
        "weights": made.blobs,
        "in_the_clear": made.plain,
        "missing": list(made.missing),
    }


def show(made: Exported) -> None:
    """What was written, for people; what is missing goes to stderr."""
    print(f"pack        {made.path}, {made.size:,} bytes in {made.files} files")
    print(f"digest      {made.digest.hex()}")
    print(f"holds       {made.entries} entries, {made.updates} updates, {made.blobs} files of weights")
    if made.plain:
        print(f"IN THE CLEAR: the weights of {made.plain} encrypted updates; whoever has the file can read them")
    print(f"check it    fl-node verify {made.path}")
    for what in made.missing[:_MOST_SHOWN]:
        print(f"fl-node: not in it: {safe(what)}", file=sys.stderr)
    if len(made.missing) > _MOST_SHOWN:
        print(f"fl-node: not in it: {len(made.missing) - _MOST_SHOWN} more; --json names them all", file=sys.stderr)
