"""Whether a spec's policies fit the peers there are: found out before anything starts, not in the first round."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from fl_node.errors import SpecError
from fl_node.merging.graphs import build, components
from fl_node.merging.policies import MOST_PARENTS
from fl_node.merging.tokens import rings_of
from fl_node.spec import Spec
from fl_node.tables import MergingSpec

#: Names of so many peers are written out in a message.
_NAMED: Final = 12


def check_fit(spec: Spec, members: Sequence[int]) -> tuple[str, ...]:
    """Check selection and aggregation against the members of a federation.

    Args:
        members: numbers of the peers that are admitted with the role to publish.

    Returns:
        Warnings: what works, but hardly as meant.

    Raises:
        SpecError: what cannot work: more partners than there are peers, too many hostile peers for the rule, a degree
            that no graph has, a peer in an edge or a ring who is not admitted.
    """
    peers = sorted(set(members))
    _check_partners(spec.merging, peers)
    warnings = [*_check_graph(spec.merging, peers), *_check_rings(spec, peers), *_check_attesting(spec, peers)]
    _check_rule(spec.merging, most_candidates(spec, peers))
    return tuple(warnings)


def most_candidates(spec: Spec, peers: Sequence[int]) -> int:
    """How many models a merge has when nobody is missing; in a graph, the merge of the peer with fewest neighbours."""
    rules = spec.merging
    match rules.selection:
        case "best":
            models = 1
        case "ring":
            models = max((sum(ring.place(peer) is not None for ring in rings_of(spec)) for peer in peers), default=0)
        case "top-k" | "random-k":
            models = min(rules.k + 1, len(peers))
        case "graph" if rules.graph == "small-world":
            models = min(rules.degree // 2 + 1, len(peers))  # the edges that a peer keeps, whatever is drawn
        case "graph":
            models = min((len(near) + 1 for near in _graph(rules, peers).values()), default=0)
        case _:
            models = len(peers)
    return min(models, MOST_PARENTS)


def _check_partners(rules: MergingSpec, peers: Sequence[int]) -> None:
    others = len(peers) - 1
    if rules.selection in ("top-k", "random-k") and rules.k > others:
        raise SpecError(
            f"merging.selection = {rules.selection!r} with k = {rules.k}: there are {max(0, others)} other peers; "
            "expected at most as many. Lower merging.k or admit more peers"
        )


def _check_graph(rules: MergingSpec, peers: Sequence[int]) -> list[str]:
    if rules.selection != "graph":
        return []
    if rules.graph == "edges":
        _check_admitted("merging.edges", [peer for edge in rules.edges for peer in edge], peers)
        loops = [f"({a}, {b})" for a, b in rules.edges if a == b]
        if loops:
            raise SpecError(f"merging.edges has {', '.join(loops)}: expected two different peers in each pair")
    if rules.graph in ("random-regular", "small-world"):
        _check_degree(rules, len(peers))
    parts = components(_graph(rules, peers))
    if len(parts) < 2:
        return []
    named = "; ".join(f"peers {_names(part)}" for part in parts)
    return [f"the graph {rules.graph!r} falls into {len(parts)} parts that never hear of each other: {named}"]


def _check_degree(rules: MergingSpec, nodes: int) -> None:
    head = f"merging.graph = {rules.graph!r} with degree = {rules.degree} over {nodes} peers"
    if rules.degree >= nodes:
        raise SpecError(f"{head}: a peer has {max(0, nodes - 1)} others; expected a degree of at most that")
    if rules.graph == "random-regular" and nodes * rules.degree % 2:
        raise SpecError(f"{head}: there is no such graph, for peers x degree is odd; change the degree by one")
    if rules.graph == "small-world" and rules.degree % 2:
        raise SpecError(f"{head}: as many neighbours on either side are linked; expected an even degree")


def _check_rings(spec: Spec, peers: Sequence[int]) -> list[str]:
    rules = spec.merging
    if rules.selection != "ring":
        return []
    if not rules.rings:
        _check_admitted("merging.initiator", [rules.initiator], peers)
        return []
    _check_admitted("merging.rings", [peer for ring in rules.rings for peer in ring], peers)
    for number, ring in enumerate(rules.rings, 1):
        twice = sorted({peer for peer in ring if ring.count(peer) > 1})
        if twice:
            raise SpecError(f"ring {number} of merging.rings has peers {_names(twice)} twice; expected each once")
        if not ring:
            raise SpecError(f"ring {number} of merging.rings is empty; expected at least one peer")
    most = max((sum(peer in ring for ring in rules.rings), peer) for peer in peers) if peers else (0, 0)
    if most[0] > MOST_PARENTS:
        raise SpecError(f"peer {most[1]} stands in {most[0]} rings: an update has at most {MOST_PARENTS} parents")
    warnings = []
    alone = sorted(set(peers) - {peer for ring in rules.rings for peer in ring})
    if alone:
        warnings.append(f"peers {_names(alone)} stand in no ring: they train nothing, and get the rings' last models")
    parts = components(_bridges(rules.rings))
    if len(parts) > 1:
        named = "; ".join("rings " + _names([number + 1 for number in part]) for part in parts)
        warnings.append(f"no peer stands in two rings of these groups, so no model passes between them: {named}")
    return warnings


def _bridges(rings: Sequence[Sequence[int]]) -> dict[int, frozenset[int]]:
    """Rings by position, linked where they share a peer."""
    sets = [set(ring) for ring in rings]
    return {
        at: frozenset(other for other, there in enumerate(sets) if other != at and there & ring)
        for at, ring in enumerate(sets)
    }


def _check_attesting(spec: Spec, peers: Sequence[int]) -> list[str]:
    rules, attestation = spec.merging, spec.attestation
    if rules.scores != "attested":
        return []
    if rules.selection == "ring":
        return ["merging.scores = 'attested' does nothing in a ring, whose model is taken whatever its score"]
    others = len(peers) - 1
    if rules.attesting_sites > others:
        raise SpecError(
            f"merging.attesting_sites = {rules.attesting_sites}: an update has at most {max(0, others)} other peers to "
            "attest it; expected at most as many"
        )
    warnings = []
    if attestation.mode == "sample" and attestation.k < rules.attesting_sites:
        warnings.append(
            f"of the updates, each peer attests {attestation.k} a round, so an update has about {attestation.k} "
            f"attestations, and merging.attesting_sites asks for {rules.attesting_sites}: most will count as unattested"
        )
    if attestation.every > 1:
        warnings.append(
            f"peers attest only once in {attestation.every} rounds: in the others, new updates count as unattested"
        )
    return warnings


def _check_rule(rules: MergingSpec, models: int) -> None:
    """Enough models for what the rule promises: Krum, Blanchard et al. 2017 (arXiv 1703.02757), n >= 2 f + 3; a trimmed
    mean, Yin et al. 2018 (arXiv 1803.01498), n > 2 f."""
    bad = rules.byzantine
    head = f"merging.aggregation = {rules.aggregation!r} with byzantine = {bad} over {models} models"
    less = "lower merging.byzantine, or choose a selection that gives more candidates"
    if rules.aggregation in ("krum", "multi-krum") and models < 2 * bad + 3:
        raise SpecError(f"{head}: expected at least 2 x {bad} + 3 = {2 * bad + 3}; {less}")
    if rules.aggregation == "multi-krum" and rules.keep > models - bad:
        raise SpecError(
            f"{head} keeps {rules.keep}: expected at most {models} - {bad} = {models - bad}, or hostile ones are among "
            "them; lower merging.keep"
        )
    if rules.aggregation == "trimmed-mean" and models <= 2 * bad:
        raise SpecError(f"{head}: nothing is left of {models} after {bad} are cut off at either end; {less}")


def _check_admitted(key: str, named: Iterable[int], peers: Sequence[int]) -> None:
    strangers = sorted(set(named) - set(peers))
    if strangers:
        raise SpecError(
            f"{key} names {_names(strangers)}, who are not admitted with the role to publish; expected of "
            f"{_names(peers) or 'nobody'}"
        )


def _graph(rules: MergingSpec, peers: Sequence[int]) -> dict[int, frozenset[int]]:
    """The graph as it would be; what is random in it does not decide whether it hangs together."""
    return build(rules, peers, bytes(32))


def _names(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    return ", ".join(map(str, numbers[:_NAMED])) + more
