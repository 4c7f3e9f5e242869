"""What is told of scores. Under differential privacy a score is of rows that no accountant counts, so it is rounded or
not told at all: ``privacy.scores``."""

from __future__ import annotations

from fl_node.records import PPM
from fl_node.tables import AttestationSpec, PrivacySpec


def released(privacy: PrivacySpec, score_ppm: int) -> int:
    """A score as it leaves the peer, in ppm: as it is without a mechanism; with one rounded to ``score_step_ppm``, or 0
    where scores are withheld.

    >>> released(PrivacySpec(mechanism="example"), 914_999), released(PrivacySpec(), 914_999)
    (910000, 914999)
    """
    if privacy.mechanism == "none":
        return score_ppm
    return 0 if privacy.scores == "withheld" else coarsened(score_ppm, privacy.score_step_ppm)


def attested_step(attestation: AttestationSpec, privacy: PrivacySpec) -> int:
    """Attested scores are rounded to multiples of this, in ppm: they are of the attester's validation rows."""
    own = privacy.score_step_ppm if privacy.mechanism != "none" else 1
    return max(attestation.coarsen_ppm, own)


def is_released(privacy: PrivacySpec, score_ppm: int) -> bool:
    """Whether a recorded score can be what :func:`released` gives."""
    return released(privacy, score_ppm) == score_ppm


def coarsened(score_ppm: int, step_ppm: int) -> int:
    """A score rounded to the nearest multiple of a step, half upwards, and never above 1,000,000.

    >>> coarsened(914_999, 10_000), coarsened(915_000, 10_000), coarsened(999_999, 300_000)
    (910000, 920000, 900000)
    """
    return min((score_ppm + step_ppm // 2) // step_ppm, PPM // step_ppm) * step_ppm
