"""What an update's score is taken to be: its publisher's word, or the median of other sites' attestations.

Integers throughout, so that nothing depends on a machine: a median of an even number is the lower of the middle two.
So half of the sites together cannot lift a score, and with two sites the more careful one decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fl_node.merging.board import members_of
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.spec import Spec

_VIEWS_KEPT: Final = 4


def claimed_ppm(spec: Spec, entry: UpdateEntry) -> int:
    """The publisher's claim by ``merging.measure``: the update's score, or how far it is above its base's."""
    update = entry.update
    return update.score_ppm - (update.base_score_ppm if spec.merging.measure == "improvement" else 0)


def attested_ppm(spec: Spec, view: Prefix, entry: UpdateEntry) -> tuple[int | None, int]:
    """What other sites say of an update in a view: the median over sites, and how many sites there are.

    One value per site: the median over its peers' attestations (``score_ppm``, or less ``base_score_ppm`` where
    improvement is measured). The publisher's own site does not count. ``None`` where fewer than
    ``merging.attesting_sites`` sites attested.
    """
    known = _cache(spec, view)
    found = known.get(entry.index)
    if found is None:
        found = known[entry.index] = _median_over_sites(spec, view, entry)
    return found


def lower_median(values: Sequence[int]) -> int:
    """The middle value; of an even number of values the lower of the middle two.

    >>> lower_median([5, 1, 3]), lower_median([4, 2])
    (3, 2)
    """
    return sorted(values)[(len(values) - 1) // 2]


def _median_over_sites(spec: Spec, view: Prefix, entry: UpdateEntry) -> tuple[int | None, int]:
    sites = members_of(view).sites
    improvement = spec.merging.measure == "improvement"
    by_site: dict[str, list[int]] = {}
    for said in view.attestations(entry.ref):
        value = said.score_ppm - (said.base_score_ppm if improvement else 0)
        by_site.setdefault(sites[said.peer], []).append(value)
    by_site.pop(sites[entry.ref.peer], None)
    if len(by_site) < spec.merging.attesting_sites:
        return None, len(by_site)
    return lower_median([lower_median(values) for values in by_site.values()]), len(by_site)


def _cache(spec: Spec, view: Prefix) -> dict[int, tuple[int | None, int]]:
    """Medians found in this very view before, by the updates' entries: all peers of a synchronous round ask alike."""
    views: dict[tuple[int, str, int], dict[int, tuple[int | None, int]]]
    views = view.derived.setdefault("attested scores", {})
    key = (view.size, spec.merging.measure, spec.merging.attesting_sites)
    if key not in views:
        while len(views) >= _VIEWS_KEPT:
            del views[next(iter(views))]
        views[key] = {}
    return views[key]
