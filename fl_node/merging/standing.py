"""What a rule may know of a candidate besides its bytes, from the log alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Standing:
    """``staleness``: updates that the merging peer recorded since the candidate's entry. ``score_ppm``: what the policy
    compares, by ``merging.scores`` and ``merging.measure``; below 0 where an update is worse than its base."""

    staleness: int
    score_ppm: int
