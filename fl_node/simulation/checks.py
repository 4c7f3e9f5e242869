"""What cannot work is found out before anything starts."""

from __future__ import annotations

from collections.abc import Sequence

from fl_node.errors import DataError
from fl_node.learning.partition import partition
from fl_node.learning.shifts import check_shift, parse_shift
from fl_node.merging.fit import check_fit
from fl_node.simulation.deal import Source
from fl_node.simulation.faults import cast, without_effect
from fl_node.simulation.settings import Settings
from fl_node.spec import Spec, check_code

#: Selections and rules that look at claimed scores, unless attested ones are asked for.
_BY_SCORE = frozenset({"top-k", "best", "above-own"})


def check(settings: Settings) -> dict[int, tuple[str, ...]]:
    """Hold the settings' specs against the numbers of peers.

    Returns:
        What works, but hardly as meant, by number of peers.

    Raises:
        SpecError: the policy does not fit the peers: see :func:`fl_node.merging.fit.check_fit`; or the federation file
            names code that nobody agreed to run.
        UsageError: a shift or faults that the peers or the task do not allow.
    """
    found = {}
    for peers in settings.peers:
        spec = settings.federation(peers, settings.seed).spec
        check_code(spec, settings.agreed_code)
        warnings = list(check_fit(spec, range(1, peers + 1)))
        check_shift(parse_shift(settings.shift), spec.task, peers)
        cast(settings.faults, peers, spec.rounds.planned, settings.seed)
        warnings += without_effect(settings.faults, peers)
        if settings.test_rows == "common" and chosen_by_claims(spec):
            warnings.append(
                "with --test-rows common the scores that peers choose by are measured on rows of the common test set: "
                "accuracies on it are too good; use --test-rows own"
            )
        found[peers] = tuple(warnings)
    return found


def chosen_by_claims(spec: Spec) -> bool:
    """Whether claimed scores, which are of test rows, have a say in what is merged."""
    rules = spec.merging
    return rules.scores == "claimed" and (rules.selection in _BY_SCORE or rules.aggregation == "score")


def check_dealing(settings: Settings, source: Source, wanted: Sequence[tuple[int, int]]) -> None:
    """Deal the rows out once for each number of peers and seed.

    Raises:
        DataError: a peer would have no row to train, validate or test on.
        UsageError: the partition does not fit the number of peers or classes.
    """
    for peers, seed in wanted:
        task = settings.federation(peers, seed).spec.task
        needed = 1 + (task.validation > 0) + (settings.test_rows == "own")
        for number, part in enumerate(partition(source.train.strata, peers, settings.partition, seed), 1):
            if len(part) < needed:
                raise DataError(
                    f"partition {settings.partition} of {len(source.train)} rows with seed {seed} leaves peer {number} "
                    f"of {peers} with {len(part)}; expected at least {needed}: to train, validate and test on. Use "
                    "fewer peers or a milder partition"
                )
