"""All experiments by name, in the order in which they are run."""

from __future__ import annotations

from typing import Final

from benchmarks.experiments.byzantine import BYZANTINE
from benchmarks.experiments.circulation import CIRCULATION
from benchmarks.experiments.cnn import CNN
from benchmarks.experiments.experiment import Experiment
from benchmarks.experiments.gossip import GOSSIP
from benchmarks.experiments.logistic import LOGISTIC
from benchmarks.experiments.trust import TRUST

_ALL: Final = (LOGISTIC, BYZANTINE, TRUST, CNN, CIRCULATION, GOSSIP)
EXPERIMENTS: Final[dict[str, Experiment]] = {one.name: one for one in _ALL}
