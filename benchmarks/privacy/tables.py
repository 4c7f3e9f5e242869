"""The results page: what was noted, as tables of means and 95 % intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.experiments.statistics import estimate
from benchmarks.experiments.tables import shown, table
from benchmarks.privacy.found import Case, Found, machine
from benchmarks.privacy.inversion_cases import BaselineCase, InversionCase
from benchmarks.privacy.membership import most_auc, most_true_positives
from benchmarks.privacy.membership_cases import SETTINGS, UNUSUAL, MembershipCase
from benchmarks.privacy.worlds import DELTA

Runs = Sequence[Mapping[str, float]]

ATTACKS = ("loss", "calibrated", "base")
_TRIED = {
    "update": "one peer's update of the last round: what a member sees",
    "merged": "the merge of the last round's updates only: what an outsider sees who is given the model",
}


def page(found: Found, cases: Sequence[Case]) -> str:
    """Markdown."""
    where = ", ".join(f"{key} {value}" for key, value in machine().items())
    parts = [
        f"# Privacy: leakage\n\n`{found.command}`, {found.minutes:.0f} minutes of one core in all, on {where}."
        " Means and 95 % intervals (Student's t) over seeds. What is attacked, how, and what the numbers "
        "mean: docs/leakage.md.",
        "## Membership inference",
    ]
    unusual = {UNUSUAL: SETTINGS["few rows, logistic"]}
    for group, setting in {**SETTINGS, **unusual}.items():
        chosen = [case for case in cases if isinstance(case, MembershipCase) and case.group == group]
        if any(found.of(case) for case in chosen):
            parts.append(
                f"### {group.capitalize()}\n\n{setting.peers} peers of {setting.rows:,} rows of {setting.data} each, "
                f"{setting.rounds} rounds, model `{setting.model}`."
                + (" Every tenth row has a wrong label; only those are attacked." if group == UNUSUAL else "")
            )
            parts.append(f"By the strongest of the three attacks in each cell:\n\n{_summary(found, chosen)}")
            parts += [f"Attacked: {told}.\n\n{_membership(found, chosen, what)}" for what, told in _TRIED.items()]
            parts.append(_controls(found, chosen))
    parts.append("### What epsilon promises against any attack\n\n" + _promises())
    parts.append("## Update inversion")
    for model, how in (("logistic", "by division"), ("cnn", "by search")):
        chosen_here: list[Case] = [case for case in cases if isinstance(case, InversionCase) and case.model == model]
        baselines: list[Case] = [case for case in cases if isinstance(case, BaselineCase)]
        parts.append(f"### Model `{model}`, {how}\n\n{_inversion(found, [*chosen_here, *baselines])}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(found: Found, cases: Sequence[MembershipCase]) -> str:
    rows = []
    for case in cases:
        runs = list(found.of(case).values())
        if runs:
            cells = [
                _strongest(runs, f"{what} {{}} {told}", digits, scale)
                for what in ("update", "merged")
                for told, digits, scale in (("auc", 3, 1.0), ("tpr 1%", 1, 100.0))
            ]
            rows.append([case.name, _cell(runs, "merged accuracy", 1, 100), *cells])
    head = ["training", "accuracy, %", "update: AUC", "update: found at 1 % false, %"]
    return table([*head, "merged only: AUC", "merged only: found at 1 % false, %"], rows)


def _strongest(runs: Runs, name: str, digits: int, scale: float) -> str:
    """Of the attack that is best in the mean over seeds."""
    names = [name.format(attack) for attack in ATTACKS]
    best = max(names, key=lambda one: sum(noted[one] for noted in runs))
    return _cell(runs, best, digits, scale)


def _membership(found: Found, cases: Sequence[MembershipCase], what: str) -> str:
    rows = []
    for case in cases:
        runs = list(found.of(case).values())
        if runs:
            aucs = [_cell(runs, f"{what} {name} auc", 3) for name in ATTACKS]
            rates = [_cell(runs, f"{what} calibrated tpr {at}", 2, 100) for at in ("1%", "0.1%")]
            rows.append([case.name, _cell(runs, f"{what} accuracy", 1, 100), *aucs, *rates])
    head = ["training", "accuracy, %", "AUC, loss", "AUC, calibrated", "AUC, since the base"]
    return table([*head, "calibrated: found at 1 % false, %", "calibrated: found at 0.1 % false, %"], rows)


def _controls(found: Found, cases: Sequence[MembershipCase]) -> str:
    values = [noted["merged control auc"] for case in cases for noted in _first(found, case)]
    noises = {case.epsilon: noted["noise"] for case in cases for noted in _first(found, case) if "noise" in noted}
    told = ", ".join(f"{noise:.2f} at epsilon {epsilon:g}" for epsilon, noise in noises.items())
    control = f"Control: a model that saw none of the rows gives an AUC of {min(values):.3f} to {max(values):.3f}."
    return control + (f" Noise multipliers: {told}." if told else "")


def _first(found: Found, case: MembershipCase) -> Runs:
    return list(found.of(case).values())


def _promises() -> str:
    rows = [
        [
            f"{epsilon:g}",
            f"{most_auc(epsilon, DELTA):.3f}",
            f"{100 * most_true_positives(epsilon, DELTA, 0.01):.2f}",
            f"{100 * most_true_positives(epsilon, DELTA, 0.001):.2f}",
        ]
        for epsilon in (8.0, 3.0, 1.0, 0.5)
    ]
    head = ["epsilon", "AUC at most", "found at 1 % false at most, %", "found at 0.1 % false at most, %"]
    return f"At delta {DELTA:g}.\n\n" + table(head, rows)


def _inversion(found: Found, cases: Sequence[Case]) -> str:
    rows = []
    for case in cases:
        runs = list(found.of(case).values())
        if runs and isinstance(case, InversionCase | BaselineCase):
            rows.append(
                [
                    case.name,
                    _cell(runs, "mse", 4),
                    _cell(runs, "psnr", 1),
                    _cell(runs, "ssim", 2),
                    _cell(runs, "named", 0, 100),
                ]
            )
    return table(["what is seen", "MSE", "PSNR, dB", "SSIM", "points out its row, %"], rows)


def _cell(runs: Runs, name: str, digits: int, scale: float = 1.0) -> str:
    return shown(estimate([scale * noted[name] for noted in runs]), digits)
