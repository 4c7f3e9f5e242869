"""A parser that tells of the command at hand what is wrong with it, in the words of the other messages."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from fl_node.cli.text import told

_MOST_CHARACTERS: Final = 1000
_NUMBER: Final = re.compile(r"invalid (int|float) value: ('.*')", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """An argument parser. Whatever is left over is an error of the command that got it, not of the whole program."""

    def parse_known_args(  # type: ignore[override]  # of the many forms, those that argparse itself calls
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse; nothing is ever left over."""
        words = sys.argv[1:] if args is None else args
        self._look_for_early_options(words)
        found, left = super().parse_known_args(words, namespace)
        if left:
            got = " ".join(left)
            self.error(f"got {got}, which {self.prog} does not take; `{self.prog} --help` lists what it does")
        return found, []

    def error(self, message: str) -> NoReturn:
        """Print the command's usage and what is wrong, and leave with exit code 2."""
        message = _NUMBER.sub(_expected_number, message)
        if len(message) > _MOST_CHARACTERS:
            message = f"{message[:_MOST_CHARACTERS]}... of {len(message)} characters"
        super().error(told(message))

    def _look_for_early_options(self, words: Sequence[str]) -> None:
        """Where commands follow: leave, if an option of theirs stands before them. Its value would pass for one."""
        commands = next((action.choices for action in self._actions if action.nargs == argparse.PARSER), None)
        own = [option for action in self._actions for option in action.option_strings]
        if commands is None:
            return
        for word in words:
            if not word.startswith("-") or word == "--":
                return
            if not any(option.startswith(word) for option in own):
                command = next((name for name in words if name in commands), "COMMAND")
                self.error(
                    f"got {word} before the command; its options stand behind it, as in `{self.prog} {command} "
                    f"{word}`: `{self.prog} {command} --help` lists them"
                )


def _expected_number(found: re.Match[str]) -> str:
    return f"got {found[2]}; expected a {'whole ' if found[1] == 'int' else ''}number"
