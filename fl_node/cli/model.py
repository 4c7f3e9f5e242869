"""``fl-node model``"""

from __future__ import annotations

import argparse
import json
import os
import secrets
from pathlib import Path

from fl_node.access import viewing
from fl_node.cli.at_hand import identities_of, keys_at_hand
from fl_node.cli.settings import settings_of
from fl_node.content.names import cid_of_update
from fl_node.content.unixfs import Buffer
from fl_node.errors import UsageError
from fl_node.models import choose, obtain_model, own_stores
from fl_node.records import Flag
from fl_node.unwritable import unwritable


def model(arguments: argparse.Namespace) -> int:
    """Write a verified model as safetensors."""
    out = Path(arguments.out)
    # Replacing a device or a pipe would take it from everybody else: not even by force.
    if out.exists() and not out.is_file():
        raise UsageError(f"--out {out} is no regular file; expected a new file: name another")
    if out.exists() and not arguments.force:
        raise UsageError(f"{out} exists; expected a new file: name another with --out, or overwrite it with --force")
    config, identities = settings_of(arguments), identities_of(arguments)
    with viewing(config) as view:
        # Before anybody is asked for a password.
        choose(view.prefix, arguments.at)
        _check_folder(out)
        keys = None
        if view.federation.spec.privacy.encrypt:
            own = arguments.state is not None and not identities and config.key_path.is_file()
            keys = keys_at_hand(identities, config if own else None)
        found = obtain_model(view, arguments.at, own_stores(config), config.state_path, keys)
        site = view.prefix.peer(found.entry.ref.peer).site
    target = out.resolve()  # where a link leads to, so that the link stays one
    scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        try:
            _write(scratch, found.data, private=bool(found.entry.update.flags & Flag.ENCRYPTED))
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as cause:
        raise unwritable(out, cause, "name another file with --out") from cause
    entry = found.entry
    told = {
        "update": str(entry.ref),
        "site": site,
        "round": entry.round,
        "final": entry.final,
        "cid": str(cid_of_update(entry.update)),
        "claimed_score_ppm": entry.update.score_ppm,
        "bytes": memoryview(found.data).nbytes,
        "file": str(out),
        "encrypted": bool(entry.update.flags & Flag.ENCRYPTED),
        "personal": found.personal or None,
    }
    if arguments.json:
        print(json.dumps(told, indent=1))
    else:
        kind = "closing model" if entry.final else "update"
        print(
            f"{out}: {kind} {entry.ref} of {site}, round {entry.round}, {told['bytes']:,} bytes, verified against the "
            f"ledger; its publisher claims {entry.update.score_ppm / 10_000:.2f} %"
        )
        if told["encrypted"]:
            print("it is encrypted elsewhere, and in the file it is not: keep it from who may not read it")
        if found.personal:
            whose = "of this peer's own" if found.personal == "state" else "of the genesis, untrained"
            print(f"personal tensors are published by nobody; those in the file are {whose}")
    return 0


def _check_folder(out: Path) -> None:
    folder = out.resolve().parent
    if not folder.is_dir():
        raise UsageError(f"cannot write {out}: there is no folder {folder}; name another file with --out")


def _write(path: Path, data: Buffer, *, private: bool) -> None:
    """A new file; of what is encrypted elsewhere, its owner's alone to read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666), "wb") as file:
        file.write(data)
