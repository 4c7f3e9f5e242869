"""Flags that several commands share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping

from fl_node.config import NodeConfig

Command = Callable[[str, str], argparse.ArgumentParser]


def settings(parser: argparse.ArgumentParser, *keys: str) -> None:
    """Flags for node settings. They default to None, so that environment and node.toml count when not given."""
    for key in keys:
        field = NodeConfig.model_fields[key]
        flag = "--" + key.replace("_", "-")
        help_text = f"{field.description} (default: {field.default!r})".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=help_text)
        else:
            kind: Callable[[str], object] = {int: int, float: float}.get(field.annotation, str)  # type: ignore[arg-type]
            parser.add_argument(flag, type=kind, default=None, metavar=key.upper(), help=help_text)


def identities(parser: argparse.ArgumentParser, what: str = "to read encrypted updates with") -> None:
    """``--identity FILE``, which may be repeated."""
    parser.add_argument(
        "--identity",
        dest="identities",
        action="append",
        default=[],
        metavar="FILE",
        help=f"file of private age keys, of `fl-node keys export` or age-keygen, {what}; may be repeated",
    )


def actions(
    sub: argparse.ArgumentParser, summaries: Mapping[str, str]
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """What a command can do, each with a parser of its own: files after options would not be found otherwise. Takes
    ``--json`` and ``--verbose`` on either side of the action's name."""
    parsers = sub.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, summary in summaries.items():
        action = parsers.add_parser(name, help=summary, description=summary)
        for flag in ("--json", "--verbose"):
            action.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        yield name, action


def entry(text: str) -> int:
    """The number of an entry."""
    return _number(text, "the number of an entry, from 0")


def peer(text: str) -> int:
    """The number of a peer."""
    return _number(text, "the number of a peer, from 1", least=1)


def round_number(text: str) -> int:
    """The number of a round."""
    return _number(text, "the number of a round, from 1", least=1)


def blocks(text: str) -> int:
    """A number of blocks."""
    return _number(text, "a number of blocks, from 0")


def _number(text: str, what: str, least: int = 0) -> int:
    if not re.fullmatch("[0-9]{1,18}", text) or int(text) < least:
        shown = text if len(text) <= 20 else f"{text[:20]}... of {len(text)} characters"
        raise argparse.ArgumentTypeError(f"got {shown}; expected {what}")
    return int(text)
