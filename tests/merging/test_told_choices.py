"""What ``fl-node show`` works out of an update's candidates: for updates that keep to the rules, and for others."""

from __future__ import annotations

from logs import Log, content, spec

from fl_node.cli.choices import in_words
from fl_node.completeness.choices import candidates_of
from fl_node.records import Parent, Reason, UpdateRef, rule_name


def parent(ref: UpdateRef, share_ppm: int) -> Parent:
    return Parent(ref.peer, ref.sequence, content(ref.peer, ref.sequence)[:4], share_ppm)


def told(log: Log, ref: UpdateRef, **merging: object) -> list[str] | str:
    return in_words(candidates_of(spec(merging=merging), log.prefix, log.prefix.update(ref)))


def test_who_was_outscored_and_who_had_nothing_yet() -> None:
    log = Log(4)
    first, second = log.publish(1, 1, score=500_000), log.publish(2, 1, score=900_000)
    log.publish(3, 1, score=700_000)
    merged = log.publish(1, 2, parents=(parent(first, 500_000), parent(second, 500_000)))
    words = told(log, merged, selection="top-k", k=1)
    assert words == [
        "3#1 outscored (claimed score 70.00 %, needed above 90.00 %)",
        "peer 4 none-yet (has published nothing that was trained)",
    ]
    assert told(log, first) == [f"peer {n} none-yet (has published nothing that was trained)" for n in (1, 2, 3, 4)]


def test_what_a_rule_left_out_and_what_was_passed_over_against_the_policy() -> None:
    log = Log(3)
    refs = [log.publish(peer, 1) for peer in (1, 2, 3)]
    merged = log.publish(1, 2, parents=(parent(refs[0], 1_000_000), parent(refs[1], 0)))
    rejected, passed_over = told(log, merged)
    assert rejected.startswith("2#1 rejected (share 0")
    assert passed_over == "3#1 not-recorded (a candidate by the policy, but not among the recorded parents)"


def test_once_unavailable_may_be_left_out_again() -> None:
    log = Log(2)
    first, second = log.publish(1, 1), log.publish(2, 1)
    log.object(1, second, Reason.UNAVAILABLE)
    log.publish(1, 2, parents=(parent(first, 1_000_000),))
    again = log.publish(1, 3, parents=(parent(UpdateRef(1, 2), 1_000_000),))
    assert told(log, again) == ["2#1 unavailable (called so by this peer in an earlier round)"]


def test_nobody_and_nothing() -> None:
    log = Log(1)
    first = log.publish(1, 1)
    assert told(log, log.publish(1, 2, parents=(parent(first, 1_000_000),))) == "nobody"
    rushing = log.publish(1, 9)
    given = candidates_of(spec(rounds={"mode": "sync"}), log.prefix, log.prefix.update(rushing))
    assert given is None and str(in_words(given)).startswith("unknown")
    assert (rule_name(8), rule_name(200)) == ("multi-krum", "200")
