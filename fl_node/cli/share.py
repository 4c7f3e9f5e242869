"""``fl-node share`` and ``receive``"""

from __future__ import annotations

import argparse
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fl_node.access import View, viewing
from fl_node.cli.at_hand import own_secrecy
from fl_node.cli.keys import new_file, unlocked
from fl_node.cli.reading import find_update
from fl_node.cli.settings import settings_of
from fl_node.config import NodeConfig
from fl_node.content.cid import Cid
from fl_node.content.protocol import ContentStore
from fl_node.content.unixfs import Buffer, cid_of
from fl_node.errors import ContentError, UsageError
from fl_node.models import own_stores
from fl_node.pacing import common_round
from fl_node.records import Flag
from fl_node.sharing import SHARED_LABEL, fetched, key_of, most_file_bytes, take_in, wrap
from fl_node.unwritable import unwritable


def share(arguments: argparse.Namespace) -> int:
    """Encrypt an update, which this peer can read, for another member."""
    config = settings_of(arguments)
    with viewing(config) as view, _stores(config) as stores:
        entry = find_update(view.prefix, arguments.update)
        if not entry.update.flags & Flag.ENCRYPTED:
            raise UsageError(f"{entry.ref} is not encrypted: anybody gets it with `fl-node model --at {entry.ref}`")
        key = key_of(view.prefix, arguments.to)
        name = f"{entry.ref.peer}-{entry.ref.sequence}-for-{arguments.to}.age"
        out = new_file(name if arguments.output is None else arguments.output)
        secrecy = own_secrecy(config, unlocked(config))
        data = wrap(view, entry, key, secrecy, stores)
        for store in stores:
            store.add(data, label=SHARED_LABEL, round=common_round(view.prefix))
        site = view.prefix.peer(arguments.to).site
    _write(out, data)
    told = {
        "update": str(entry.ref),
        "to": arguments.to,
        "site": site,
        "file": str(out),
        "bytes": data.nbytes,
        "cid": str(cid_of(data)),
        "served": bool(stores),
    }
    if arguments.json:
        print(json.dumps(told, indent=1))
    else:
        where = "; this peer's gateway serves it by that name" if stores else ""
        print(f"{out}: {entry.ref} for peer {arguments.to} ({site}) alone, {data.nbytes:,} bytes")
        print(f"{told['cid']}{where}. Peer {arguments.to} takes it in with `fl-node receive`")
    return 0


def receive(arguments: argparse.Namespace) -> int:
    """Open what a member shared, check it, and keep it in the vault."""
    config = settings_of(arguments)
    with viewing(config) as view, _stores(config) as stores:
        data = _given(arguments.file, view, stores)
        secrecy = own_secrecy(config, unlocked(config))
        entry = take_in(view, data, secrecy, stores)
        site = view.prefix.peer(entry.ref.peer).site
    if arguments.json:
        print(json.dumps({"update": str(entry.ref), "site": site, "round": entry.round}, indent=1))
    else:
        print(
            f"{entry.ref} of {site}, round {entry.round}: its weights are those that the ledger names; they are in the "
            "vault now"
        )
    return 0


@contextmanager
def _stores(config: NodeConfig) -> Iterator[list[ContentStore]]:
    stores = own_stores(config)
    try:
        yield stores
    finally:
        for store in stores:
            store.close()


def _given(name: str, view: View, stores: list[ContentStore]) -> Buffer:
    """The bytes of a file, or of a CID."""
    path = Path(name)
    if _is_file(path):
        most = most_file_bytes(view, stores)
        try:
            with path.open("rb") as file:
                data = file.read(most + 1)
        except OSError as cause:
            raise UsageError(f"cannot read {path}: {cause.strerror}") from cause
        if len(data) > most:
            raise UsageError(f"{path} has more than {most:,} bytes, which no update of this federation has")
        return data
    try:
        cid = Cid.parse(name)
    except (ContentError, UsageError) as cause:
        raise UsageError(f"{name[:200]!r} is neither a file nor a CID: {cause}") from cause
    return fetched(view, cid, stores)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long for a name
        return False


def _write(out: Path, data: memoryview) -> None:
    """All of it or nothing. It is encrypted: anybody may have it."""
    scratch = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        try:
            scratch.write_bytes(data)
            scratch.replace(out)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as cause:
        raise unwritable(out, cause, "name another file with --output") from cause
