"""Claims beside what others measured, in numbers: is one further above them than chance and unlike data explain?

A claim is of the publisher's test rows, an attestation of another site's validation rows. All rows being of one kind,
both estimate the same number, and their difference, the *gap*, has mean 0 and a noise that follows from how many rows
there are on either side. Where sites' data differ, models do better at home, and the gaps of honest peers are above 0.
So the gaps of the other publishers are looked at as well: whether they are what chance makes of like data.

A publisher's test rows are the same in every round. If they are easy, all its scores are above what others measure; so
a gap in scores is looked at by itself, and never adds up over rounds. The *improvement*, score less base score, is of
the same rows on both sides of the subtraction: how hard they are cancels, and most of what is left is new each time.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, TypeAlias

from fl_node.merging.board import members_of
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import PPM
from fl_node.released import attested_step
from fl_node.spec import Spec

#: Standard deviations above which a gap is far, one-sided.
FAR: Final = 3.0
#: Rounds before and after that are looked at, at most.
WINDOW: Final = 8
#: Part of an improvement's variance that is taken to be the same in all rounds. Measured on honest peers: 0.05 to 0.16.
LASTING: Final = 0.16
#: Fewest other publishers whose gaps tell how much honest gaps differ where data do.
FEWEST_OTHERS: Final = 4
#: Share of changed predictions that is supposed where a single site attests, so that nothing shows it.
_CHANGED: Final = 0.1
#: One-sided 99.9 % points of Student's distribution, by degrees of freedom.
_STUDENT: Final = (
    (3, 10.21),
    (4, 7.17),
    (5, 5.89),
    (6, 5.21),
    (8, 4.5),
    (10, 4.14),
    (15, 3.73),
    (20, 3.55),
    (30, 3.39),
)
#: The 90 % point of the normal distribution.
_USUAL: Final = 1.28
#: Standard error of a median against that of the mean: sqrt(pi / 2).
_MEDIAN: Final = 1.2533

Gap: TypeAlias = tuple[float, float]
"""A claim less the median of what sites measured, and the standard deviation that chance gives it."""


@dataclass(frozen=True, slots=True)
class Said:
    """One site's word on an update: medians of its peers', as fractions. It has about so many validation ``rows``."""

    site: str
    score: float
    base: float
    rows: float


@dataclass(frozen=True, slots=True)
class Measured:
    """A claim, and what other sites said."""

    entry: UpdateEntry
    said: tuple[Said, ...]

    @property
    def rows(self) -> int:
        return self.entry.update.test_samples


@dataclass(frozen=True, slots=True)
class Kind:
    """What is compared, as fractions: the scores, or the improvements."""

    name: str
    claim: Callable[[UpdateEntry], float]
    word: Callable[[Said], float]


LEVEL: Final = Kind("score", lambda entry: entry.update.score_ppm / PPM, lambda said: said.score)
IMPROVEMENT: Final = Kind(
    "improvement",
    lambda entry: (entry.update.score_ppm - entry.update.base_score_ppm) / PPM,
    lambda said: said.score - said.base,
)


@dataclass(frozen=True, slots=True)
class Strange:
    """The gaps in scores of a round, in standard deviations that like data would give them, the smallest first.
    ``places``: of each publisher; ``sums`` and ``squares``: of the first k."""

    places: Mapping[int, int]
    sums: Sequence[float]
    squares: Sequence[float]

    @classmethod
    def of(cls, gaps: Mapping[int, float]) -> Strange:
        ordered = sorted(gaps, key=lambda peer: (gaps[peer], peer))
        sums = [0.0, *accumulate(gaps[peer] for peer in ordered)]
        squares = [0.0, *accumulate(gaps[peer] ** 2 for peer in ordered)]
        return cls({peer: place for place, peer in enumerate(ordered)}, sums, squares)

    def without(self, peer: int) -> tuple[int, float, float]:
        """Without a publisher, and then without the largest quarter: how many, their sum and that of their squares."""
        place = self.places.get(peer)
        others = len(self.places) - (place is not None)
        kept = others - others // 4
        if place is None or place >= kept:
            return kept, self.sums[kept], self.squares[kept]
        own, square = (table[place + 1] - table[place] for table in (self.sums, self.squares))
        return kept, self.sums[kept + 1] - own, self.squares[kept + 1] - square


@dataclass(frozen=True, slots=True)
class Round:
    """The updates of a round that count and that another site attested, by publisher. ``spreads``: see :func:`_spread`.
    ``strange``: whether data look alike."""

    measured: Mapping[int, Measured]
    spreads: Mapping[str, float | None]
    gaps: Mapping[str, Mapping[int, Gap]]
    strange: Strange


@dataclass(frozen=True, slots=True)
class Judgement:
    """A gap and what is made of it, as fractions.

    ``centre``: the median of what sites measured. ``usual``: the median gap of the other publishers of the round, at
    least 0; of fewer than two, 0. ``allowed``: above it a gap is far; ``None`` where data differ, and too few others
    publish to say how much.
    """

    kind: Kind
    gap: float
    noise: float
    centre: float
    alike: bool
    usual: float
    allowed: float | None

    @property
    def beyond(self) -> float:
        """How much larger the gap is than is usual in its round."""
        return self.gap - self.usual

    @property
    def far(self) -> bool:
        return self.allowed is not None and self.gap > self.allowed

    @property
    def open(self) -> bool:
        """Whether chance among like data is no explanation, and whether unlike data are one cannot be told."""
        return self.allowed is None and self.gap > FAR * self.noise


def measured(spec: Spec, prefix: Prefix, entry: UpdateEntry) -> Measured:
    """What other sites said of an update: a value for each site, without the publisher's own, and without what does not
    count because of a retirement."""
    sites = members_of(prefix).sites
    rows = worked_out(spec, prefix, "rows")
    by_site: dict[str, list[Said]] = {}
    for word in prefix.attestations(entry.ref):
        if max(word.score_ppm, word.base_score_ppm) > PPM:  # no contract takes it, so the check of membership says so
            continue
        if word.peer not in rows:
            rows[word.peer] = _validation_rows(spec, prefix, word.peer)
        count = rows[word.peer] or _validation_part(spec, entry.update.test_samples)
        said = Said(sites[word.peer], word.score_ppm / PPM, word.base_score_ppm / PPM, count)
        by_site.setdefault(said.site, []).append(said)
    by_site.pop(sites.get(entry.ref.peer, ""), None)
    return Measured(entry, tuple(_one_word(words) for _, words in sorted(by_site.items())))


def _one_word(words: Sequence[Said]) -> Said:
    if len(words) == 1:
        return words[0]
    median = statistics.median
    return Said(
        words[0].site,
        median(said.score for said in words),
        median(said.base for said in words),
        median(said.rows for said in words),
    )


def worked_out(spec: Spec, prefix: Prefix, what: str) -> dict[Any, Any]:
    """A table of what follows from this very prefix and what the spec says of scores: that of the latest prefix asked
    about, since updates are judged in many calls."""
    kept: dict[tuple[Any, ...], dict[Any, Any]] = prefix.derived.setdefault(f"claims: {what}", {})
    task = spec.task
    key = (
        prefix.size,
        task.metric,
        task.validation,
        task.test,
        attested_step(spec.attestation, spec.privacy),
        spec.privacy.mechanism,
    )
    if key not in kept:
        kept.clear()
    return kept.setdefault(key, {})


def beside(spec: Spec, prefix: Prefix, entry: UpdateEntry) -> Measured:
    """As :func:`measured`, from what was worked out for its round where that is this very entry."""
    found = of_round(spec, prefix, entry.round).measured.get(entry.ref.peer)
    return found if found is not None and found.entry is entry else measured(spec, prefix, entry)


def of_round(spec: Spec, prefix: Prefix, number: int) -> Round:
    """A round's updates beside what others measured; worked out once for a prefix."""
    cache: dict[int, Round] = worked_out(spec, prefix, "rounds")
    if number not in cache:
        there = (entry for entry in prefix.of_round(number) if prefix.counts(entry.ref.peer, entry.index))
        found = (measured(spec, prefix, entry) for entry in there)
        by_peer = {one.entry.ref.peer: one for one in found if one.said and one.rows}
        spreads = {kind.name: _spread(kind, tuple(by_peer.values())) for kind in (LEVEL, IMPROVEMENT)}
        gaps = {
            kind.name: {peer: gap_of(kind, spec, one, spreads[kind.name]) for peer, one in by_peer.items()}
            for kind in (LEVEL, IMPROVEMENT)
        }
        alike = ((peer, gap_of(LEVEL, spec, one, 0.0)) for peer, one in by_peer.items())
        strange = Strange.of({peer: gap / noise for peer, (gap, noise) in alike})
        cache[number] = Round(by_peer, spreads, gaps, strange)
    return cache[number]


def judge(kind: Kind, spec: Spec, prefix: Prefix, mine: Measured) -> Judgement:
    """Whether a claim is far above what others measured.

    Args:
        mine: attested by one site at least, and of one row at least.
    """
    own, number = mine.entry.ref.peer, mine.entry.round
    there = of_round(spec, prefix, number)
    gap, noise = gap_of(kind, spec, mine, there.spreads[kind.name])
    centre = kind.claim(mine.entry) - gap
    others = [each for peer, each in there.gaps[kind.name].items() if peer != own]
    enough = len(others) >= FEWEST_OTHERS
    usual = max(0.0, statistics.median(value for value, _ in others)) if len(others) > 1 else 0.0
    alike = data_look_alike(spec, prefix, number, own)
    allowed = None
    if alike:
        allowed = usual + FAR * noise
    elif enough:
        differing = statistics.stdev(value for value, _ in others)
        allowed = usual + FAR * noise + _student(len(others) - 1) * differing
    return Judgement(kind, gap, noise, centre, alike, usual, allowed)


def over_rounds(judgements: Sequence[Judgement]) -> Gap | None:
    """How far one publisher's improvements are beyond what is usual, on average over rounds, and the noise of that.

    Args:
        judgements: by round, the one in question last, of rounds in which data look alike.

    Returns:
        ``None`` for fewer than three rounds, or where the last gap is hardly one.
    """
    if len(judgements) < 3 or judgements[-1].beyond <= judgements[-1].noise / 2:
        return None
    weights = [1 / one.noise**2 for one in judgements]
    total = sum(weights)
    mean = sum(weight * one.beyond for weight, one in zip(weights, judgements, strict=True)) / total
    lasting = sum(weight * one.noise for weight, one in zip(weights, judgements, strict=True)) / total
    return mean, math.sqrt(LASTING * lasting**2 + (1 - LASTING) / total)


def data_look_alike(spec: Spec, prefix: Prefix, number: int, without: int) -> bool:
    """Whether the other publishers' gaps in scores, in this round and those around it, are what chance makes of like
    data. A quarter of them in each round, the largest, is left out: they may be those of other liars.

    Both their squares and their mean are looked at, against the 90 % point that they would have: it is better to
    compare with the other publishers without need than to take unlike data for alike. What one publisher's rows are
    like lasts, so that more rounds do not make the points any lower. No others: nothing speaks against like data.
    """
    squares, means, most = [], [], 0
    for each in range(number - WINDOW, number + WINDOW + 1):
        kept, total, square = of_round(spec, prefix, each).strange.without(without)
        if kept:
            squares.append(square / kept)
            means.append(total / math.sqrt(kept))
            most = max(most, kept)
    if not most:
        return True
    # chi^2 over its degrees of freedom: Wilson and Hilferty 1931, https://doi.org/10.1073/pnas.17.12.684
    point = (1 - 2 / (9 * most) + _USUAL * math.sqrt(2 / (9 * most))) ** 3
    return statistics.fmean(squares) <= point and statistics.fmean(means) <= _USUAL


def gap_of(kind: Kind, spec: Spec, one: Measured, spread: float | None) -> Gap:
    """The claim less the median of what sites measured, and the noise of that.

    Args:
        spread: variance of one row's part in what sites measured, as observed; ``None`` where nothing shows it.
    """
    values = [kind.word(said) for said in one.said]
    centre = statistics.median(values)
    rows = len(one.said) / sum(1 / said.rows for said in one.said)
    step = attested_step(spec.attestation, spec.privacy) / PPM
    scores = 2 if kind is IMPROVEMENT else 1
    rounding = step**2 / 12 * scores
    # Under differential privacy claims are rounded as well.
    own_step = spec.privacy.score_step_ppm / PPM if spec.privacy.mechanism != "none" else 0.0
    of_row = _least_variance(kind, spec, centre, rows * len(values))
    if spread is not None:
        of_row = max(of_row, spread - rounding * rows)
    elif kind is IMPROVEMENT:
        of_row = max(of_row, _CHANGED)
    of_site = of_row / rows + rounding
    of_centre = of_site / len(values) * (_MEDIAN**2 if len(values) > 2 else 1.0)
    return kind.claim(one.entry) - centre, math.sqrt(of_row / one.rows + own_step**2 / 12 * scores + of_centre)


def _least_variance(kind: Kind, spec: Spec, centre: float, rows: float) -> float:
    """At least, of what one row contributes to the number in question; ``rows`` were looked at."""
    # A mean over classes, or over pairs of rows, varies more than one over rows.
    factor = 2 if spec.task.metric in ("macro-f1", "auc") else 1
    if kind is IMPROVEMENT:
        changed = (abs(centre) * rows + 1) / (rows + 2)
        return factor * changed * (1 - min(1.0, abs(centre)) / 2)
    chance = (centre * rows + 2) / (rows + 4)
    return factor * chance * (1 - chance)


def _spread(kind: Kind, updates: Sequence[Measured]) -> float | None:
    """Mean over a round of (a site's value - the update's median)^2 times rows: the variance of one row's part, and
    what unlike data add. A value far out counts as less far, so that one site which lies cannot hide a claim."""
    found: list[float] = []
    for one in updates:
        if len(one.said) < 2:
            continue
        values = [kind.word(said) for said in one.said]
        centre, shrunk = statistics.median(values), len(values) / (len(values) - 1)
        found += [(value - centre) ** 2 * said.rows * shrunk for value, said in zip(values, one.said, strict=True)]
    if not found:
        return None
    found.sort()
    most = 6 * found[len(found) * 3 // 4]  # of a normal distribution: 2.8 standard deviations
    return statistics.fmean(min(value, most) for value in found) if most else statistics.fmean(found)


def _student(freedom: int) -> float:
    return [point for least, point in _STUDENT if freedom >= least][-1]


def _validation_rows(spec: Spec, prefix: Prefix, attester: int) -> float:
    """About how many validation rows an attester has, from its latest claim; 0 where it made none."""
    own = prefix.updates(attester)
    return _validation_part(spec, own[-1].update.test_samples) if own else 0.0


def _validation_part(spec: Spec, test_rows: int) -> float:
    """As many validation rows as go with so many test rows, by the spec's fractions."""
    return max(1.0, test_rows * spec.task.validation / spec.task.test) if spec.task.test else 1.0
