"""Who is to attest what, and up to where a synchronous round waits for it.

Pure functions of the log. Where selection looks at attested scores (``merging.scores = "attested"``), a peer attests
before it selects, everything of interest or a sample of it; otherwise what it selected and fetched anyway.
docs/replay-rules.md, section 11.
"""

from __future__ import annotations

from collections.abc import Iterable

from fl_node.merging.cuts import AttestedCut
from fl_node.merging.owed import MOST_ATTESTED, attests_first, due, limit_of, wait_for
from fl_node.merging.sync import view_of_round
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import UpdateRef, UpdatesAttested
from fl_node.spec import Spec

__all__ = ["MOST_ATTESTED", "AttestedCut", "attestable", "attested_prefix", "attests_first"]


def attestable(
    spec: Spec,
    prefix: Prefix,
    own_peer: int,
    round_number: int,
    *,
    seen: int | None = None,
    now_s: int | None = None,
    candidates: Iterable[UpdateEntry] | None = None,
) -> tuple[UpdateEntry, ...]:
    """The updates that a peer is to attest now, by (peer, sequence); what it has attested or objected to is left out.

    Where :func:`attests_first`: others' latest trained updates (in a sync round, those that it looks at; in a graph,
    the neighbours'), drawn as section 11 says. Otherwise those of ``candidates``, which must then be given.

    Args:
        prefix: the log as far as it is known.
        round_number: the round being played.
        seen: async: log size that the round's choice is made from; default all of ``prefix``.
        now_s: sync only, see :func:`fl_node.merging.sync.sync_prefix`.
        candidates: what the selection gave, for specs under which attesting comes after it.

    Raises:
        LookupError: no such peer.
        ValueError: a sync round whose cut is not there yet, or no candidates where they are needed.
    """
    view = prefix.upto(prefix.size if seen is None else seen)
    cut = None
    if spec.rounds.mode == "sync":
        cut, view = view_of_round(spec, prefix, round_number, now_s)
    mine = prefix.updates(own_peer)
    began = mine[-1].index if mine else -1
    if attests_first(spec):
        candidates = None
    elif candidates is None:
        raise ValueError("got no candidates, expected those of the selection: this spec attests what was selected")
    wanted = due(spec, prefix, view, own_peer, round_number, cut, candidates)
    room = len(wanted) if cut is not None else limit_of(spec) - _attested_since(prefix, own_peer, began)
    rest = [entry for entry in wanted if not _spoke(prefix, own_peer, entry.ref)][: max(0, room)]
    return tuple(sorted(rest, key=lambda entry: entry.ref))


def attested_prefix(spec: Spec, prefix: Prefix, round_number: int, now_s: int | None = None) -> AttestedCut:
    """Up to where attestations count in a synchronous round, from the entries alone and, while that does not tell, the
    chain's time.

    The log up to the entry with which every peer that the cut has an update of, and that has the role to attest, has
    attested, or objected to, all that it was to; or the last entry before the deadline: ``rounds.deadline_s`` after the
    cut's own time. More entries never move it. Costs what is new since the last call for the same log and spec.

    Args:
        now_s: as for :func:`fl_node.merging.sync.sync_prefix`.

    Raises:
        ValueError: the round's cut is not there yet.
    """
    cut, _ = view_of_round(spec, prefix, round_number, now_s)
    return wait_for(spec, prefix, cut).settled(prefix, prefix.time_s if now_s is None else now_s)


def _spoke(prefix: Prefix, own_peer: int, ref: UpdateRef) -> bool:
    """Whether this peer has attested an update, or objected to it."""
    attested = any(said.peer == own_peer for said in prefix.attestations(ref))
    return attested or any(word.peer == own_peer for word in prefix.objections(ref))


def _attested_since(prefix: Prefix, own_peer: int, began: int) -> int:
    """How many updates this peer has attested after entry ``began``."""
    bodies = (fact.body for fact in prefix.facts(began + 1))
    return sum(len(body.items) for body in bodies if isinstance(body, UpdatesAttested) and body.peer == own_peer)
