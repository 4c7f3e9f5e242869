"""Markdown tables of estimates and comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from benchmarks.experiments.experiment import Noted, Table
from benchmarks.experiments.statistics import Comparison, Estimate, compare, estimate, holm


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def values(found: Table, case: str, name: str) -> dict[int, float]:
    """A noted number by seed; empty where the case was not run or has no such number."""
    by_seed: Mapping[int, Noted] = found.get(case, {})
    return {seed: noted[name] for seed, noted in sorted(by_seed.items()) if name in noted}


def cell(found: Table, case: str, name: str = "accuracy", digits: int = 2) -> str:
    """``mean [low, high]``, or a dash."""
    there = list(values(found, case, name).values())
    return shown(estimate(there), digits) if there else "-"


def mean(found: Table, case: str, name: str = "accuracy") -> float:
    """Mean over the seeds; not a number where there are none."""
    there = list(values(found, case, name).values())
    return sum(there) / len(there) if there else math.nan


def shown(found: Estimate, digits: int = 2) -> str:
    """``mean [low, high]``; without an interval where there is one value."""
    if found.count == 1:
        return f"{found.mean:.{digits}f}"
    mean, low, high = (f"{value:z.{digits}f}" for value in (found.mean, found.low, found.high))
    return f"{mean} [{low}, {high}]"


def paired(found: Table, left: str, right: str, name: str = "accuracy", other: str = "") -> Comparison | None:
    """``left - right`` over the seeds that both have; ``other``: what is taken of the right one, if not the same."""
    ours, theirs = values(found, left, name), values(found, right, other or name)
    seeds = sorted(ours.keys() & theirs.keys())
    if len(seeds) < 2:
        return None
    return compare([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])


def comparisons(pairs: Sequence[tuple[str, Comparison | None]], unit: str = "points") -> str:
    """A table of paired differences, p-values adjusted over all of its rows."""
    there = [(label, one) for label, one in pairs if one is not None]
    adjusted = holm([one.p for _, one in there])
    rows = [
        [label, _signed(one.difference), str(one.difference.count), p_value(one.p), p_value(p)]
        for (label, one), p in zip(there, adjusted, strict=True)
    ]
    return table(["comparison", f"difference in {unit}", "pairs", "p", "p after Holm"], rows)


def p_value(p: float) -> str:
    """Three figures, or ``< 1e-6``."""
    return "< 1e-6" if p < 1e-6 else f"{p:.3g}"


def verdict(value: float, target: float) -> str:
    """Whether a mean reached ``at least target``, and by how much."""
    if math.isnan(value):
        return "not run"
    return f"{'reached' if value >= target else '**missed**'} ({value - target:+.2f})"


def _signed(found: Estimate) -> str:
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
