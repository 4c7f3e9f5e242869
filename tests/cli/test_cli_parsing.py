"""What is said of words that a command does not take: of that command, in words that say what to do."""

from __future__ import annotations

import pytest

from fl_node.cli.parser import build_parser


def said(capsys: pytest.CaptureFixture[str], line: str) -> str:
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(line.split())
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "command", "word"),
    [
        ("run d", "fl-node run", "d"),
        ("audit foo", "fl-node audit", "foo"),
        ("audit --foo", "fl-node audit", "--foo"),
        ("keys rotate show", "fl-node keys rotate", "show"),
        ("keys --json show now", "fl-node keys show", "now"),
        ("show 1#1 1#2", "fl-node show", "1#2"),
        ("checkpoint verify x --fast", "fl-node checkpoint verify", "--fast"),
        ("lineage 1#1 --json 1#2", "fl-node lineage", "1#2"),
    ],
)
def test_what_a_command_does_not_take(capsys: pytest.CaptureFixture[str], line: str, command: str, word: str) -> None:
    err = said(capsys, line)
    assert err.startswith(f"usage: {command} [-h]")
    assert f"{command}: error: got {word}, which {command} does not take; `{command} --help`" in err


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("--json status", "fl-node status --json"),
        ("--state x show 1#1", "fl-node show --state"),
        ("--state", "fl-node COMMAND --state"),
        ("keys --state x show", "fl-node keys show --state"),
        ("checkpoint --json --offline verify x", "fl-node checkpoint verify --offline"),
    ],
)
def test_an_option_before_its_command(capsys: pytest.CaptureFixture[str], line: str, right: str) -> None:
    err = said(capsys, line)
    assert "before the command" in err and f"`{right}`" in err and "invalid choice" not in err


@pytest.mark.parametrize("line", ["--version", "--help", "-h", "--vers", "keys --help"])
def test_the_programs_own_options(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(line.split())
    assert caught.value.code == 0 and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("share 1#1 --to 0", "got 0; expected the number of a peer, from 1"),
        ("share 1#1 --to -1", "got -1; expected the number of a peer, from 1"),
        ("share 1#1 --to x", "got x; expected the number of a peer, from 1"),
        ("audit --peer 0", "got 0; expected the number of a peer, from 1"),
        ("export --out x --round 0", "got 0; expected the number of a round, from 1"),
        ("audit --depth x", "got x; expected a number of blocks, from 0"),
        ("log --from x", "got x; expected the number of an entry, from 0"),
        ("demo --peers x", "got 'x'; expected a whole number"),
        ("monitor --every x", "got 'x'; expected a number"),
    ],
)
def test_numbers(capsys: pytest.CaptureFixture[str], line: str, expected: str) -> None:
    assert expected in said(capsys, line)


def test_a_long_word_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(said(capsys, "cid x " + "y" * 5000)) < 1500
