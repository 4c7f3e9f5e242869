"""Write the reference pages that follow from the code: docs/configuration.md and docs/cli.md.

    python scripts/build_docs.py [--check]

With ``--check`` nothing is written; exit code 1 tells that a page is out of date.
"""

from __future__ import annotations

import argparse
import sys
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from fl_node import errors
from fl_node.cli.parser import build_parser
from fl_node.config import ENV_PREFIX, NodeConfig
from fl_node.spec import Deployment, Spec

DOCS = Path(__file__).resolve().parent.parent / "docs"
NOTE = "<!-- Written by scripts/build_docs.py from the code; edit the code's descriptions instead. -->\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the reference pages that follow from the code.")
    parser.add_argument("--check", action="store_true", help="only say whether the pages are up to date")
    check = parser.parse_args().check
    stale = []
    for name, text in {"configuration.md": configuration(), "cli.md": cli()}.items():
        path = DOCS / name
        if path.exists() and path.read_text("utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text, "utf-8")
    if stale:
        print(("out of date: " if check else "wrote: ") + ", ".join(stale))
    return 1 if check and stale else 0


def configuration() -> str:
    """docs/configuration.md"""
    lines = [
        NOTE,
        "# Configuration reference\n",
        "## The spec: `federation.toml`\n",
        "What every peer agrees to. The SHA-256 of the file's bytes is in the contract, so it cannot change afterwards. "
        "Every key has a default; an unknown key is an error. `scripts/deploy_contract.py` writes the *deployed* federation "
        "file: exactly those bytes, a marker line and a `[deployment]` table.\n",
        _table(Spec, ""),
    ]
    for key, field in Spec.model_fields.items():
        model = _model_of(field.annotation)
        if model is not None:
            lines += [f"### `[{key}]`\n", _doc(model), _table(model, "")]
    lines += [
        "### `[deployment]` (in the deployed file only)\n",
        _doc(Deployment),
        _table(Deployment, ""),
        "## One peer's settings: flags, environment, `node.toml`\n",
        "A flag beats the environment, the environment beats `node.toml` in the state folder, and that beats the default. "
        "`node.toml` takes every key but `state`.\n",
        "| key | flag | environment | default | meaning |",
        "|---|---|---|---|---|",
    ]
    for key, field in NodeConfig.model_fields.items():
        lines.append(
            f"| `{key}` | `--{key.replace('_', '-')}` | `{ENV_PREFIX}{key.upper()}` | {_shown(field.default)} "
            f"| {field.description} |"
        )
    lines += [
        "",
        "The keystore's password is asked for at the prompt, or read from `--password-file`, `FL_NODE_PASSWORD_FILE` or "
        "`FL_NODE_PASSWORD`.",
        "",
        "`FL_NODE_DATA_DIR` names a folder in which the spec's loaders look for their data sets when `--data-dir` is not given.",
    ]
    return "\n".join(lines) + "\n"


def cli() -> str:
    """docs/cli.md"""
    lines = [
        NOTE,
        "# Command line reference\n",
        "Data go to standard output, narration to standard error. `--json` gives machine-readable output, `--verbose` the "
        "traceback of an error. SIGINT and SIGTERM let the step under way finish and leave cleanly; a second one leaves at "
        "once, and the next start goes on where the round stopped.\n",
    ]
    for name, sub in _commands(build_parser()).items():
        lines += [f"## `fl-node {name}`\n", f"{sub.description}.\n", *_options(sub)]
        for kind, inner in _commands(sub).items():
            lines += [f"### `fl-node {name} {kind}`\n", f"{inner.description}.\n", *_options(inner)]
    lines += ["## Exit codes\n", "| code | error | meaning |", "|---|---|---|", "| 0 | | done |", "| 1 | | failed |"]
    for code, name, meaning in sorted(_exit_codes()):
        lines.append(f"| {code} | `{name}` | {meaning} |")
    lines += [
        "| 130 | | interrupted at the keyboard |",
        "",
        "## What `fl-node demo --json` writes\n",
        "| key | meaning |",
        "|---|---|",
        "| `preset` | the preset, or null |",
        "| `updates`, `entries` | updates and entries of any kind on the ledger |",
        "| `root` | RFC 6962 root over all entries |",
        "| `rpc`, `chain_id`, `contract`, `federation_file` | where the federation was |",
        "| `sites` | pseudonyms of the peers, in the order of all lists |",
        "| `measure` | what the numbers under `accuracy` are: `accuracy`, or `Dice` where masks are scored |",
        "| `accuracy.federated`, `accuracy.alone` | fraction right on the common test set, one per peer; `alone` is empty "
        "and `pooled` null with `--no-baselines` |",
        "| `accuracy.pooled` | the same for one model trained on all peers' data |",
        "| `bytes` | `published`, `fetched`, and `model` (one update's file) |",
        "| `seconds` | `total` wall time, and by phase: `setup`, `federation`, `baselines`, then the mean wall time a peer "
        "spent in `read`, `fetch`, `merge`, `train`, `evaluate`, `publish`, `record`, `wait` |",
        "| `failures` | what went wrong, empty where all went well |",
        "| `pack` | with `--export`: `file`, `digest` of its manifest, `size_bytes`, and what is `missing` in it; else null |",
    ]
    return "\n".join(lines) + "\n"


def _table(model: type[BaseModel], prefix: str) -> str:
    rows = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    for key, field in model.model_fields.items():
        if _model_of(field.annotation) is None:
            default = "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))
            rows.append(f"| `{prefix}{key}` | {default} | {_allowed(field)} | {field.description or ''} |")
    return "\n".join(rows) + "\n"


def _allowed(field: Any) -> str:
    schema = _Probe.of(field)
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    words = [{"array": "list", "object": "table"}.get(schema.get("type", ""), schema.get("type", ""))]
    for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<")):
        if key in schema:
            words.append(f"{sign} {schema[key]}")
    for key, sign in (("minLength", "≥"), ("maxLength", "≤")):
        if key in schema:
            words.append(f"{sign} {schema[key]} characters")
    return " ".join(words)


class _Probe:
    """The JSON schema of one field."""

    @staticmethod
    def of(field: Any) -> dict[str, Any]:
        from pydantic import TypeAdapter

        annotation: Any = typing.Annotated[field.annotation, field]
        return TypeAdapter(annotation).json_schema()


def _model_of(annotation: Any) -> type[BaseModel] | None:
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    for option in options:
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _doc(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip() + "\n"


def _shown(value: Any) -> str:
    if value == "" or value is None:
        return "empty"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _options(parser: argparse.ArgumentParser) -> list[str]:
    lines = ["| option | meaning |", "|---|---|"]
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
            continue
        words = ", ".join(f"`{option}`" for option in action.option_strings) or f"`{action.metavar or action.dest}`"
        if action.option_strings and action.nargs != 0 and not isinstance(action, argparse.BooleanOptionalAction):
            words += f" `{action.metavar or action.dest.upper()}`"
        named = ", ".join(action.choices) if isinstance(action, argparse._SubParsersAction) else ""
        meaning = (action.help or named).replace("%%", "%").replace("|", "\\|")
        lines.append(f"| {words.replace('|', chr(92) + '|')} | {meaning} |")
    return [*lines, ""]


def _exit_codes() -> list[tuple[int, str, str]]:
    found = []
    for name, thing in vars(errors).items():
        if not (isinstance(thing, type) and issubclass(thing, errors.FlNodeError)) or thing is errors.FlNodeError:
            continue
        if "exit_code" in vars(thing):
            found.append((thing.exit_code, name, " ".join((thing.__doc__ or "").split())))
    return found


if __name__ == "__main__":
    sys.exit(main())
