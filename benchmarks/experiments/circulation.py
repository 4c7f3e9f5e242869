"""Models that travel: ring and BrainTorrent against all rows in one place, for as many epochs."""

from __future__ import annotations

from typing import Final

from benchmarks.experiments.experiment import Case, Experiment, Goal, Noted, Table, accuracies
from benchmarks.experiments.tables import cell, comparisons, paired, table, values
from fl_node.simulation import Run, Settings

#: Label: data set, model, rounds, partition, overrides, the metric told first, seeds (0: all).
TASKS: Final = {
    "credit-default, logistic": ("credit-default", "logistic", 10, {}, "score", 0),
    "digits on a canvas, U-Net": ("digits-canvas", "unet", 5, {}, "score", 0),
    "Fashion-MNIST, CNN": (
        "fashion-mnist",
        "cnn",
        5,
        {
            "model.hidden": (8, 16),
            "training.optimizer": "adam",
            "training.learning_rate": 5e-3,
            "training.schedule": "cosine",
            "training.batch_size": 32,
        },
        "score",
        0,
    ),
}
PRESETS: Final = {"pooled": ("fedavg", 1), "ring": ("ring", 5), "braintorrent": ("braintorrent", 5)}
NAMES: Final = {"credit-default": "AUC", "digits-canvas": "Dice", "fashion-mnist": "accuracy"}


def _cases() -> list[Case]:
    cases = []
    for label, (dataset, model, rounds, overrides, _, seeds) in TASKS.items():
        for mode, (preset, peers) in PRESETS.items():
            settings = Settings(
                preset=preset,
                peers=(peers,),
                rounds=rounds,
                epochs=1,
                dataset=dataset,
                model=model,
                test_rows="own",
                overrides=overrides,
            )
            cases.append(Case(f"{label}; {mode}", settings, seeds))
    return cases


def note(run: Run) -> Noted:
    """Accuracies; ``score``: the task's metric, and ``macro_f1``, in per cent, on the common test set."""
    noted = accuracies(run)
    there = [one for one in run.common if one is not None]
    noted["score"] = sum(one.score_ppm for one in there) / len(there) / 1e4
    noted["macro_f1"] = 100 * sum(one.macro_f1 for one in there) / len(there)
    return noted


def _page(found: Table) -> str:
    rows, pairs = [], []
    for label, (dataset, *_) in TASKS.items():
        for mode in PRESETS:
            case = f"{label}; {mode}"
            rows.append([label, mode, NAMES[dataset], *(cell(found, case, what) for what in ("score", "macro_f1"))])
            if mode != "pooled":
                pairs.append((f"{label}: {mode} - pooled", paired(found, case, f"{label}; pooled", "score")))
    dices = values(found, "digits on a canvas, U-Net; braintorrent", "score").values()
    stuck = f"{sum(dice < 1 for dice in dices)} of {len(dices)}"
    return f"""
Five peers with equal, shuffled parts; *pooled* is one peer with all rows, the same recipe and as many epochs over all
rows. On the common test set, in per cent: final merged models, mean over peers. In a ring one model goes round as often
as the peers of BrainTorrent train, so that every row is trained on equally often: ten times on credit-default, five
times on the others. BrainTorrent's peers average, so that a round moves the model by one peer's steps, where a ring
adds up those of all.

{table(["data", "scheme", "metric", "score", "macro F1"], rows)}

{comparisons(pairs)}

Five epochs are little for the U-Net where models are averaged: in {stuck} of BrainTorrent's runs the merged model still
called every pixel background at the end, a Dice of 0, though its training loss had fallen in every round. Such a run is
in the mean, and makes the interval wide.
"""


def _goals(found: Table) -> list[Goal]:
    goals = []
    for label, (dataset, *_) in TASKS.items():
        for mode in ("ring", "braintorrent"):
            case = f"{label}; {mode}"
            goals.append(
                Goal(
                    f"{mode} against pooled, {label}",
                    f"pooled: {NAMES[dataset]} {cell(found, f'{label}; pooled', 'score')}",
                    cell(found, case, "score"),
                    "told",
                )
            )
    return goals


CIRCULATION = Experiment("circulation", "Ring and BrainTorrent against pooled", _cases(), note, _page, _goals)
