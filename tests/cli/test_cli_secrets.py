"""A private key that was pasted where none belongs is told nowhere."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest

from fl_node import __main__ as entry_point
from fl_node.cli import doctor
from fl_node.cli.exposed import exposed_key
from fl_node.cli.parser import build_parser
from fl_node.errors import KeyringError, UsageError
from fl_node.sealing.age import Identity
from fl_node.sealing.identities import read_identities
from fl_node.sealing.redaction import SHOWN, holds_secret, redacted

KEY = Identity.generate().text()
FORMS = {
    "as it is": KEY,
    "lower case": KEY.lower(),
    "for a URL": KEY.replace("-", "%2D"),
    "for a URL throughout": "".join(f"%{ord(letter):02x}" for letter in KEY),
    "cut": KEY[:40],
    "without its beginning": KEY[4:],
    "of another kind": KEY.replace("KEY-1", "KEY-PQ-1"),
}


def bare(text: str) -> bool:
    """Whether none of the key is in the text but its prefix."""
    secret = KEY[20:36].lower()
    coded = "".join(f"%{ord(letter):02x}" for letter in KEY[20:36])
    return secret not in text.lower() and coded not in text.lower()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    "command",
    [
        "audit --identity {}",
        "audit --identity={}",
        "audit --identity {} --verbose --json",
        "receive {}",
        "receive x{}y",
        "share {} --to 1",
        "share 1#1 --to {}",
        "run {}",
        "{}",
        "model --out {}",
        "doctor --json --federation {}",
    ],
)
def test_a_key_on_the_command_line(capsys: pytest.CaptureFixture[str], command: str, form: str) -> None:
    assert entry_point.main([word.format(form) for word in command.split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and bare(err) and "Traceback" not in err
    assert SHOWN in err and "name of a file" in err and "exposed" in err and "history" in err


@pytest.mark.parametrize("option", ["--key {}", "--key={}", "--identity {}", "--password-file {}"])
@pytest.mark.parametrize("digits", ["0x" + "5f" * 32, "5F" * 32])
def test_an_accounts_key(capsys: pytest.CaptureFixture[str], option: str, digits: str) -> None:
    assert entry_point.main(["share", "1#1", "--to", "2", *option.format(digits).split()]) == 2
    assert digits not in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["audit", "--identity", "age-secret-keys.txt"],
        ["show", "5f" * 32],
        ["--key"],
        ["run", "--key", "secret-key-1production.json"],
        ["model", "--out", "100%"],
        ["retire", "--reason", "told everybody its AGE-SECRET-KEY-1..."],
    ],
)
def test_what_is_no_key(words: list[str]) -> None:
    assert exposed_key(words) is None


def test_a_key_in_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FL_NODE_FEDERATION", KEY)
    for more in ([], ["--verbose"], ["--json"]):
        assert entry_point.main(["status", *more]) not in (0, 1)
        out, err = capsys.readouterr()
        assert out == "" and bare(err) and SHOWN in err and "exposed" in err
        assert ("Traceback" in err) is ("--verbose" in more)


@pytest.mark.parametrize("error", [UsageError, ValueError])
def test_a_key_in_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def broken(arguments: object) -> int:
        raise error(f"cannot read {KEY}\nat all") from OSError(f"no such file: {KEY}")

    monkeypatch.setattr(doctor, "doctor", broken)
    for more in ([], ["--verbose"]):
        assert entry_point.main(["doctor", *more]) == (2 if error is UsageError else 1)
        err = capsys.readouterr().err
        assert bare(err) and f"cannot read {SHOWN}" in err


def test_a_key_in_what_the_parser_says(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["run", KEY], [KEY], ["share", "1#1", "--to", KEY], [f"--{KEY}", "run"]):
        with pytest.raises(SystemExit):
            build_parser().parse_args(words)
        err = capsys.readouterr().err
        assert bare(err) and (SHOWN in err or f"{KEY[:20]}..." in err)


def test_a_key_for_a_file_in_python(tmp_path: Path) -> None:
    for form in FORMS.values():
        with pytest.raises(KeyringError, match="name of a file") as caught:
            read_identities(tmp_path / form)
        assert bare("".join(traceback.format_exception(caught.value)).replace(form, "", 0))
    assert redacted(json.dumps({"file": KEY})) == json.dumps({"file": SHOWN})
    assert not holds_secret("AGE-SECRET-KEY-1...") and redacted("100% of AGE-SECRET-KEY-1...").endswith("1...")
