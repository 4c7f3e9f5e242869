"""Presets: known decentralised schemes by name, each as the spec keys that make it up.

A preset hides nothing: it is a set of keys of :mod:`fl_node.tables`, and the spec file that ``fl-node init``, ``demo``
or ``simulate`` writes has every one of them in plain sight. Peers never see a preset, only the spec. docs/presets.md
says of each what it is for and what it does not protect from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from fl_node.errors import UsageError
from fl_node.suggest import did_you_mean
from fl_node.tables import TrustSpec

Value: TypeAlias = bool | int | float | str | tuple["Value", ...]
#: Spec keys and their values, by table.
Tables: TypeAlias = dict[str, dict[str, Value]]

#: Up to so many peers everybody attests everybody; beyond, each a sample: it would grow with the square of the peers.
_ALL_ATTEST: Final = 17
_SAMPLE: Final = 16
#: Scores that decide between single models near the end of training: by whole per cents, chance would.
_FINE_PPM: Final = 1_000
#: As many candidates as the ledger takes parents, less the own one.
_MOST_OTHERS: Final = 63


@dataclass(frozen=True, slots=True)
class Preset:
    """A scheme and the spec keys it consists of.

    ``make`` gives them for a number of peers; call :meth:`overrides`, which checks that number first.
    """

    name: str
    title: str
    what: str
    source: str
    make: Callable[[int], Tables]
    least_peers: int = 1

    @property
    def depends_on_peers(self) -> bool:
        """Whether its keys differ with the number of peers."""
        return len({repr(self.make(peers)) for peers in (5, 10, 40)}) > 1

    def overrides(self, peers: int) -> Tables:
        """The preset's keys by table, for a federation of ``peers``.

        Raises:
            UsageError: too few peers for this scheme.
        """
        if peers < self.least_peers:
            raise UsageError(
                f"preset {self.name} with {peers} {'peer' if peers == 1 else 'peers'}: expected at least "
                f"{self.least_peers}; use more peers, or preset fedavg"
            )
        return self.make(peers)


def preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        UsageError: there is none.
    """
    found = PRESETS.get(name)
    if found is None:
        hint = did_you_mean(name, PRESETS)
        raise UsageError(f"unknown preset {name!r}{hint or ';'} expected one of {', '.join(PRESETS)}")
    return found


def hostile(peers: int) -> int:
    """As many hostile peers as can be withstood: fewer than a third, the largest f with 3 f + 1 <= peers."""
    return max(0, (peers - 1) // 3)


def partners(peers: int) -> int:
    """How many others a peer draws: half of all, at most 5, so that the cost of a round does not grow with peers."""
    return max(1, min(5, peers // 2))


def rings_with_bridges(peers: int) -> tuple[tuple[int, ...], ...]:
    """About the square root of ``peers`` rings of nearly equal size in a chain; the last of each is in the next, too.

    Each begins with a peer that no earlier ring has, so that all rings can start at the same time.

    >>> rings_with_bridges(7)
    ((1, 2, 3, 4), (5, 4, 6, 7))
    """
    count = math.isqrt(peers) if peers >= 4 else 1
    # A bridge stands in two rings, so there are count - 1 places more than peers.
    size, larger = divmod(peers + count - 1, count)
    rings: list[tuple[int, ...]] = []
    fresh = 1
    for number in range(count):
        places = size + (number < larger) - (number > 0)
        first, *rest = range(fresh, fresh + places)
        bridge = rings[-1][-1:] if rings else ()
        rings.append((first, *bridge, *rest))
        fresh += places
    return tuple(rings)


def _fedavg(peers: int) -> Tables:
    return {
        "merging": {"selection": "all-latest", "aggregation": "fedavg"},
        "rounds": {"mode": "sync"},
    }


def _braintorrent(peers: int) -> Tables:
    return {
        "merging": {"selection": "newer-than-merged", "aggregation": "fedavg"},
        "rounds": {"mode": "async"},
    }


def _ring(peers: int) -> Tables:
    return {
        "merging": {"selection": "ring", "initiator": 1, "silent_s": 60.0, "aggregation": "uniform"},
        "rounds": {"mode": "async"},
    }


def _hybrid_rings(peers: int) -> Tables:
    return {
        "merging": {
            "selection": "ring",
            "rings": rings_with_bridges(peers),
            "silent_s": 60.0,
            "aggregation": "uniform",
        },
        "rounds": {"mode": "async"},
    }


def _trust(peers: int) -> Tables:
    return {
        "merging": {"selection": "random-k", "k": partners(peers), "aggregation": "trust"},
        "trust": TrustSpec().model_dump(),
        "rounds": {"mode": "async"},
    }


def _best_of(peers: int) -> Tables:
    # All updates of a round have the same base, so the one that improved most is the best. Each is scored by the sites
    # other than its own, so on other rows; comparing improvements cancels how hard these are, and who published the
    # base itself gets exactly 0.
    return {
        "merging": {"selection": "best", **_attested(peers), "measure": "improvement", "aggregation": "uniform"},
        "attestation": {**_attestation(peers), "coarsen_ppm": _FINE_PPM},
        "rounds": {"mode": "sync"},
    }


def _best_of_claimed(peers: int) -> Tables:
    return {
        "merging": {"selection": "best", "scores": "claimed", "measure": "score", "aggregation": "uniform"},
        "attestation": {"mode": "none"},
        "rounds": {"mode": "sync"},
    }


def _gossip(peers: int) -> Tables:
    return {
        "merging": {"selection": "random-k", "k": partners(peers), "aggregation": "uniform"},
        "rounds": {"mode": "async"},
    }


def _robust(peers: int) -> Tables:
    # Three lines, each of which holds f hostile peers by itself: of the others, the f that score worst on data of
    # third parties are left out; no model counts from further away than half of them are; and of what is left, the f
    # lowest and highest values of each weight go. With 3 f + 1 <= n, at least one value of n - f - 2 f is left. The
    # ledger takes 64 parents: of more than 94 peers, those with the best scores are merged, and half of them trimmed.
    bad = hostile(peers)
    others = min(_MOST_OTHERS, peers - 1 - bad)
    return {
        "merging": {
            "selection": "top-k",
            "k": others,
            **_attested(peers),
            "measure": "score",
            "clip": "median",
            "aggregation": "trimmed-mean",
            "byzantine": min(bad, others // 2),
        },
        "attestation": _attestation(peers),
        "rounds": {"mode": "sync"},
    }


def _attested(peers: int) -> dict[str, Value]:
    """Scores by the word of others: of as many sites as there are left when the hostile say nothing."""
    sites = peers - 1 - hostile(peers) if peers <= _ALL_ATTEST else _SAMPLE // 2
    return {"scores": "attested", "attesting_sites": sites, "unattested": "leave-out"}


def _attestation(peers: int) -> dict[str, Value]:
    if peers <= _ALL_ATTEST:
        return {"mode": "all", "coarsen_ppm": 10_000, "every": 1}
    return {"mode": "sample", "k": _SAMPLE, "coarsen_ppm": 10_000, "every": 1}


PRESETS: Final[Mapping[str, Preset]] = {
    made.name: made
    for made in (
        Preset(
            "fedavg",
            "Federated averaging without a server",
            "everybody waits for everybody, and merges all updates of the round before by their samples",
            "McMahan et al. 2017, arXiv 1602.05629",
            _fedavg,
        ),
        Preset(
            "braintorrent",
            "BrainTorrent",
            "nobody waits; a peer merges its own model with those that are newer than what it merged before, by their "
            "samples, and fine-tunes",
            "Roy et al. 2019, arXiv 1905.06731",
            _braintorrent,
        ),
        Preset(
            "ring",
            "Cyclic weight transfer",
            "one model goes round: take the predecessor's, train it, pass it on",
            "Chang et al. 2018, doi 10.1093/jamia/ocy017",
            _ring,
            least_peers=2,
        ),
        Preset(
            "hybrid-rings",
            "Rings joined by bridge peers",
            "a model goes round in each of several rings; a peer in two of them carries over what was learned",
            "cyclic weight transfer (doi 10.1093/jamia/ocy017) on a graph of rings",
            _hybrid_rings,
            least_peers=4,
        ),
        Preset(
            "trust",
            "Learned trust",
            "a peer draws some others and weighs them by what they are worth on its own validation rows",
            "DeGroot 1974, doi 10.1080/01621459.1974.10480137; the matrix is learned by gradient, see docs/presets.md",
            _trust,
            least_peers=2,
        ),
        Preset(
            "best-of",
            "Everybody goes on from the best model",
            "after each round all continue from the update that improved most on data of other sites",
            "selection by validation score, attested by others; see docs/presets.md",
            _best_of,
            least_peers=2,
        ),
        Preset(
            "best-of-claimed",
            "Everybody goes on from the model that claims most",
            "as best-of, but publishers are believed: one liar takes over. Here to show how it fails",
            "selection by claimed score; see docs/presets.md",
            _best_of_claimed,
            least_peers=2,
        ),
        Preset(
            "gossip",
            "Gossip averaging",
            "nobody waits; a peer averages its model with those of a few others, drawn anew in each round",
            "Boyd et al. 2006, doi 10.1109/TIT.2006.874516; for models: Hegedus et al. 2019, "
            "doi 10.1007/978-3-030-22496-7_5",
            _gossip,
            least_peers=2,
        ),
        Preset(
            "robust",
            "Against hostile peers, fewer than a third, where data are alike",
            "leaves out those that score worst on data of others, bounds how far a model may be away, and cuts the "
            "extremes of each weight",
            "trimmed mean: Yin et al. 2018, arXiv 1803.01498; the filter and the clipping before it: docs/presets.md",
            _robust,
            least_peers=4,
        ),
    )
}
