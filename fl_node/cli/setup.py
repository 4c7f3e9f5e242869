"""``fl-node init``"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from fl_node import keys
from fl_node.cli.settings import settings_of
from fl_node.cli.spec_file import write_spec
from fl_node.config import FILE_NAME, NodeConfig, write_config
from fl_node.errors import StoreFull, UsageError

_KEPT = ("federation", "rpc", "data", "data_dir", "password_file", "host", "port", "endpoint")


def init(arguments: argparse.Namespace) -> int:
    """Make a key and a node.toml in the state folder, or with a preset a federation's spec; never overwrites any."""
    if arguments.preset is not None:
        return write_spec(arguments)
    if arguments.peers is not None:
        raise UsageError(f"--peers {arguments.peers} without --preset; expected --preset NAME: it is for a spec file")
    if arguments.spec is not None:
        raise UsageError(f"--spec {arguments.spec} without --preset; expected --preset NAME: it is for a spec file")
    config = settings_of(arguments)
    state = config.state_path
    settings = state / FILE_NAME
    if settings.exists():
        raise UsageError(f"{settings} exists already; expected a new state folder: name another with --state")
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise StoreFull(f"cannot make the state folder {state}: {cause.strerror}; name another with --state") from cause
    password = keys.read_password(
        Path(config.password_file) if config.password_file else None,
        confirm=True,
        prompt="A password for the new key: ",
    )
    signer = keys.create(state / "key.json", password)
    write_config(settings, {key: getattr(config, key) for key in _KEPT if _given(arguments, config, key)})
    told = {"address": signer.address, "key": str(state / "key.json"), "settings": str(settings)}
    if arguments.json:
        print(json.dumps(told, indent=1))
        return 0
    print(f"address   {signer.address}")
    site = arguments.site or "YOUR-SITE"
    print(
        f"""
The key is in {told["key"]}. Whoever has it and the password is this peer, and nobody can make it again: keep a copy
of the file and the password offline, in two places, before you go on.

Next: give the address to the coordinator, who runs
    fl-node admit {signer.address} --site {site}
put the federation file they send you where {settings} says, and start
    fl-node run --state {state}""",
        file=sys.stderr,
    )
    return 0


def _given(arguments: argparse.Namespace, config: NodeConfig, key: str) -> bool:
    return getattr(arguments, key, None) is not None or getattr(config, key) != NodeConfig.model_fields[key].default
