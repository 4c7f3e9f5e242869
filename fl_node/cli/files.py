"""``fl-node cid`` and ``gc``"""

from __future__ import annotations

import argparse
import json
import mmap
import stat
from pathlib import Path

from fl_node.access import viewing
from fl_node.causes import in_words
from fl_node.cli.settings import settings_of
from fl_node.content.factory import open_store
from fl_node.content.unixfs import cid_of
from fl_node.errors import UsageError
from fl_node.retention import collect, oldest_kept


def cid(arguments: argparse.Namespace) -> int:
    """The CID of a file, without storing it."""
    path = Path(arguments.file)
    try:
        # Before it is opened: opening a pipe waits for somebody to write into it.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{path} is no regular file; expected a file on disk")
        with path.open("rb") as file:
            size = path.stat().st_size
            if size == 0:
                name = str(cid_of(b""))
            else:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                    name = str(cid_of(memoryview(mapped)))
    except (OSError, ValueError) as cause:
        raise UsageError(f"cannot read {path}: {in_words(cause)}; expected a file on disk") from cause
    print(json.dumps({"cid": name, "bytes": size, "file": str(path)}) if arguments.json else name)
    return 0


def gc(arguments: argparse.Namespace) -> int:
    """Delete what the federation's retention no longer asks for."""
    config = settings_of(arguments)
    if config.archive:
        raise UsageError(
            "this peer is an archive (archive = true), which keeps everything; pass --no-archive to collect"
        )
    folder = config.state_path / "content"
    if not folder.is_dir():
        raise UsageError(
            f"there is no content store {folder}; expected the state folder of a peer: name it with --state"
        )
    with viewing(config) as view:
        spec, prefix = view.federation.spec, view.prefix
    oldest = oldest_kept(spec, prefix)
    store = open_store(config.content, folder, config.ipfs_api)
    try:
        done = collect(spec, prefix, store, dry_run=arguments.dry_run)
    finally:
        store.close()
    if arguments.json:
        told = {
            "oldest_round_kept": oldest,
            "freed_bytes": done.freed_bytes,
            "cids": [str(c) for c in done.cids],
        }
        print(json.dumps({**told, "dry_run": arguments.dry_run}, indent=1))
    else:
        would = "would free" if arguments.dry_run else "freed"
        print(f"{would} {done.freed_bytes:,} bytes in {len(done.cids)} files of rounds before {oldest}")
    return 0
