"""All experiments by name, in the order in which they are run."""

from __future__ import annotations

from typing import Final

from benchmarks.experiments.experiment import Experiment
from benchmarks.experiments.logistic import LOGISTIC

EXPERIMENTS: Final[dict[str, Experiment]] = {one.name: one for one in (LOGISTIC,)}
