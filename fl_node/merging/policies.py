"""The selection policies: which of the updates that a round looks at are candidates. docs/replay-rules.md has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from fl_node.merging.aggregation import order_key
from fl_node.merging.choice import Choice, Verdict, left
from fl_node.merging.graphs import neighbours_of
from fl_node.merging.outcomes import Alike, Considered, Outcome, percent
from fl_node.merging.tokens import own_rings, tokens_of
from fl_node.prefix import UpdateEntry

#: As many parents as the contract takes.
MOST_PARENTS: Final = 64

_MORE_THAN_FIT: Final = f"more than {MOST_PARENTS} candidates; not among those drawn for this update"


def all_latest(choice: Choice) -> Verdict:
    """Everybody's latest trained update, one's own among them; in a synchronous round, that of the round before."""
    return _together(choice, choice.others)


def newer_than_merged(choice: Choice) -> Verdict:
    """What this peer has not merged before, and its own latest: BrainTorrent's version vector (arXiv 1905.06731)."""
    merged = merged_before(choice)
    news: list[int] = []
    old: list[int] = []
    for peer in choice.others:
        (news if choice.pool[peer].ref.sequence > merged.get(peer, 0) else old).append(peer)
    return replace(_together(choice, news), later=partial(_already_merged, choice, old, merged))


def random_k(choice: Choice) -> Verdict:
    """``k`` of the others, drawn anew for every update, and one's own latest: gossip."""
    most = choice.spec.merging.k
    return _together(choice, choice.others, most=most, why=f"not among the {most} drawn for this update")


def graph(choice: Choice) -> Verdict:
    """One's neighbours in the spec's graph, and one's own latest."""
    rules = choice.spec.merging
    near = neighbours_of(choice.spec, choice.view, choice.own_peer).get(choice.own_peer, frozenset())
    far = tuple(peer for peer in choice.members.publishing if peer not in near and peer != choice.own_peer)
    apart = Alike(far, Outcome.NOT_A_NEIGHBOUR, f"no neighbour in the graph {rules.graph!r}")
    return _together(choice, [peer for peer in sorted(near) if peer in choice.pool], alike=(apart,) if far else ())


def top_k(choice: Choice) -> Verdict:
    """The ``k`` best of the others, and one's own latest whatever its score."""
    passed, out = _sieve(choice, choice.others)
    ranked, k = _best_first(choice, passed), choice.spec.merging.k
    return _outscoring(choice, _with_own(choice, ranked[:k], out), ranked[k:], ranked[:k])


def above_own(choice: Choice) -> Verdict:
    """Those with a better score than one's own latest, and that; all of them where there is no own one yet."""
    passed, out = _sieve(choice, choice.others)
    if choice.own is None:
        return _together(choice, [entry.ref.peer for entry in passed], out)
    bar = choice.score(choice.own)
    above = [entry.ref.peer for entry in passed if choice.score(entry) > bar]
    below = [entry for entry in passed if choice.score(entry) <= bar]
    return _outscoring(choice, _together(choice, above, out), below, [choice.own])


def best(choice: Choice) -> Verdict:
    """The one with the best score of all, one's own among them; ties go to the smaller order key."""
    passed, out = _sieve(choice, choice.pool)
    if not passed:
        return _with_own(choice, [], [item for item in out if item.peer != choice.own_peer])
    ranked = _best_first(choice, passed)
    return _outscoring(choice, Verdict((ranked[0],), tuple(out)), ranked[1:], ranked[:1])


def ring(choice: Choice) -> Verdict:
    """The last token of each ring that this peer stands in; the one before where that cannot be merged, and so on."""
    chosen: dict[int, UpdateEntry] = {}
    out: dict[int, Considered] = {}
    held = []
    for one in own_rings(choice.spec, choice.own_peer):
        for token in reversed(tokens_of(choice.spec, choice.view, one)):
            found = _no_token(choice, token.entry)
            if found is None:
                chosen[token.entry.index] = token.entry
                held.append(f"{token.entry.ref} in ring {one.number}")
                break
            out.setdefault(token.entry.ref.peer, found)
    now = f"the model that goes round is {', '.join(held)}" if held else "no model goes round yet"
    entries = sorted(chosen.values(), key=lambda entry: entry.ref)
    merged = {entry.ref.peer for entry in entries}
    rest = tuple(sorted(choice.pool.keys() - merged - out.keys()))
    return Verdict(
        tuple(entries),
        tuple(item for peer, item in out.items() if peer not in merged),
        (Alike(rest, Outcome.NOT_THE_TOKEN, now),) if rest else (),
    )


def merged_before(choice: Choice) -> Mapping[int, int]:
    """Highest sequence of each peer among the parents that this peer has merged so far, share 0 left out."""
    mine = choice.prefix.updates(choice.own_peer)
    kept: dict[int, tuple[int, dict[int, int]]] = choice.prefix.derived.setdefault("merged before", {})
    count, vector = kept.get(choice.own_peer, (0, {}))
    if count > len(mine):
        count, vector = 0, {}
    if count < len(mine):
        vector = dict(vector)
        for update in mine[count:]:
            for parent in update.parents:
                if parent.share_ppm and parent.sequence > vector.get(parent.peer, 0):
                    vector[parent.peer] = parent.sequence
        kept[choice.own_peer] = (len(mine), vector)
    return vector


def _no_token(choice: Choice, entry: UpdateEntry) -> Considered | None:
    """Why a token cannot be merged."""
    if entry.ref.peer not in choice.members:
        return left(entry, Outcome.RETIRED, "its publisher has been retired")
    return choice.trouble(entry, lasting=True) or choice.few_samples(entry)


def _together(
    choice: Choice,
    peers: Sequence[int],
    out: Iterable[Considered] = (),
    *,
    most: int = MOST_PARENTS,
    why: str = _MORE_THAN_FIT,
    alike: Iterable[Alike] = (),
) -> Verdict:
    """One's own update and, of these others', those without fault; at most ``most``, in the order of the draw.

    Where there are more than fit, they are looked at in that order until enough are found, and the rest, not drawn, is
    not looked at: so a choice among a thousand costs little more than one among ten.
    """
    own, out = _own(choice), list(out)
    room = min(most, MOST_PARENTS - (own is not None))
    chosen: list[UpdateEntry] = []
    rest: set[int] = set()
    order: Iterable[int] = peers
    if len(peers) > room:
        order, rest = choice.drawn(peers), set(peers)
    for peer in order if room else ():
        entry = choice.pool[peer]
        found = choice.fault(entry)
        rest.discard(peer)
        if found is not None:
            out.append(found)
            continue
        chosen.append(entry)
        if rest and len(chosen) == room:
            break
    groups = list(alike)
    if rest:
        groups.append(Alike(tuple(sorted(rest)), Outcome.NOT_DRAWN, why))
    return _with_own(choice, chosen, out, groups)


def _sieve(choice: Choice, peers: Iterable[int]) -> tuple[list[UpdateEntry], list[Considered]]:
    """Those of the pool without fault, and why the others are left out."""
    passed, out = [], []
    for peer in peers:
        found = choice.fault(choice.pool[peer])
        if found is None:
            passed.append(choice.pool[peer])
        else:
            out.append(found)
    return passed, out


def _own(choice: Choice) -> UpdateEntry | None:
    """One's own update, if it may be merged. What other sites say of it plays no part where it is not compared; in a
    synchronous round of ``all-latest`` it is treated as the others are, so that all bases of the round are equal."""
    entry = choice.own
    if entry is None or choice.trouble(entry) or choice.few_samples(entry):
        return None
    alike = choice.cut is not None and choice.spec.merging.selection == "all-latest"
    return None if alike and choice.unattested(entry) else entry


def _with_own(
    choice: Choice, chosen: Sequence[UpdateEntry], out: Iterable[Considered], alike: Iterable[Alike] = ()
) -> Verdict:
    """The candidates with one's own among them, which also stands in where nothing else is left."""
    entry, entries, items = choice.own, list(chosen), list(out)
    if entry is not None:
        trouble = choice.trouble(entry) or choice.few_samples(entry)
        if _own(choice) is not None or (not entries and trouble is None):
            entries.append(entry)
        else:
            found = trouble or choice.unattested(entry)
            items += [found] if found else []
    return Verdict(tuple(entries), tuple(items), tuple(alike))


def _already_merged(choice: Choice, peers: Sequence[int], merged: Mapping[int, int]) -> list[Considered]:
    words = "merged before, nothing newer"
    return [
        left(choice.pool[peer], Outcome.ALREADY_MERGED, f"{peer}#{merged[peer]} was {words}", words) for peer in peers
    ]


def _best_first(choice: Choice, entries: Iterable[UpdateEntry]) -> list[UpdateEntry]:
    """By score, the best first; ties by order key."""
    return sorted(entries, key=lambda entry: (-choice.score(entry), order_key(entry)))


def _outscoring(
    choice: Choice, verdict: Verdict, losers: Sequence[UpdateEntry], chosen: Sequence[UpdateEntry]
) -> Verdict:
    """The verdict with those left out whose score was not above that of the last one chosen."""
    if not losers:
        return verdict
    return replace(verdict, later=partial(_outscored, choice, losers, choice.score(chosen[-1])))


def _outscored(choice: Choice, losers: Sequence[UpdateEntry], bar: int) -> list[Considered]:
    whose = "attested" if choice.by_attestation else "claimed"
    what = f"{whose} {choice.spec.merging.measure}"
    alike = f"{what} not above {percent(bar)}"
    items = []
    for entry in losers:
        got = choice.score(entry)
        reason = f"{what} {percent(got)}, needed above {percent(bar)}"
        if got == bar and choice.spec.merging.selection != "above-own":
            reason = f"{what} {percent(got)}, as good as the last one chosen, but after it in the order of updates"
        items.append(left(entry, Outcome.OUTSCORED, reason, alike))
    return items


POLICIES: Final[Mapping[str, Callable[[Choice], Verdict]]] = {
    "all-latest": all_latest,
    "newer-than-merged": newer_than_merged,
    "top-k": top_k,
    "best": best,
    "above-own": above_own,
    "random-k": random_k,
    "ring": ring,
    "graph": graph,
}
