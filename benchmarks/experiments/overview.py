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
_FOUND = """## What to take from it

- With logistic regression and a learning rate that falls to 0, averaging on shuffled rows comes within a fifth of a
  point of training in one place for as many epochs.
- Learned trust finds out who shares a peer's distribution and who is mislabelled. On its own rows, a peer whose data
  are unlike all others' does about as well alone. Mislabelled peers have mislabelled validation rows, and with a fast
  learning rate come to trust those who share their mistakes; the preset's slow one keeps them with the others, at a
  price where peers are in clusters: there a faster rate, or no sharing, does better.
- `robust` costs next to nothing where peers have alike data, and withstands all attacks there. Where labels are skewed
  it keeps out what does harm, but takes honest minorities for hostile, and lets through who contributes nothing.
- Best-of by claims is taken over at once. By attested scores a false claim is worth nothing; but scores rounded to 1 %
  tie, and an untrained copy of the best model may then be drawn, which the preset's tenths of a per cent prevent.
- Gossip reaches what full averaging does, at a cost per peer that does not grow with peers.
- A ring on shuffled rows does about what one place does for as many epochs. BrainTorrent averages, so that a round is
  worth fewer steps: level on credit-default, behind with convolutional networks after five rounds.
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
    targets = table(["what", "target", "got", "verdict", "command"], rows)
    return f"{_HEAD}\n" + "\n".join(links) + f"\n\n## Targets\n\n{targets}\n\n{_FOUND}"
