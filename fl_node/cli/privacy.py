"""``fl-node privacy``"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from fl_node.access import deployed
from fl_node.budget import FILE_NAME, Account, Spending, set_aside, shown
from fl_node.cli.console import Out
from fl_node.cli.settings import settings_of
from fl_node.cli.state_folder import state_folder
from fl_node.config import NodeConfig
from fl_node.errors import BudgetSpent, FlNodeError, KeystoreError, LedgerError, UsageError
from fl_node.ledger.keylock import alone
from fl_node.own_trainings import OwnTrainings, at_hand, ledger_name, on_the_ledger
from fl_node.spec import Spec
from fl_node.tables import PrivacySpec

#: Of a long history, so many trainings are shown.
_SHOWN = 30


def privacy(arguments: argparse.Namespace) -> int:
    """What this peer has spent of its privacy budget, training by training. Needs no chain and no password."""
    config = settings_of(arguments)
    federation, deployment = deployed(config)
    asked = federation.spec.privacy
    if asked.mechanism == "none":
        raise UsageError(
            "privacy.mechanism = 'none': this federation trains without differential privacy, so nothing is counted; "
            "another mechanism is another federation"
        )
    state, ledger = state_folder(config), ledger_name(deployment)
    record = at_hand(config, federation, deployment)
    if arguments.assume_spent:
        _give_up(state, ledger, lambda: _known(config, record))
    account = Account(state, ledger)
    account.check(record.sequences, f"the record at hand ({' and '.join(record.sources)})")
    left, unknown = _left(federation.spec, account)
    if arguments.json:
        print(json.dumps(_as_json(asked, account, record, left, unknown), indent=1))
    else:
        _print(federation.spec, account, record, _against(state, account, record), left, unknown)
    return 0


def _known(config: NodeConfig, record: OwnTrainings) -> frozenset[int]:
    """What to hold an account against before it is given up for good: the ledger as it is now, or else what is at hand.

    Raises:
        LedgerError, KeystoreError: the ledger cannot be asked, and nothing is at hand.
    """
    try:
        return record.sequences | on_the_ledger(config).sequences
    except (LedgerError, KeystoreError):
        if not record.sources:
            raise
        return record.sequences


def _give_up(state: Path, ledger: str, trained: Callable[[], Iterable[int]]) -> None:
    """Give up a budget whose account is lost; one that is whole stays as it is.

    Args:
        trained: own updates on record of rounds that train.

    Raises:
        UsageError: the account is whole.
        KeyInUse: the peer runs.
    """
    with alone(state):  # a peer that runs would write the account as it knows it
        try:
            account = Account(state, ledger)
        except BudgetSpent:
            set_aside(state)
            Account(state, ledger).assume_spent()
            return
        if account.assumed_spent:
            return
        if not account.missing(trained()):
            what = (
                f"the account {state / FILE_NAME} is whole: it has all of this peer's updates on record, and epsilon "
                f"{shown(account.epsilon)} spent"
                if account.found
                else f"there is no account in {state} yet, and no update of this peer on record that it should have"
            )
            raise UsageError(
                f"{what}. --assume-spent is for an account that is damaged, lost or older than the ledger: it ends "
                "this peer's training in this federation, and nothing undoes it. Nothing was changed; start the peer "
                "with `fl-node run`"
            )
        account.assume_spent()


def _spent(asked: PrivacySpec, account: Account, record: OwnTrainings) -> float | None:
    """What to say that was spent; ``None`` where there is no account, and nothing that says whether there should be."""
    return account.told(asked.epsilon) if account.found or record.sources else None


def _against(state: Path, account: Account, record: OwnTrainings) -> str:
    """What the account was held against, in words."""
    if account.assumed_spent:
        return ""
    there = f"as {state / FILE_NAME} has it" if account.found else f"there is no {FILE_NAME} in {state} yet"
    if record.sources:
        return f"{there}; {' and '.join(record.sources)} agree{'s' * (len(record.sources) == 1)} with that"
    return f"{there}; there was no copy of the ledger to hold that against: `fl-node doctor` asks the chain"


def _left(spec: Spec, account: Account) -> tuple[int | None, str]:
    """Trainings left like the last one, as many as are planned at most; or ``None`` and why that is not known."""
    if account.assumed_spent:
        return 0, ""
    if not account.spent:
        return None, "nothing has been trained yet; `fl-node run` says it when it starts"
    last = account.spent[-1]
    try:
        trainings_left = _accountant()
        stretches = [(one.noise_multiplier, one.sample_rate, one.steps) for one in account.spent]
        asked = spec.privacy
        if asked.mechanism == "none":
            return None, ""
        most = _planned(spec)
        return trainings_left(asked.mechanism, stretches, stretches[-1], asked.delta, asked.epsilon, most), ""
    except (FlNodeError, ImportError) as cause:
        return None, f"it takes the accountant to tell, after {shown(last.epsilon)}: {cause}"


def _planned(spec: Spec) -> int:
    return -(-spec.rounds.planned // spec.training.every)


def _accountant() -> Callable[..., int]:
    # It needs what training needs; all else here does not.
    from fl_node.learning.accountant import trainings_left

    return trainings_left


def _as_json(
    asked: PrivacySpec, account: Account, record: OwnTrainings, left: int | None, unknown: str
) -> dict[str, Any]:
    return {
        "account_found": account.found,
        "held_against": list(record.sources),
        "mechanism": asked.mechanism,
        "epsilon": _spent(asked, account, record),
        "delta": asked.delta,
        "budget_epsilon": asked.epsilon,
        "clip_norm": asked.clip_norm,
        "scores": asked.scores,
        "score_step_ppm": asked.score_step_ppm,
        "assumed_spent": account.assumed_spent,
        "trainings_left": left,
        "why_unknown": unknown,
        "untrained": sorted(account.skipped),
        "trainings": [asdict(one) for one in account.spent],
    }


def _print(spec: Spec, account: Account, record: OwnTrainings, against: str, left: int | None, unknown: str) -> None:
    asked = spec.privacy
    out = Out(highlight=False, markup=False)
    whose = "each row of this peer's (DP-SGD)" if asked.mechanism == "example" else "each update of this peer's"
    out.print(f"differential privacy of {whose}")
    spent = _spent(asked, account, record)
    known = "unknown, out" if spent is None else f"epsilon {shown(spent)}"
    out.print(f"spent     {known} of {asked.epsilon:g}, at delta {asked.delta:g}")
    if against:
        out.print(f"account   {against}", soft_wrap=True)
    if account.assumed_spent:
        out.print("          given up: what was spent is not known, so all of it counts; nothing will be any more")
    more = " or more" if left == _planned(spec) else ""
    told = "unknown" if left is None else f"{left}{more} round{'s' * (left != 1)} of training like the last"
    out.print(f"left      {told}{f': {unknown}' if unknown else ''}")
    scores = f"rounded to {asked.score_step_ppm:,} ppm" if asked.scores == "coarse" else "withheld"
    out.print(f"scores    {scores}; metrics and losses withheld; not in epsilon")
    if account.skipped:
        out.print(f"untrained {len(account.skipped)} update{'s' * (len(account.skipped) != 1)}, for want of budget")
    if account.spent:
        out.print(_table(account.spent))


def _table(spent: tuple[Spending, ...]) -> Table:
    latest = spent[-_SHOWN:]
    hidden = len(spent) - len(latest)
    title = f"the last {len(latest)} of {len(spent)} trainings" if hidden else None
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for name in ("update", "attempt", "noise", "sample rate", "steps", "epsilon"):
        table.add_column(name, justify="right")
    for one in latest:
        table.add_row(
            *(str(one.sequence), str(one.attempt), f"{one.noise_multiplier:.4g}"),
            *(f"{one.sample_rate:.4g}", str(one.steps), f"{one.epsilon:.4f}"),
        )
    return table
