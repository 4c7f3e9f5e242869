"""The state folder that a command looks into, and that it is one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fl_node.config import NodeConfig
from fl_node.errors import UsageError

#: What a peer's folder has from its first minute on, and what it may have kept when that was lost.
_OF_A_PEER: Final = (
    "key.json",
    "node.toml",
    "index.sqlite",
    "outbox.db",
    "recorded.json",
    "round.json",
    "privacy.json",
    "traffic.json",
    "content",
)


def state_folder(config: NodeConfig) -> Path:
    """The configured state folder.

    Raises:
        UsageError: there is none, or it is none of a peer.
    """
    folder = config.state_path
    if not folder.is_dir():
        raise UsageError(f"there is no state folder {folder}; expected that of a peer: name it with --state")
    if not any((folder / name).exists() for name in _OF_A_PEER):
        raise UsageError(
            f"{folder} is no state folder: it has no {', '.join(_OF_A_PEER[:3])} or anything else of a peer; expected "
            "the folder that `fl-node init` made: name it with --state"
        )
    return folder
