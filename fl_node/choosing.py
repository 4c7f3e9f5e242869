"""Steps 2 to 4 of a round: choose, fetch, verify; and choose again where what was chosen is of no use."""

from __future__ import annotations

from collections.abc import Mapping

from fl_node.merging.outcomes import Failure
from fl_node.merging.selection import Selection, select
from fl_node.peer import Moved, Peer
from fl_node.records import UpdateObjected, UpdateRef
from fl_node.supply import Supply, gather


def gathered(peer: Peer, round_number: int, now_s: int, seen: int) -> tuple[Selection, Supply]:
    """The candidates and their bytes. What cannot be used is objected to, and others may take its place: the choice is
    made again as everybody will make it who finds the objection in the log."""
    failed: dict[UpdateRef, Failure] = {}
    while True:
        chosen = chosen_now(peer, round_number, now_s, seen, failed)
        supply = gather(peer, chosen.candidates, chosen.excusable)
        new = {ref: why for ref, why in supply.failures.items() if ref not in chosen.excusable}
        if not new:
            return chosen, supply
        failed |= new


def chosen_now(
    peer: Peer,
    round_number: int,
    now_s: int,
    seen: int | None = None,
    failed: Mapping[UpdateRef, Failure] | None = None,
) -> Selection:
    """What the policy selects, from the log as this peer sees it and from what it has said itself, seen or not.

    Args:
        failed: updates that turned out to be of no use in this round.

    Raises:
        Moved: a synchronous round has to wait again.
    """
    with peer.watch.phase("select"):
        said = {**_said_ahead(peer), **(failed or {})}
        try:
            return select(peer.spec, peer.prefix, peer.number, round_number, seen=seen, now_s=now_s, failed=said)
        except ValueError as cause:
            raise Moved(f"round {round_number} must wait again: {cause}") from cause


def _said_ahead(peer: Peer) -> dict[UpdateRef, Failure]:
    """One's own objections that are on the ledger, but not deep enough to be seen: made in this round by attesting, or
    before a crash. A reader of the finished log finds them before the update to come, and holds its parents to them."""
    if not peer.spec.rounds.depth:
        return {}
    bodies = [entry.body for entry in peer.index.ahead()]
    mine = [body for body in bodies if isinstance(body, UpdateObjected) and body.peer == peer.number]
    return {
        word.target: Failure(word.reason, f"own objection, not yet {peer.spec.rounds.depth} blocks deep")
        for word in mine
    }
