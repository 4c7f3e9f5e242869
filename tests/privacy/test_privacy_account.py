"""The account of the budget: on disk before noise, never less than what was drawn, and never silently begun anew."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fl_node.budget import FILE_NAME, Account, Spending
from fl_node.cli.privacy import _give_up
from fl_node.errors import BudgetSpent, KeyInUse, StoreFull, UsageError
from fl_node.ledger.keylock import KeyLock

ONCE = {"noise_multiplier": 1.5, "sample_rate": 0.1, "steps": 20}

CHILD = """
import os, signal, sys
from pathlib import Path
from fl_node import budget
from fl_node.budget import Account

account = Account(Path(sys.argv[1]), "chain")
account.spend(1, noise_multiplier=1.5, sample_rate=0.1, steps=20, epsilon=0.5)
if sys.argv[2] == "before":
    budget.os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)
account.spend(2, noise_multiplier=1.5, sample_rate=0.1, steps=20, epsilon=0.7)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_is_spent_is_there_for_the_next_process(tmp_path: Path) -> None:
    account = Account(tmp_path, "chain")
    assert account.epsilon == 0.0 and account.spent == ()
    account.spend(1, **ONCE, epsilon=0.5)
    account.spend(1, **ONCE, epsilon=0.7)
    account.skip(2)
    again = Account(tmp_path, "chain")
    assert again.spent == (Spending(1, 1, 1.5, 0.1, 20, 0.5), Spending(1, 2, 1.5, 0.1, 20, 0.7))
    assert again.epsilon == 0.7 and again.skipped == {2} and not again.assumed_spent


@pytest.mark.parametrize(("when", "known"), [("before", [1]), ("after", [1, 2])])
def test_a_kill_leaves_the_account_before_or_after_an_entry_and_nothing_between(
    tmp_path: Path, when: str, known: list[int]
) -> None:
    done = subprocess.run([sys.executable, "-c", CHILD, tmp_path, when], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [one.sequence for one in Account(tmp_path, "chain").spent] == known


def test_a_budget_is_not_given_up_behind_the_back_of_a_peer_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer has the account in memory, and would write it without that."""
    monkeypatch.setenv("FL_NODE_LOCKS", str(tmp_path / "locks"))
    running = Account(tmp_path, "chain")
    lock = KeyLock("31337", "0x" + "1" * 40, tmp_path)
    with pytest.raises(KeyInUse, match="stop it first"):
        _give_up(tmp_path, "chain", lambda: [1, 2])
    running.spend(1, **ONCE, epsilon=0.5)
    lock.close()
    _give_up(tmp_path, "chain", lambda: [1, 2])
    account = Account(tmp_path, "chain")
    assert account.assumed_spent and account.epsilon == 0.5


def test_nothing_is_entered_that_cannot_be_written(tmp_path: Path) -> None:
    account = Account(tmp_path, "chain")
    (tmp_path / FILE_NAME).with_suffix(".new").mkdir()
    with pytest.raises(StoreFull, match="no noise is drawn before"):
        account.spend(1, **ONCE, epsilon=0.5)
    assert account.spent == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": 2, "ledger": "chain", "spent": [], "skipped": [], "assumed_spent": false}',
        '{"format": 1, "ledger": "chain", "skipped": [], "assumed_spent": false}',
        json.dumps(
            {
                "format": 1,
                "ledger": "chain",
                "skipped": [],
                "assumed_spent": False,
                "spent": [{**ONCE, "sequence": 1, "attempt": 1, "epsilon": -1.0}],
            }
        ),
    ],
)
def test_a_damaged_account_stops_the_peer_and_stays_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(BudgetSpent, match=r"cannot be read .* `fl-node privacy --assume-spent`") as caught:
        Account(tmp_path, "chain")
    assert caught.value.exit_code == 31
    assert (tmp_path / FILE_NAME).read_text() == text


def test_a_lost_or_old_account_is_found_out_by_the_ledger(tmp_path: Path) -> None:
    account = Account(tmp_path, "chain")
    account.check([])
    account.spend(1, **ONCE, epsilon=0.5)
    account.skip(2)
    account.check([1, 2])
    old = (tmp_path / FILE_NAME).read_bytes()
    account.spend(3, **ONCE, epsilon=0.7)
    account.check([1, 2, 3])
    (tmp_path / FILE_NAME).write_bytes(old)
    with pytest.raises(BudgetSpent, match="the ledger has others of this peer besides: 3"):
        Account(tmp_path, "chain").check([1, 2, 3])
    (tmp_path / FILE_NAME).unlink()
    with pytest.raises(BudgetSpent, match=r"has 0 updates.*: 1, 2, 3"):
        Account(tmp_path, "chain").check([1, 2, 3])
    Account(tmp_path, "chain").assume_spent()
    Account(tmp_path, "chain").check([1, 2, 3])


WHOLE = {"format": 1, "ledger": "chain", "skipped": [], "assumed_spent": False, "spent": []}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "it holds a list, expected an object"),
        ("3", "it holds a number, expected an object"),
        ("{", "it is no whole JSON text: line 1, column 2"),
        ("[" * 100_000, "it is nested too deep"),
        (json.dumps(WHOLE | {"spent": None}), "its spent is missing, expected a list of trainings"),
        (json.dumps(WHOLE | {"spent": [3]}), "training 1 in it has not all of sequence, attempt"),
        (json.dumps(WHOLE | {"skipped": [[]]}), "its skipped is no list of update numbers"),
        (json.dumps(WHOLE | {"assumed_spent": 1}), "its assumed_spent is a number, expected true or false"),
        *(
            (
                json.dumps(WHOLE | {"spent": [{**ONCE, "sequence": 1, "attempt": 1, "epsilon": 0.5} | wrong]}),
                f"training 1 in it has {next(iter(wrong))} = ",
            )
            for wrong in (
                {"epsilon": -1.0},
                {"epsilon": float("nan")},
                {"steps": None},
                {"noise_multiplier": "1"},
                {"sample_rate": 2},
                {"sequence": True},
            )
        ),
    ],
)
def test_what_is_wrong_with_an_account_is_said_in_words(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(BudgetSpent) as caught:
        Account(tmp_path, "chain")
    message = str(caught.value)
    assert words in message
    assert not any(name in message for name in ("Error", "Spending", "NoneType", "dict", "object is not"))


def test_a_budget_whose_account_is_whole_is_not_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FL_NODE_LOCKS", str(tmp_path / "locks"))
    with pytest.raises(UsageError, match=r"there is no account in .* yet, and no update of this peer on record"):
        _give_up(tmp_path, "chain", list)
    assert not (tmp_path / FILE_NAME).exists()
    Account(tmp_path, "chain").spend(1, **ONCE, epsilon=0.5)
    kept = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(UsageError, match=r"is whole: it has all .* epsilon 0.5 spent.*nothing undoes it"):
        _give_up(tmp_path, "chain", lambda: [1])
    assert (tmp_path / FILE_NAME).read_bytes() == kept
    _give_up(tmp_path, "chain", lambda: [1, 2])
    assert Account(tmp_path, "chain").assumed_spent
    _give_up(tmp_path, "chain", lambda: [1])  # done is done


def test_another_ledger_has_an_account_of_its_own(tmp_path: Path) -> None:
    Account(tmp_path, "chain").spend(1, **ONCE, epsilon=0.5)
    with pytest.raises(UsageError, match="the account of the ledger chain, expected other; use a state folder"):
        Account(tmp_path, "other")


def test_in_memory_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    account = Account()
    account.spend(1, **ONCE, epsilon=0.5)
    assert account.epsilon == 0.5 and not list(tmp_path.iterdir())
