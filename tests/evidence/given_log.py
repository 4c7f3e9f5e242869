"""A pack of another log, with everything that follows from it made again: what somebody does who makes up a log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from packs import put_together, with_lines

from fl_node.evidence.proofs import Tree
from fl_node.ledger import codec, tree
from fl_node.ledger.checkpoint import parse
from fl_node.records import Update, UpdatePublished


def updates_in(lines: list[dict[str, Any]]) -> list[Update]:
    """What was published, of the lines of a log."""
    found = []
    for line in lines:
        topics = tuple(bytes.fromhex(topic) for topic in line["topics"])
        _, _, body = codec.decode(topics, bytes.fromhex(line["data"])) if len(topics) > 1 else (0, 0, None)
        if isinstance(body, UpdatePublished):
            found.append(body.update)
    return found


def with_log(files: dict[str, bytes], lines: list[dict[str, Any]], out: Path) -> Path:
    """The pack with these entries: root and proofs are theirs. The lineage is left out."""
    leaves = [
        tree.entry_leaf([bytes.fromhex(topic) for topic in line["topics"]], bytes.fromhex(line["data"]))
        for line in lines
    ]
    log = Tree(leaves)
    files = {name: raw for name, raw in files.items() if name != "lineage.prov.json"}
    files = with_lines(files, "log", lines)
    proofs = []
    for index in range(log.size):
        proof = log.inclusion(index)
        proofs.append({"index": index, "leaf": proof.leaf.hex(), "path": [node.hex() for node in proof.path]})
    files = with_lines(files, "proofs/inclusion", proofs)
    signed = [parse(raw).checkpoint.size for name, raw in files.items() if name.startswith("checkpoints/")]
    sizes = sorted({*(update.seen for update in updates_in(lines)), *signed})
    earlier = []
    for size in (one for one in sizes if 1 <= one <= log.size):
        found = log.consistency(size)
        path = [node.hex() for node in found.path]
        earlier.append({"old": size, "old_root": found.old_root.hex(), "path": path})
    files = with_lines(files, "proofs/consistency", earlier)

    def listed(table: dict[str, Any]) -> None:
        table["head"] |= {"size": log.size, "root": log.root.hex()}

    return put_together(files, out, listed=listed)
