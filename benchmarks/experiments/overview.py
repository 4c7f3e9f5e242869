"""The first page of docs/experiments: what there is, and which target was reached."""

from __future__ import annotations

from pathlib import Path

from benchmarks.experiments.catalogue import EXPERIMENTS
from benchmarks.experiments.results import Results
from benchmarks.experiments.tables import table

_HEAD = """# Experiments

What merge policies, trust and robust rules are worth on real data, with repeated seeds. Every number comes from
`fl-node simulate`'s code, which plays the node's own rounds; each page names its command. To run all of them again:

    FL_NODE_DATA_DIR=DIR python -m benchmarks.experiments

A stopped run goes on where it was, for the raw numbers of every run are kept in `results/`.
"""


def overview(pages: Path) -> str:
    """The page, from the raw numbers that are there."""
    rows, links = [], []
    for name, experiment in EXPERIMENTS.items():
        results = Results.load(pages / "results" / f"{name}.json")
        found = {case.name: results.of(case) for case in experiment.cases}
        if not any(found.values()):
            continue
        links.append(f"- [{experiment.title}]({name}.md)")
        command = f"`python -m benchmarks.experiments {name}`"
        for goal in experiment.goals(found):
            rows.append([goal.what, goal.target, goal.reached, goal.verdict, command])
    return f"{_HEAD}\n" + "\n".join(links) + f"\n\n{table(['what', 'target', 'got', 'verdict', 'command'], rows)}\n"
