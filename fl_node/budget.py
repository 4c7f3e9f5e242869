"""The account of a peer's privacy budget: what every training may have told of its rows, on disk before any noise is.

One JSON file in the state folder, replaced by atomic rename. A crash after an entry is written counts the training as
done, though nothing of it was published; the training that follows is another entry. Nothing ever counts for less than
was drawn. What a training costs is worked out by :mod:`fl_node.learning.accountant`; here it is only kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from fl_node.errors import BudgetSpent, StoreFull, UsageError

FILE_NAME: Final = "privacy.json"
_FORMAT: Final = 1
#: No epsilon and no noise that is worked out is as large; comparing with it also refuses what is no number.
_MOST: Final = 1e300


def shown(epsilon: float) -> str:
    """An epsilon as every message tells it: to four digits, so that 2.995 of 3 is not told as all of it."""
    return f"{epsilon:.4g}"


@dataclass(frozen=True, slots=True)
class Spending:
    """One training that drew noise, or was about to.

    ``sequence``: of the update that it was for; ``attempt``: from 1, more where a training was done again.
    ``noise_multiplier``: standard deviation of the noise over ``clip_norm``. ``sample_rate``: probability that a row is
    in a step's batch; 1 where a whole update is what is protected. ``epsilon``: spent by all trainings up to this one,
    at the spec's delta.
    """

    sequence: int
    attempt: int
    noise_multiplier: float
    sample_rate: float
    steps: int
    epsilon: float


class Account:
    """What one peer has spent on one ledger.

    Args:
        folder: the peer's state folder; ``None`` keeps the account in memory, for a simulation.
        ledger: names the ledger that it is for.

    Raises:
        BudgetSpent: the file is damaged. Nothing is changed.
        UsageError: the file is the account of another ledger.
    """

    def __init__(self, folder: Path | None = None, ledger: str = "") -> None:
        self._path = None if folder is None else folder / FILE_NAME
        self._ledger = ledger
        self._spent: tuple[Spending, ...] = ()
        self._skipped: frozenset[int] = frozenset()
        self._assumed = False
        if self._path is not None:
            self._read(self._path)

    @property
    def found(self) -> bool:
        """Whether there is a file of it, from now or an earlier run."""
        return self._path is not None and self._path.exists()

    @property
    def spent(self) -> tuple[Spending, ...]:
        """Every training, oldest first."""
        return self._spent

    @property
    def skipped(self) -> frozenset[int]:
        """Updates for which nothing was trained, since the budget did not allow it."""
        return self._skipped

    @property
    def assumed_spent(self) -> bool:
        """Whether the operator has given the budget up (:meth:`assume_spent`)."""
        return self._assumed

    def told(self, budget: float) -> float:
        """What to say that was spent: where it is not known, all of the budget (epsilon), for no training ever goes
        beyond that."""
        return budget if self._assumed else self.epsilon

    @property
    def epsilon(self) -> float:
        """Spent so far, by the trainings that are known."""
        return self._spent[-1].epsilon if self._spent else 0.0

    def spend(
        self, sequence: int, *, noise_multiplier: float, sample_rate: float, steps: int, epsilon: float
    ) -> Spending:
        """Enter a training, durably: it is on disk when this returns, and only then may noise be drawn.

        Args:
            epsilon: of all trainings together, this one included.

        Raises:
            StoreFull: the file cannot be written. Nothing is entered, so nothing must be drawn.
        """
        attempt = 1 + sum(one.sequence == sequence for one in self._spent)
        entry = Spending(sequence, attempt, noise_multiplier, sample_rate, steps, epsilon)
        self._write((*self._spent, entry), self._skipped, self._assumed)
        return entry

    def skip(self, sequence: int) -> None:
        """Note that an update's round trained nothing, since the budget did not allow it.

        Raises:
            StoreFull: the file cannot be written.
        """
        if sequence not in self._skipped:
            self._write(self._spent, self._skipped | {sequence}, self._assumed)

    def assume_spent(self) -> None:
        """Give the budget up: whatever was spent before, nothing will be any more.

        Raises:
            StoreFull: the file cannot be written.
        """
        self._write(self._spent, self._skipped, True)

    def missing(self, trained: Iterable[int]) -> tuple[int, ...]:
        """Those of one's own updates of rounds that train which are not entered."""
        return tuple(sorted(set(trained) - self._skipped - {one.sequence for one in self._spent}))

    def check(self, trained: Iterable[int], where: str = "the ledger") -> None:
        """Hold the account against what is on record: each update of a round that trains has to be in it.

        Args:
            trained: sequences of one's own updates of rounds in which the spec trains.
            where: what has them.

        Raises:
            BudgetSpent: some are not: the file was lost, or is an old copy. What they spent is unknown.
        """
        missing = () if self._assumed else self.missing(trained)
        if missing:
            known = len(self._skipped | {one.sequence for one in self._spent})
            shown = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
            gone = "" if self._path is None or self.found else " (there is no such file)"
            raise BudgetSpent(
                f"the account of the privacy budget, {self._path or 'in memory'}{gone}, has {known} updates; {where} "
                f"has others of this peer besides: {shown}. What they spent is not known, so no more noise may be "
                f"drawn. {_HOW_TO_GO_ON}"
            )

    def _read(self, path: Path) -> None:
        try:
            table = json.loads(path.read_text("utf-8"))
            ledger, spent, skipped, assumed = _account(table)
        except FileNotFoundError:
            return
        except (ValueError, OSError, RecursionError) as cause:
            raise BudgetSpent(
                f"the account of the privacy budget, {path}, cannot be read ({_why(cause)}). What was spent is not "
                f"known, so no more noise may be drawn. {_HOW_TO_GO_ON}"
            ) from cause
        if ledger != self._ledger:
            raise UsageError(
                f"{path} is the account of the ledger {ledger or '(none)'}, expected {self._ledger or '(none)'}; use "
                "a state folder of its own for every federation (--state)"
            )
        self._spent, self._skipped, self._assumed = spent, skipped, assumed

    def _write(self, spent: tuple[Spending, ...], skipped: frozenset[int], assumed: bool) -> None:
        if self._path is not None:
            table = {
                "format": _FORMAT,
                "ledger": self._ledger,
                "assumed_spent": assumed,
                "skipped": sorted(skipped),
                "spent": [asdict(one) for one in spent],
            }
            try:
                _replace(self._path, json.dumps(table, indent=1, allow_nan=False))
            except OSError as cause:
                raise StoreFull(
                    f"cannot write {self._path}: {cause.strerror}; no noise is drawn before that is. Free some space "
                    "or make the folder writable, then start again: the round goes on where it was"
                ) from cause
        self._spent, self._skipped, self._assumed = spent, skipped, assumed


_HOW_TO_GO_ON: Final = (
    f"Put the newest copy of {FILE_NAME} back, or run `fl-node privacy --assume-spent`: this peer then goes on merging "
    "and publishing what it merged, and trains no more"
)


def set_aside(folder: Path) -> Path | None:
    """Rename an account out of the way, so that a new one can begin; where it is now, or ``None`` if there was none.
    Only for a budget that is then given up.

    Raises:
        StoreFull: the folder cannot be written.
    """
    path = folder / FILE_NAME
    aside = path.with_suffix(".damaged")
    try:
        path.replace(aside)
    except FileNotFoundError:
        return None
    except OSError as cause:
        raise StoreFull(f"cannot rename {path}: {cause.strerror}; make the folder writable") from cause
    return aside


def _replace(path: Path, text: str) -> None:
    """Atomically and durably, the folder's entry included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _why(cause: BaseException) -> str:
    """Why a file cannot be read, in words for whoever has to mend it."""
    match cause:
        case OSError():
            return cause.strerror or "it cannot be opened"
        case UnicodeDecodeError():
            return "it is no UTF-8 text"
        case json.JSONDecodeError():
            return f"it is no whole JSON text: line {cause.lineno}, column {cause.colno}"
        case RecursionError():
            return "it is nested too deep"
    return str(cause)


def _account(table: Any) -> tuple[str, tuple[Spending, ...], frozenset[int], bool]:
    """Ledger, trainings, untrained updates, and whether the budget was given up.

    Raises:
        ValueError: it is no account; says why.
    """
    if not isinstance(table, dict):
        raise ValueError(f"it holds {_kind(table)}, expected an object")
    if table.get("format") != _FORMAT:
        raise ValueError(f"its format is {table.get('format')!r}, expected {_FORMAT}")
    ledger, assumed = table.get("ledger"), table.get("assumed_spent")
    if not isinstance(ledger, str) or not isinstance(assumed, bool):
        key, expected = ("assumed_spent", "true or false") if isinstance(ledger, str) else ("ledger", "a text")
        raise ValueError(f"its {key} is {_kind(table.get(key))}, expected {expected}")
    skipped, spent = table.get("skipped"), table.get("spent")
    if not isinstance(skipped, list) or not all(_whole(one) for one in skipped):
        raise ValueError("its skipped is no list of update numbers")
    if not isinstance(spent, list):
        raise ValueError(f"its spent is {_kind(spent)}, expected a list of trainings")
    return ledger, tuple(_spending(one, at) for at, one in enumerate(spent, 1)), frozenset(skipped), assumed


def _spending(table: Any, at: int) -> Spending:
    keys = tuple(field.name for field in fields(Spending))
    if not isinstance(table, dict) or not set(keys) <= table.keys():
        raise ValueError(f"training {at} in it has not all of {', '.join(keys)}")
    sound = {
        "sequence": _whole(table["sequence"]),
        "attempt": _whole(table["attempt"]),
        "noise_multiplier": _number(table["noise_multiplier"]) and table["noise_multiplier"] > 0.0,
        "sample_rate": _number(table["sample_rate"]) and 0.0 < table["sample_rate"] <= 1.0,
        "steps": _whole(table["steps"]),
        "epsilon": _number(table["epsilon"]) and table["epsilon"] >= 0.0,
    }
    wrong = next((key for key, well in sound.items() if not well), None)
    if wrong is not None:
        raise ValueError(f"training {at} in it has {wrong} = {json.dumps(table[wrong])[:40]}, which none can have")
    return Spending(
        sequence=table["sequence"],
        attempt=table["attempt"],
        noise_multiplier=float(table["noise_multiplier"]),
        sample_rate=float(table["sample_rate"]),
        steps=table["steps"],
        epsilon=float(table["epsilon"]),
    )


def _whole(value: Any) -> bool:
    """From 1 on, as updates, attempts and steps are counted."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**63


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST


def _kind(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "missing"}
    return names.get(type(value), "a number")
