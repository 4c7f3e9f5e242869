"""A log held against the contract's own rules, entry by entry: what the contract can never have taken.

Whoever has only a copy of a log, or a chain whose code it does not trust, finds here a skipped sequence, an update
after a retirement, a parent that did not exist.
"""

from __future__ import annotations

from collections.abc import Iterable

from fl_node.errors import LedgerError
from fl_node.ledger.rules import ZERO_ADDRESS, LedgerState
from fl_node.records import (
    Entry,
    LedgerOpened,
    OwnerChanged,
    PeerAdmitted,
    PeerAnnounced,
    PeerRetired,
    UnknownEntry,
    UpdateObjected,
    UpdatePublished,
    UpdatesAttested,
)


def breaches(entries: Iterable[Entry]) -> dict[int, str]:
    """What is wrong with entries by the contract's rules, by entry index; empty for a log that a ledger can have made.

    An entry that breaks a rule changes nothing, so that those after it are judged as if it were not there. Who asked
    for an admission or a retirement is not in the log; it is in the transaction.
    """
    found: dict[int, str] = {}
    state = LedgerState(ZERO_ADDRESS, 0)
    time_s = block = 0
    for position, entry in enumerate(entries):
        if entry.index != position:
            found[position] = f"got entry {entry.index} at position {position} of the log"
        if entry.time_s < time_s:
            found[entry.index] = f"its time {entry.time_s} is before that of the entry before it, {time_s}"
        time_s = max(time_s, entry.time_s)
        if entry.block_number and entry.block_number < block:
            found[entry.index] = f"it is in block {entry.block_number}, the entry before it in block {block}"
        block = max(block, entry.block_number)
        try:
            state = _apply(state, entry)
        except LedgerError as refusal:
            found[entry.index] = f"the contract takes no such entry: {refusal}"
        except (ValueError, LookupError) as refusal:
            found[entry.index] = f"the entry cannot be the contract's: {refusal}"
        state.size = max(state.size, entry.index + 1)
    return found


def _apply(state: LedgerState, entry: Entry) -> LedgerState:
    body = entry.body
    if (entry.index == 0) != isinstance(body, LedgerOpened):
        raise ValueError(f"entry {entry.index} is {entry.kind}; expected LedgerOpened at 0 and nowhere else")
    match body:
        case LedgerOpened():
            return LedgerState(body.owner, body.min_interval_s)
        case OwnerChanged():
            if body.previous != state.owner:
                raise ValueError(f"the owner before was {state.owner}, not {body.previous}")
            state.owner = body.current
        case PeerAdmitted():
            state.enrol(body.account, body.site, body.roles)
            if state.peers()[-1].number != body.peer:
                raise ValueError(f"admits peer {body.peer}; expected {state.peers()[-1].number}, the next number")
        case PeerRetired():
            state.retire(state.owner, _account(state, body.peer), body.reason, body.from_index)
        case PeerAnnounced():
            account = _account(state, body.peer)
            state.announce(account, body.epoch, body.recipient_key, body.tls_pin, body.endpoint)
        case UpdatePublished():
            state.publish(_account(state, body.peer), entry.time_s, body.update, body.parents)
        case UpdatesAttested():
            state.attest(_account(state, body.peer), body.evidence, body.items)
        case UpdateObjected():
            state.object(_account(state, body.peer), body.target, body.reason, body.evidence)
        case UnknownEntry():
            raise ValueError(f"no kind of entry that the contract makes: 0x{body.topic.hex()}")
    return state


def _account(state: LedgerState, peer: int) -> str:
    known = state.peer(peer)
    if known is None:
        raise LookupError(f"by peer {peer}, who was never admitted")
    return known.account
