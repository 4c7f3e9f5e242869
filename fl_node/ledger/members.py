"""Who is a member, as the log tells it: a fold over entries, the same for everybody who has the same prefix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fl_node.records import Entry, PeerAdmitted, PeerAnnounced, PeerRetired, PeerState, UpdatePublished

MEMBER_KINDS = ("PeerAdmitted", "PeerRetired", "PeerAnnounced")


def peer_states(entries: Iterable[Entry]) -> dict[int, PeerState]:
    """Members by number after these entries, which must be in order and start at entry 0.

    ``last_entry`` is the index of the peer's latest update, or of its admission while there is none.
    """
    states: dict[int, PeerState] = {}
    for entry in entries:
        body = entry.body
        if isinstance(body, PeerAdmitted):
            states[body.peer] = PeerState(body.peer, body.account, body.site, body.roles, 0, 0, entry.index, None)
        elif isinstance(body, PeerRetired):
            states[body.peer] = replace(states[body.peer], retired_from=body.from_index)
        elif isinstance(body, PeerAnnounced):
            states[body.peer] = replace(states[body.peer], endpoint=body.endpoint, epoch=body.epoch)
        elif isinstance(body, UpdatePublished):
            update = body.update
            states[body.peer] = replace(
                states[body.peer], sequence=update.sequence, round=update.round, last_entry=entry.index
            )
    return states
