"""A spec as a person would write it: TOML text from tables of keys, with comments where they are due."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fl_node.presets import Preset, Tables
from fl_node.spec import Spec

_WIDEST: Final = 44


def merged(*layers: Tables) -> Tables:
    """The keys of all layers by table; a later layer wins."""
    found: Tables = {}
    for layer in layers:
        for table, keys in layer.items():
            found.setdefault(table, {}).update(keys)
    return found


def spec_text(
    name: str, tables: Tables, *, head: Iterable[str] = (), notes: Mapping[tuple[str, str], str] | None = None
) -> str:
    """A spec's TOML text.

    Args:
        name: the federation's name.
        tables: keys by table, in the order of the result; tables come in the order of docs/configuration.md.
        head: comment lines at the top.
        notes: what to say of keys, by (table, key).
    """
    told = notes or {}
    wrapped = [part for line in head for part in textwrap.wrap(line, 110) or [""]]
    lines = [*(f"# {line}".rstrip() for line in wrapped), "format = 1", f"name = {_toml(name)}"]
    for table, keys in ((table, tables[table]) for table in Spec.model_fields if table in tables):
        set_to = {key: f"{key} = {_toml(value)}" for key, value in keys.items()}
        width = min(_WIDEST, max((len(line) for key, line in set_to.items() if (table, key) in told), default=0))
        lines += ["", f"[{table}]"]
        lines += [
            f"{line:<{width}}  # {told[table, key]}" if (table, key) in told else line for key, line in set_to.items()
        ]
    return "\n".join(lines) + "\n"


def preset_head(chosen: Preset, peers: int | None) -> tuple[str, ...]:
    """What a spec's first lines say of the preset that its keys come from."""
    many = "" if peers is None or not chosen.depends_on_peers else f" for {peers} peers"
    return (
        f"Preset {chosen.name}{many}: {chosen.title}.",
        f"{chosen.what[0].upper()}{chosen.what[1:]}.",
        f"Source: {chosen.source}.",
        "The preset is nothing but the keys marked with its name: change any of them before deploying.",
    )


def preset_notes(chosen: Preset, overrides: Tables) -> dict[tuple[str, str], str]:
    """Marks a preset's keys with its name."""
    return {(table, key): f"preset {chosen.name}" for table, keys in overrides.items() for key in keys}


def meanings(tables: Tables) -> dict[tuple[str, str], str]:
    """What each key means, in the words of docs/configuration.md."""
    found = {}
    for table, keys in tables.items():
        model: Any = Spec.model_fields[table].annotation
        for key in keys:
            found[table, key] = str(model.model_fields[key].description)
    return found


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
