"""``fl-node privacy``"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from fl_node.access import deployed
from fl_node.budget import Account, Spending, set_aside
from fl_node.cli.console import Out
from fl_node.cli.settings import settings_of
from fl_node.errors import BudgetSpent, FlNodeError, UsageError
from fl_node.ledger.abi import address_bytes, checksum_address
from fl_node.ledger.keylock import alone
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
    ledger = f"{deployment.chain_id}/{checksum_address(address_bytes(deployment.contract))}"
    if arguments.assume_spent:
        _give_up(config.state_path, ledger)
    account = Account(config.state_path, ledger)
    left, unknown = _left(federation.spec, account)
    if arguments.json:
        print(json.dumps(_as_json(asked, account, left, unknown), indent=1))
    else:
        _print(federation.spec, account, left, unknown)
    return 0


def _give_up(state: Path, ledger: str) -> None:
    if not state.is_dir():
        raise UsageError(f"no state folder {state}; name this peer's with --state")
    with alone(state):  # a peer that runs would write the account as it knows it
        try:
            account = Account(state, ledger)
        except BudgetSpent:
            set_aside(state)
            account = Account(state, ledger)
        account.assume_spent()


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
        return None, f"it takes the accountant to tell, after {last.epsilon:.4g}: {cause}"


def _planned(spec: Spec) -> int:
    return -(-spec.rounds.planned // spec.training.every)


def _accountant() -> Callable[..., int]:
    # It needs what training needs; all else here does not.
    from fl_node.learning.accountant import trainings_left

    return trainings_left


def _as_json(asked: PrivacySpec, account: Account, left: int | None, unknown: str) -> dict[str, Any]:
    return {
        "mechanism": asked.mechanism,
        "epsilon": account.told(asked.epsilon),
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


def _print(spec: Spec, account: Account, left: int | None, unknown: str) -> None:
    asked = spec.privacy
    out = Out(highlight=False, markup=False)
    whose = "each row of this peer's (DP-SGD)" if asked.mechanism == "example" else "each update of this peer's"
    out.print(f"differential privacy of {whose}")
    out.print(f"spent     epsilon {account.told(asked.epsilon):.4g} of {asked.epsilon:g}, at delta {asked.delta:g}")
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
    shown = spent[-_SHOWN:]
    hidden = len(spent) - len(shown)
    title = f"the last {len(shown)} of {len(spent)} trainings" if hidden else None
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for name in ("update", "attempt", "noise", "sample rate", "steps", "epsilon"):
        table.add_column(name, justify="right")
    for one in shown:
        table.add_row(
            *(str(one.sequence), str(one.attempt), f"{one.noise_multiplier:.4g}"),
            *(f"{one.sample_rate:.4g}", str(one.steps), f"{one.epsilon:.4f}"),
        )
    return table
