"""Every selection and every rule, in federations with a hostile member and one whose content goes away: all replays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twins import Twins, flipped, small_spec

from fl_node.coherence import check_coherence
from fl_node.errors import SpecError
from fl_node.node import warn_of_misfits

SELECTIONS: dict[str, dict[str, Any]] = {
    "all-latest": {},
    "newer-than-merged": {},
    "top-k": {"k": 2},
    "best": {},
    "above-own": {"measure": "improvement"},
    "random-k": {"k": 2},
    "ring": {"silent_s": 20.0},
    "graph": {"graph": "edges", "edges": ((1, 2), (2, 3), (3, 4), (1, 4), (1, 5))},
}
RULES: dict[str, dict[str, Any]] = {
    "fedavg": {"sample_cap": 300, "staleness_discount": True},
    "uniform": {"clip": "median"},
    "score": {},
    "trust": {},
    "median": {},
    "trimmed-mean": {"byzantine": 1},
    "krum": {"byzantine": 1},
    "multi-krum": {"byzantine": 1, "clip": "fixed", "clip_norm": 2.0},
    "geometric-median": {"iterations": 3},
    "centred-clipping": {"iterations": 2, "clip_norm": 1.0},
}
#: Each rule with all-latest and with one other policy, each policy with at least two rules; both modes.
CASES = [("sync", "all-latest", rule) for rule in RULES] + [
    ("async", "newer-than-merged", "fedavg"),
    ("async", "top-k", "score"),
    ("sync", "top-k", "trimmed-mean"),
    ("async", "best", "uniform"),
    ("sync", "best", "geometric-median"),
    ("async", "above-own", "median"),
    ("sync", "above-own", "fedavg"),
    ("async", "random-k", "trust"),
    ("sync", "random-k", "centred-clipping"),
    ("async", "ring", "uniform"),
    ("async", "ring", "score"),
    ("async", "graph", "multi-krum"),
    ("sync", "graph", "trust"),
    ("sync", "newer-than-merged", "krum"),
]


@pytest.mark.parametrize(("mode", "selection", "rule"), CASES)
def test_every_policy_replays(tmp_path: Path, mode: str, selection: str, rule: str) -> None:
    spec = small_spec(
        rounds={"mode": mode, "planned": 2, "deadline_s": 5.0},
        merging={"selection": selection, "aggregation": rule, **SELECTIONS[selection], **RULES[rule]},
        attestation={"mode": "all"},
        content={"fetch_timeout_s": 1.0},
    )
    check_coherence(spec.task, spec.training, spec.merging, spec.attestation, spec.rounds, "test")
    twins = Twins(tmp_path, spec, size=5)
    twins.trainers[4].spoil = flipped
    twins.wire.down.add("memory://5")  # it serves nobody: everybody objects, and the round goes on
    assert set(twins.run().values()) == {None}
    assert not any("base-differs" in kinds for kinds in twins.kinds.values()), "nobody's base is other than it says"
    replay = twins.replay()
    updates = replay.check()
    assert replay.check_attestations()
    assert {update.ref.peer for update in updates if update.final} == {1, 2, 3, 4, 5}
    if selection == "ring":
        assert len(updates) == 5 * 3
    else:
        assert len(updates) == 5 * 3
        assert not any(parent.peer == 5 for update in updates for parent in update.parents if update.ref.peer != 5)


def test_trust_in_a_ring_is_refused() -> None:
    spec = small_spec(merging={"selection": "ring", "aggregation": "trust"})
    with pytest.raises(SpecError, match="nobody to choose among"):
        check_coherence(spec.task, spec.training, spec.merging, spec.attestation, spec.rounds, "test")


def test_what_does_not_fit_the_members_is_told_and_stops_nobody(tmp_path: Path) -> None:
    merging = {"selection": "random-k", "k": 5}
    twins = Twins(tmp_path, small_spec(merging=merging, rounds={"planned": 1}), size=2)
    peer = twins.peer(1)
    warn_of_misfits(peer)
    assert twins.kinds[1] == ["misfit"]
    assert set(twins.run().values()) == {None}
    fitting = Twins(tmp_path / "fitting", small_spec(), size=2)
    warn_of_misfits(fitting.peer(1))
    assert fitting.kinds[1] == []
