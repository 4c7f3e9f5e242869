"""A prefix against the plainest reading of the same entries, at every size."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import Log, account

from fl_node.errors import InconsistentLog
from fl_node.prefix import Prefix
from fl_node.records import PeerAdmitted, PeerRetired, Reason, Role, UpdateObjected, UpdatePublished, UpdateRef


@st.composite
def logs(draw):
    log = Log(peers=draw(st.integers(1, 3)))
    retired = set()
    for _ in range(draw(st.integers(0, 25))):
        log.time_s += draw(st.integers(0, 5))
        peer = draw(st.integers(1, log.members))
        known = [UpdateRef(p, n) for p, count in log.sequences.items() for n in range(1, count + 1)]
        step = draw(st.sampled_from(["publish", "publish", "object", "attest", "admit", "retire", "announce"]))
        if step == "publish":
            log.publish(peer, draw(st.integers(1, 9)), final=draw(st.integers(0, 4)) == 0)
        elif step == "object" and known:
            log.object(peer, draw(st.sampled_from(known)), draw(st.sampled_from(list(Reason))))
        elif step == "attest" and known:
            log.attest(peer, draw(st.sampled_from(known)))
        elif step == "admit":
            log.admit()
        elif step == "announce":
            log.announce(peer, 1, f"http://{len(log.entries)}")
        elif step == "retire" and peer not in retired and draw(st.integers(0, 2)) == 0:
            retired.add(peer)
            log.retire(peer, draw(st.integers(0, len(log.entries))))
    return log


@settings(max_examples=150, deadline=None)
@given(logs(), st.data())
def test_every_size_against_a_plain_reading(log, data):
    whole = log.prefix
    pieces = data.draw(st.integers(0, len(log.entries)))
    grown = Prefix(log.entries[:pieces]).extend(log.entries[pieces:])
    for size in {0, pieces, len(log.entries), data.draw(st.integers(0, len(log.entries)))}:
        for view in (whole.upto(size), grown.upto(size), Prefix(log.entries[:size])):
            check(view, log.entries[:size])


def check(view, entries):
    bodies = [(entry.index, entry.body) for entry in entries]
    admitted = [body for _, body in bodies if isinstance(body, PeerAdmitted)]
    retired = {}
    for _, body in bodies:
        if isinstance(body, PeerRetired):
            retired[body.peer] = body.from_index
    published = [(index, body) for index, body in bodies if isinstance(body, UpdatePublished)]
    assert view.size == len(entries)
    assert [peer.number for peer in view.peers()] == [body.peer for body in admitted]
    assert view.highest_round == max((body.update.round for _, body in published), default=0)
    for number in range(1, 8):
        own = [(index, body) for index, body in published if body.peer == number]
        counted = [(i, b) for i, b in own if number not in retired or i < retired[number]]
        trained = [(i, b) for i, b in counted if not b.update.flags]
        assert [entry.index for entry in view.updates(number)] == [index for index, _ in own]
        assert view.sequence(number) == len(own)
        assert (view.latest(number).index if view.latest(number) else None) == (counted[-1][0] if counted else None)
        assert (view.trained(number).index if view.trained(number) else None) == (trained[-1][0] if trained else None)
        assert view.updates_since(number, 5) == sum(index > 5 for index, _ in own)
        if number <= len(admitted):
            assert view.peer(number).active == (number not in retired)
        else:
            with pytest.raises(LookupError):
                view.peer(number)
        for sequence, (index, _) in enumerate(own, 1):
            ref = UpdateRef(number, sequence)
            assert view.update(ref).index == index
            words = [
                i
                for i, b in bodies
                if isinstance(b, UpdateObjected) and b.target == ref and (b.peer not in retired or i < retired[b.peer])
            ]
            assert [word.index for word in view.objections(ref)] == words
        with pytest.raises(LookupError):
            view.update(UpdateRef(number, len(own) + 1))
    for number in range(1, 10):
        assert [e.index for e in view.of_round(number)] == [i for i, b in published if b.update.round == number]


def test_extending_leaves_older_views_as_they_were():
    log = Log(peers=2)
    before = log.prefix
    log.publish(1, 1)
    log.admit(roles=Role.READ)
    after = before.extend(log.entries[before.size :])
    assert (before.size, before.sequence(1), len(before.peers())) == (3, 0, 2)
    assert (after.size, after.sequence(1), len(after.peers())) == (5, 1, 3)
    assert before.peer_of(account(3)) is None
    assert after.peer_of(account(3).upper().replace("0X", "0x")).number == 3


def test_two_histories_from_one_prefix_stay_apart():
    """A reorganised chain: go back to the fork, then follow the other branch."""
    log = Log(peers=2)
    fork = len(log.entries)
    base = log.prefix
    log.publish(1, 1)
    first = base.extend(log.entries[fork:])
    other = Log(peers=2)
    other.publish(2, 1)
    other.publish(1, 1)
    second = first.upto(fork).extend(other.entries[fork:])
    assert (first.sequence(1), first.sequence(2)) == (1, 0)
    assert (second.sequence(1), second.sequence(2)) == (1, 1)
    assert second.update(UpdateRef(1, 1)).index == 4


def test_a_failed_extension_leaves_the_prefix_usable():
    log = Log(peers=1)
    prefix = log.prefix
    log.publish(1, 1)
    log.publish(5, 1)
    with pytest.raises(InconsistentLog, match="entry 3 is by peer 5, who was never admitted"):
        prefix.extend(log.entries[2:])
    assert prefix.extend(log.entries[2:3]).sequence(1) == 1
    assert prefix.sequence(1) == 0


def test_what_is_not_this_log_is_refused():
    log = Log(peers=1)
    with pytest.raises(InconsistentLog, match="got entry 1 of the log, expected entry 0"):
        Prefix(log.entries[1:])
    with pytest.raises(InconsistentLog, match="got entry 0 of the log, expected entry 2"):
        log.prefix.extend(log.entries)
    log.sequences[1] = 4
    log.publish(1, 1)
    with pytest.raises(InconsistentLog, match="is update 1#5, expected 1#1"):
        _ = log.prefix
    with pytest.raises(InconsistentLog, match="no entry 0"):
        _ = Prefix().opened
    with pytest.raises(ValueError, match="expected 0 to 2"):
        Prefix(log.entries[:2]).upto(3)


def test_announcements_by_entry():
    log = Log(peers=1)
    log.announce(1, 1, "http://a")
    log.announce(1, 2, "http://b")
    assert log.prefix.peer(1).announcement.endpoint == "http://b"
    assert log.prefix.upto(3).peer(1).announcement.endpoint == "http://a"
    assert log.prefix.upto(2).peer(1).announcement is None
