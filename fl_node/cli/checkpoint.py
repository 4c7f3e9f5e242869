"""``fl-node checkpoint``"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fl_node import keys
from fl_node.access import deployed, viewing
from fl_node.cli.settings import settings_of
from fl_node.cli.text import read_or_not, safe
from fl_node.errors import ChecksFailed, MalformedEvidence
from fl_node.ledger.checkpoint import (
    Conflict,
    SignedCheckpoint,
    at,
    conflicts,
    cosigned,
    holds,
    sign,
)
from fl_node.ledger.note_folder import NoteFolder
from fl_node.prefix import Prefix
from fl_node.unwritable import unwritable


def checkpoint(arguments: argparse.Namespace) -> int:
    """Sign the log as it is now, verify what others signed, or list what this peer has."""
    return {"sign": _sign, "verify": _verify, "list": _list}[arguments.action](arguments)


# ---- sign --------------------------------------------------------------------------------------------------------


def _sign(arguments: argparse.Namespace) -> int:
    """Sign, unless the log does not hold what was signed before."""
    from fl_node.audit.open_means import confirm

    config = settings_of(arguments)
    _, deployment = deployed(config)
    signer = keys.unlock(config.key_path, Path(config.password_file) if config.password_file else None)
    signer.check_chain(deployment.chain_id)
    folder = _folder(config.state_path)
    with viewing(config) as view:
        confirm(view.index, view.reader, view.federation.spec.rounds.depth)
        incident = folder.incident(view.index, every=True)
        if incident is not None:
            path = folder.keep_incident(incident)
            raise ChecksFailed(
                f"the log is not the one that was signed before: {incident.trouble}; nothing was signed"
                f"{f', and {path} has the evidence' if path else ''}. Ask the others which log they see, with "
                "`fl-node checkpoint verify`, or name another endpoint with --rpc"
            )
        made = sign(at(view.index), signer)
    before = folder.own(made.checkpoint.size)
    if before is not None and before.checkpoint == made.checkpoint and before.signers != made.signers:
        made = cosigned([before, made])  # the state folder's key was another one
    kept = folder.keep_own(made)
    if arguments.out:
        _write(Path(arguments.out), made.note)
    told = f"signed {made.checkpoint.size} entries as {', '.join(made.signers)}; kept as {kept}"
    print(f"fl-node: {told}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(_told(made), indent=1))
    elif not arguments.out:
        print(made.note.decode(), end="")
    return 0


# ---- verify ------------------------------------------------------------------------------------------------------


def _verify(arguments: argparse.Namespace) -> int:
    """Signatures, the notes against each other, and against the log."""
    from fl_node.audit.open_means import confirm, notes_in

    found: list[tuple[str, SignedCheckpoint]] = []
    malformed: list[dict[str, str]] = []
    for name in arguments.files:
        try:
            found += [(name, note) for note in notes_in(Path(name))]
        except MalformedEvidence as cause:
            malformed.append({"file": name, "error": str(cause)})
    unlike = conflicts(note for _, note in found)
    rows: list[dict[str, Any]] = []
    if arguments.offline:
        rows = [{"file": name, **_told(note), "holds": None, "trouble": None} for name, note in found]
    else:
        with viewing(settings_of(arguments)) as view:
            confirm(view.index, view.reader, view.federation.spec.rounds.depth)
            for name, note in found:
                trouble = holds(note.checkpoint, view.index)
                told = _told(note, _who(view.prefix))
                rows.append({"file": name, **told, "holds": trouble is None, "trouble": trouble})
    ok = not malformed and not unlike and all(row["holds"] is not False for row in rows)
    with read_or_not():
        if arguments.json:
            against = [_told_conflict(conflict) for conflict in unlike]
            print(json.dumps({"ok": ok, "checkpoints": rows, "malformed": malformed, "conflicts": against}, indent=1))
        else:
            _show(rows, malformed, unlike)
    if not ok:
        wrong = [
            *(f"{one['file']} is no checkpoint, or was altered" for one in malformed),
            *(f"{row['file']} does not hold: {row['trouble']}" for row in rows if row["holds"] is False),
            *(conflict.text for conflict in unlike),
        ]
        raise ChecksFailed("; ".join(wrong) + ". Two notes that contradict each other are a proof: keep the files")
    return 0


def _show(rows: list[dict[str, Any]], malformed: list[dict[str, str]], unlike: list[Conflict]) -> None:
    for row in rows:
        print(f"{safe(row['file'])}: {_in_words(row)}")
        for signer in row["signers"]:
            peer = f"peer {signer['peer']} ({signer['site']})" if signer.get("peer") else "not a member"
            print(f"  signed by {signer['account']}{'' if row['holds'] is None else f', {safe(peer)}'}")
        if row["holds"] is not None:
            print("  the log extends it" if row["holds"] else f"  does not hold: {row['trouble']}")
    for one in malformed:
        print(safe(one["error"]))
    for conflict in unlike:
        both = f": {', '.join(conflict.equivocators)} signed both" if conflict.equivocators else ""
        print(f"contradiction: {conflict.text}{both}")


# ---- list --------------------------------------------------------------------------------------------------------


def _list(arguments: argparse.Namespace) -> int:
    """What the state folder has. Asks no chain."""
    folder = _folder(settings_of(arguments).state_path)
    sizes = folder.own_sizes()
    own = [note for size in sizes if (note := folder.own(size)) is not None]
    others, against, incidents = folder.others(), folder.conflicts(), folder.incidents()
    damaged = [str(path) for path in folder.damaged()]
    if arguments.json:
        told = {
            "folder": str(folder.folder),
            "own": [_told(note) for note in own],
            "others": [_told(others[account]) for account in sorted(others)],
            "conflicts": [{"file": str(path), **_told_conflict(conflict)} for path, conflict in against],
            "incidents": [{"file": str(path), **told} for path, told in incidents],
            "damaged": damaged,
        }
        print(json.dumps(told, indent=1))
        return 0
    if not (own or others or against or incidents or damaged):
        print(f"{folder.folder} has no checkpoints yet; `fl-node checkpoint sign` makes one")
    for note in own:
        print(f"own       {_in_words(_told(note))}")
    for account in sorted(others):
        print(f"{account[:8]}  {_in_words(_told(others[account]))}")
    for path, conflict in against:
        print(f"CONFLICT  {conflict.text}: {path}")
    for path, incident in incidents:
        print(f"INCIDENT  {safe(incident['trouble'])}: {path}")
    for name in damaged:
        print(f"damaged   {name}")
    return 0


# ---- in words ----------------------------------------------------------------------------------------------------


def _told(note: SignedCheckpoint, who: Callable[[str], dict[str, Any]] | None = None) -> dict[str, Any]:
    one = note.checkpoint
    return {
        "origin": one.origin,
        "size": one.size,
        "root": "0x" + one.root.hex(),
        "block": one.block_number,
        "block_hash": "0x" + one.block_hash.hex(),
        "time_s": one.time_s,
        "spec": one.spec_digest.hex(),
        "signers": [{"account": account, **(who(account) if who else {})} for account in note.signers],
        "note": note.note.decode(),
    }


def _who(prefix: Prefix) -> Callable[[str], dict[str, Any]]:
    def asked(account: str) -> dict[str, Any]:
        facts = prefix.peer_of(account)
        return {"peer": facts.number if facts else None, "site": facts.site if facts else None}

    return asked


def _told_conflict(conflict: Conflict) -> dict[str, Any]:
    return {
        "text": conflict.text,
        "signed_both": list(conflict.equivocators),
        "signers": [list(conflict.first.signers), list(conflict.second.signers)],
        "notes": [conflict.first.note.decode(), conflict.second.note.decode()],
    }


def _in_words(told: dict[str, Any]) -> str:
    # Times beyond the calendar are somebody's signed word, too.
    moment = dt.datetime.fromtimestamp(min(told["time_s"], 253402300799), dt.UTC)
    return f"{told['size']} entries, root {told['root']}, {moment:%Y-%m-%d %H:%M:%SZ}"


def _folder(state: Path) -> NoteFolder:
    return NoteFolder(state / "checkpoints")


def _write(path: Path, note: bytes) -> None:
    try:
        path.write_bytes(note)
    except OSError as cause:
        raise unwritable(path, cause, "name another file with --out") from cause
