"""What the tests of the documentation share: the pages, their code blocks, the program's commands and options."""

from __future__ import annotations

import argparse
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fl_node.cli.parser import build_parser

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^(?:<!-- test: (?P<name>[\w-]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. ``name`` is that of the comment `<!-- test: NAME -->` right above it."""

    page: Path
    language: str
    name: str
    text: str


def pages() -> list[Path]:
    """Every Markdown file of the repository, those not committed yet included, ignored ones not."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in sorted(set(listed.stdout.splitlines())) if (ROOT / name).is_file()]


def blocks(page: Path) -> list[Block]:
    return [
        Block(page, found["language"], found["name"] or "", found["text"])
        for found in _FENCE.finditer(page.read_text("utf-8"))
    ]


def commands(parser: argparse.ArgumentParser | None = None) -> dict[str, argparse.ArgumentParser]:
    """The subcommands of ``fl-node`` by name."""
    for action in (parser or build_parser())._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("the parser has no commands")


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Of a command, its actions' included."""
    found = {option for action in parser._actions for option in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(*map(options, action.choices.values()))
    return found
