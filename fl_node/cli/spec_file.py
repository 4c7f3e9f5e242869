"""``fl-node init --preset``: the spec of a new federation, each key explained."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from fl_node.errors import UsageError
from fl_node.presets import Preset, Tables, preset
from fl_node.spec import parse_federation
from fl_node.spec_text import meanings, merged, preset_head, preset_notes, spec_text
from fl_node.unwritable import unwritable

#: What a coordinator looks at in any case, whatever the preset; works as it stands, on the digits that come along.
_START: Tables = {
    "task": {
        "data": "digits",
        "input_shape": (64,),
        "classes": 10,
        "metric": "accuracy",
        "validation": 0.1,
        "test": 0.2,
    },
    "model": {"name": "logistic", "seed": 0},
    "training": {"optimizer": "sgd", "learning_rate": 0.3, "batch_size": 16, "epochs": 1},
    "merging": {},
    "rounds": {"planned": 10},
}
_WAITING: Tables = {"rounds": {"quorum": 1.0, "deadline_s": 600.0}}
_END: Tables = {"content": {"retention_rounds": 20, "allow_networks": ()}}


def write_spec(arguments: argparse.Namespace) -> int:
    """Write the spec of a preset; never overwrites a file."""
    chosen = preset(arguments.preset)
    path = Path(arguments.spec or "federation.toml")
    text = explained(chosen, arguments.peers)
    parse_federation(text.encode(), str(path))
    try:
        with path.open("x", encoding="utf-8") as sink:
            sink.write(text)
    except FileExistsError as cause:
        raise UsageError(f"{path} exists already; expected a new file: name another with --spec") from cause
    except OSError as cause:
        raise unwritable(path, cause, "name another file with --spec") from cause
    if arguments.json:
        print(json.dumps({"spec": str(path), "preset": chosen.name, "peers": arguments.peers}, indent=1))
        return 0
    print(f"spec      {path}")
    print(
        f"""
Preset {chosen.name}: {chosen.what}.

Next: look at it, above all at [task] and [model], which are those of an example, and at content.allow_networks if
peers reach each other over a private network ("127.0.0.0/8" if all run on this machine). Then deploy it with
    python scripts/deploy_contract.py --rpc URL --spec {path} --member ADDRESS:SITE ...""",
        file=sys.stderr,
    )
    return 0


def explained(chosen: Preset, peers: int | None) -> str:
    """The text of a preset's spec, with what each key means.

    Raises:
        UsageError: the preset depends on the number of peers, and none is given; or too few.
    """
    if peers is not None and not 1 <= peers <= 2**31:
        raise UsageError(f"--peers {peers}: expected a whole number from 1 to {2**31}")
    if peers is None and chosen.depends_on_peers:
        raise UsageError(
            f"preset {chosen.name} depends on how many peers there are; expected --peers N: how many you will admit"
        )
    overrides = chosen.overrides(chosen.least_peers if peers is None else peers)
    waiting = _WAITING if overrides["rounds"]["mode"] == "sync" else {}
    tables = merged(_START, overrides, waiting, _END)
    notes = meanings(tables)
    for place, name in preset_notes(chosen, overrides).items():
        notes[place] = f"{name}: {notes[place]}"
    head = ("The spec of a federation: what every peer agrees to. All keys: docs/configuration.md.", "")
    return spec_text("my-federation", tables, head=(*head, *preset_head(chosen, peers)), notes=notes)
