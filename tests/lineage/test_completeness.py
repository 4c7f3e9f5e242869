"""Who was expected, came, was merged, was left out, is missing: on federations whose course is known."""

from __future__ import annotations

import io
import json
import random
import time

import pytest
from federations import HOSTILE, Played, alike, in_step
from logs import Log, content, spec
from random_logs import SELECTIONS, orderly_log, random_log, random_spec
from rich.console import Console

from fl_node.cli.completeness import show_completeness
from fl_node.completeness import Completeness, State, Submission, completeness
from fl_node.merging.selection import selection_behind
from fl_node.merging.sync import sync_prefix
from fl_node.prefix import Prefix
from fl_node.records import Parent, Reason, Role, UpdateObjected, UpdatePublished, UpdateRef
from fl_node.spec import Spec

LETTERS = {
    State.MERGED: "#",
    State.SUBMITTED: "+",
    State.LEFT_OUT: "x",
    State.CLOSING: "c",
    State.IGNORED: "i",
    State.MISSING: "!",
    State.AWAITED: "?",
    State.RETIRED: "r",
    State.NOT_EXPECTED: ".",
}


def sync(deadline_s: float = 30.0, quorum: float = 1.0, **merging: object) -> Spec:
    return spec(rounds={"mode": "sync", "deadline_s": deadline_s, "quorum": quorum}, merging=merging)


def lines(found: Completeness) -> dict[str, str]:
    """Each site's row, a letter for a round."""
    return {row.site: "".join(LETTERS[state] for state in row.states) for row in found.sites}


def update(found: Completeness, ref: UpdateRef) -> Submission:
    return next(one for one in found.submissions if one.ref == ref)


def shown(found: Completeness, width: int = 110) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    show_completeness(console, found)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_everybody_takes_part_to_the_end() -> None:
    game = Played(sync(), Log(3))
    for number in range(1, 5):
        game.round(number, 1, 2, 3)
    game.round(5, 1, 2, 3, final=True)
    found = completeness(game.rules, game.prefix)
    assert lines(found) == {f"site-{peer}": "####c" for peer in (1, 2, 3)}
    assert [row.expected for row in found.rounds] == [(1, 2, 3)] * 5
    assert [len(row.submitted) for row in found.rounds] == [3, 3, 3, 3, 0]
    assert found.rounds[4].closing == tuple(UpdateRef(peer, 5) for peer in (1, 2, 3))
    assert not found.silent and not found.ignored and not found.unreplayed
    assert update(found, UpdateRef(2, 4)).merged_by == tuple(UpdateRef(peer, 5) for peer in (1, 2, 3))
    assert not any(one.left_out or one.late for one in found.submissions)
    text = shown(found)
    assert "No site has dropped out." in text and "left out and" not in text and "updates left out" not in text
    assert text.splitlines()[0] == "Completeness: 5 rounds (sync), 3 sites, 19 entries"


def test_a_site_that_drops_out() -> None:
    game = Played(sync(max_staleness=2), Log(3))
    for number in (1, 2):
        game.round(number, 1, 2, 3)
    for number in (3, 4, 5, 6):
        game.round(number, 1, 2)
        game.wait(40)
    game.round(7, 1)
    found = completeness(game.rules, game.prefix)
    assert lines(found) == {"site-1": "#####++", "site-2": "######?", "site-3": "##!!!!?"}
    # Waited for until it was silent for more than two rounds.
    assert [row.expected for row in found.rounds] == [(1, 2, 3)] * 4 + [(1, 2)] * 3
    assert [row.missing for row in found.rounds] == [(), (), (3,), (3,), (), (), ()]
    assert [row.given_up for row in found.rounds] == [(), (), (), (), (3,), (3,), (3,)]
    assert [row.by_deadline for row in found.rounds[:6]] == [False, False, True, True, False, False]
    assert found.rounds[6].awaited == (2,) and found.rounds[6].cut is None
    (gone,) = (row for row in found.silent if row.silence and row.silence.missed)
    silence = gone.silence
    assert silence is not None and gone.missed == (3, 4, 5, 6)
    assert (silence.last, silence.last_round, silence.given_up) == (UpdateRef(3, 2), 2, True)
    assert silence.entries == game.prefix.size - 1 - silence.last_index
    assert silence.seconds == game.prefix.time_s - silence.last_time_s == 210
    assert "since round 2 (3#2, entry 9, 1970-01-01" in silence.words
    assert "missing in rounds 3-6, 4 in a row, and not yet there in the open one" in silence.words
    text = shown(found)
    assert "site-3 has published nothing since round 2" in text and "No site has dropped out" not in text
    assert "Round 7 is open; nothing yet from site-2" in text
    assert "given up" in text and "missed 3-6" in text


def test_a_site_that_was_away_for_a_while() -> None:
    game = Played(sync(), Log(3))
    game.round(1, 1, 2, 3)
    game.round(2, 1, 2)
    game.wait(40)
    game.round(3, 1, 2, 3)
    game.round(4, 1, 2, 3)
    found = completeness(game.rules, game.prefix)
    assert lines(found)["site-3"] == "#!#+"
    row = next(row for row in found.sites if row.site == "site-3")
    assert row.missed == (2,) and row.silence is None
    assert "No site has dropped out." in shown(found) and "missed 2" in shown(found)


def test_a_late_update_is_merged_by_nobody() -> None:
    game = Played(sync(), Log(3))
    game.round(1, 1, 2, 3)
    game.round(2, 1, 2)
    game.wait(40)
    late = game.play(3, 2)
    game.round(3, 1, 2, 3)
    game.round(4, 1, 2, 3)
    found = completeness(game.rules, game.prefix)
    assert lines(found)["site-3"] == "#x#+"
    one = update(found, late)
    assert one.late and one.state is State.LEFT_OUT and not one.merged_by
    assert [item.outcome for item in one.left_out] == ["late"] and one.left_out[0].by == ()
    assert f"log size {found.rounds[1].cut}" in one.left_out[0].reason
    assert found.rounds[1].late == (late,) and found.rounds[1].missing == ()
    assert sync_prefix(game.rules, game.prefix, 3).missing == (3,)
    text = shown(found)
    assert f"{late} of site-3, round 2: recorded after the cut of round 3" in text


def test_a_quorum_leaves_the_slow_behind() -> None:
    game = Played(sync(quorum=0.6), Log(3))
    game.round(1, 1, 2)
    game.round(2, 1, 2)
    early = UpdateRef(1, 1)
    slow = game.play(3, 1)
    found = completeness(game.rules, game.prefix)
    assert update(found, slow).late and not update(found, early).late
    assert lines(found) == {"site-1": "#+", "site-2": "#+", "site-3": "x!"}


def test_a_late_joiner_is_not_expected_before() -> None:
    game = Played(sync(), Log(2))
    game.round(1, 1, 2)
    game.round(2, 1)
    newcomer = game.log.admit("new")
    game.play(2, 2)
    game.round(3, 1, 2, newcomer)
    game.round(4, 1, 2)
    game.wait(40)
    game.round(5, 1, 2)
    found = completeness(game.rules, game.prefix)
    assert lines(found)["new"] == "..#!?"
    assert [row.expected for row in found.rounds] == [(1, 2), (1, 2), (1, 2, 3), (1, 2, 3), (1, 2, 3)]


def test_a_member_that_never_published() -> None:
    game = Played(sync(), Log(3))
    game.round(1, 1, 2)
    game.wait(40)
    game.round(2, 1, 2)
    found = completeness(game.rules, game.prefix)
    (silent,) = found.silent
    assert silent.site == "site-3" and silent.silence is not None and silent.silence.last is None
    assert "has published nothing since it was admitted (entry 3," in silent.silence.words


def test_who_may_not_publish_is_not_expected() -> None:
    log = Log(2)
    log.admit("auditor", Role.READ)
    game = Played(sync(), log)
    game.round(1, 1, 2)
    game.round(2, 1, 2)
    found = completeness(game.rules, game.prefix)
    assert lines(found)["auditor"] == ".." and not found.silent


def test_retirement_takes_back_what_was_written_from_an_entry_on() -> None:
    game = Played(spec(), Log(3))
    game.round(1, 1, 2, 3)
    game.round(2, 1, 2, 3)
    bad = game.prefix.update(UpdateRef(3, 2))
    said = game.log.object(3, UpdateRef(1, 2), Reason.UNAVAILABLE)
    told = game.log.announce(3, 1, "http://x")
    game.log.retire(3, from_index=bad.index)
    game.round(3, 1, 2)
    game.round(4, 1, 2)
    found = completeness(game.rules, game.prefix)
    assert lines(found)["site-3"] == "#irr"
    assert [(one.index, one.kind, one.ref) for one in found.ignored] == [
        (bad.index, "UpdatePublished", bad.ref),
        (said, "UpdateObjected", None),
        (told, "PeerAnnounced", None),
    ]
    assert f"retired from entry {bad.index} on" in found.ignored[0].why
    assert found.rounds[1].ignored == (bad.ref,) and len(found.rounds[1].submitted) == 2
    assert [row.expected for row in found.rounds] == [(1, 2, 3), (1, 2, 3), (1, 2), (1, 2)]
    assert not any(row.site == "site-3" for row in found.silent)
    text = shown(found)
    assert "site-3: peer 3 was retired at entry" in text and "Entries that do not count: 3" in text


def test_retirement_in_the_middle_of_a_round() -> None:
    game = Played(sync(), Log(3))
    game.round(1, 1, 2, 3)
    game.round(2, 1, 2)
    game.log.retire(3)
    game.round(3, 1, 2)
    found = completeness(game.rules, game.prefix)
    assert lines(found)["site-3"] == "#rr" and found.rounds[1].expected == (1, 2, 3)
    assert found.rounds[1].missing == ()


def test_a_lost_key_replaced_by_another_of_the_same_site() -> None:
    game = Played(spec(), Log(2))
    game.round(1, 1, 2)
    game.log.retire(2)
    game.log.admit("site-2")
    game.round(2, 3, 1)
    game.round(3, 3, 1)
    found = completeness(game.rules, game.prefix)
    assert lines(found) == {"site-1": "##+", "site-2": "x##"}
    row = found.sites[1]
    assert ["".join(LETTERS[state] for state in peer.states) for peer in row.peers] == ["xrr", ".##"]
    (item,) = update(found, UpdateRef(2, 1)).left_out
    assert (item.outcome, item.reason, len(item.by)) == ("retired", "retired at entry 5", 4)
    text = shown(found)
    assert "  peer 2  xrr" in text and "  peer 3  .##" in text


def test_updates_made_before_their_round_had_begun() -> None:
    game = Played(sync(), Log(3))
    game.round(1, 1, 2)
    hasty = game.log.publish(1, 2)  # before peer 3's update completes round 1
    bold = game.log.publish(1, 3)
    game.play(3, 1)
    game.round(2, 2, 3)
    found = completeness(game.rules, game.prefix)
    assert [one.ref for one in found.ignored] == [hasty, bold]
    assert "before round 2 had begun" in found.ignored[0].why and "before round 3 had begun" in found.ignored[1].why
    assert lines(found) == {"site-1": "+ii", "site-2": "#+.", "site-3": "#+."}
    assert found.rounds[2].expected is None and not found.silent
    assert "has not begun" in shown(found)


def test_somebody_who_invents_rounds_hides_nobody() -> None:
    game = Played(sync(), Log(3))
    game.round(1, 1, 2, 3)
    game.round(2, 1, 2)
    game.wait(40)
    game.round(3, 1, 2)
    for number in range(4, 20):
        game.log.publish(1, number)
    found = completeness(game.rules, game.prefix)
    gone = [row.site for row in found.silent if row.silence and row.silence.missed]
    assert gone == ["site-3"]


def test_an_update_whose_selection_cannot_be_replayed() -> None:
    """It claims to have seen too little for its round: whom it left out, nobody can tell."""
    rules = spec(
        rounds={"mode": "sync", "deadline_s": 30.0}, merging={"scores": "attested"}, attestation={"mode": "all"}
    )
    log = Log(2)
    one, two = log.publish(1, 1), log.publish(2, 1)
    log.publish(1, 2, parents=alike([one, two]))  # round 1's updates have not been attested yet
    found = completeness(rules, log.prefix)
    assert [one.ref for one in found.ignored] == [UpdateRef(1, 2)]
    assert "had attested or run out of time" in found.ignored[0].why
    assert update(found, one).state is State.SUBMITTED


def test_async_who_did_not_come_to_a_round() -> None:
    game = Played(spec(merging={"max_staleness": 2}), Log(3))
    game.round(1, 1, 2, 3)
    game.round(2, 1, 2)
    game.round(3, 1, 2)
    game.log.admit("new")
    game.round(4, 1, 2, 4)
    game.round(5, 2)
    found = completeness(game.rules, game.prefix)
    assert lines(found) == {"site-1": "####?", "site-2": "####+", "site-3": "#!!!?", "new": "...#?"}
    assert [row.expected for row in found.rounds] == [(1, 2, 3)] * 3 + [(1, 2, 3, 4)] * 2
    assert [row.cut for row in found.rounds] == [None] * 5 and not any(row.late for row in found.rounds)
    one = update(found, UpdateRef(3, 1))
    assert one.state is State.MERGED
    # After three own updates since, the dead peer's model is too old for the others.
    assert {item.outcome: item.by for item in one.left_out} == {"stale": (UpdateRef(2, 5),)}


def test_closed_peers_are_not_expected_any_more() -> None:
    game = Played(spec(), Log(2))
    game.round(1, 1, 2)
    game.log.at(game.log.time_s + 1)
    game.play(1, 2, final=True)
    game.play(2, 2)
    game.round(3, 2)
    found = completeness(game.rules, game.prefix)
    assert lines(found) == {"site-1": "#c.", "site-2": "#++"} and not found.silent
    assert found.rounds[2].expected == (2,)


def test_what_one_merges_oneself_does_not_count_as_merged() -> None:
    game = Played(spec(merging={"selection": "graph", "graph": "edges", "edges": ((1, 2),)}), Log(3))
    for number in (1, 2, 3):
        game.round(number, 1, 2, 3)
    found = completeness(game.rules, game.prefix)
    assert lines(found) == {"site-1": "###", "site-2": "##x", "site-3": "xx+"}
    alone = update(found, UpdateRef(3, 1))
    assert alone.merged_by == (UpdateRef(3, 2),) and alone.state is State.LEFT_OUT
    assert {item.outcome for item in alone.left_out} == {"not-a-neighbour"}


def test_too_few_samples_in_the_words_of_the_policy() -> None:
    game = Played(spec(merging={"min_samples": 50}), Log(3))
    for number in (1, 2):
        for peer, samples in ((1, 100), (2, 100), (3, 10)):
            game.play(peer, number, samples=samples)
    found = completeness(game.rules, game.prefix)
    small = update(found, UpdateRef(3, 1))
    assert small.state is State.LEFT_OUT
    (item,) = small.left_out
    assert (item.outcome, item.by) == ("too-few-samples", (UpdateRef(1, 2), UpdateRef(2, 2)))
    assert item.reason == "training samples: at least 50 are asked for"
    text = shown(found)
    assert "too-few-samples: fewer training samples than the spec asks for" in text
    assert "3#1 of site-3, round 1: training samples: at least 50 are asked for (2)" in text


def test_what_was_recorded_against_the_policy() -> None:
    """Somebody leaves a rival out of the list, gives another no share, and one was called unavailable before."""
    game = Played(spec(), Log(4))
    refs = [game.play(peer, 1) for peer in (1, 2, 3, 4)]
    zero = Parent(3, 1, content(3, 1)[:4], 0)
    chooser = game.log.publish(1, 2, parents=(*alike(refs[:1]), zero))
    found = completeness(game.rules, game.prefix)
    assert [item.outcome for item in update(found, refs[1]).left_out] == ["not-recorded"]
    assert [item.outcome for item in update(found, refs[2]).left_out] == ["rejected"]
    assert all(update(found, ref).left_out[0].by == (chooser,) for ref in refs[1:3])
    game.log.object(1, refs[3], Reason.UNAVAILABLE)
    game.play(1, 3)
    game.log.publish(1, 4, parents=alike([UpdateRef(1, 3), *refs[1:3]]))
    found = completeness(game.rules, game.prefix)
    assert {(item.outcome, item.reason): item.by for item in update(found, refs[3]).left_out} == {
        ("not-recorded", "a candidate by the policy, but not among the recorded parents"): (chooser,),
        ("unavailable", "own objection"): (UpdateRef(1, 3),),
        ("unavailable", "called unavailable by that peer in an earlier round"): (UpdateRef(1, 4),),
    }


def test_drawing_a_few_is_told_together() -> None:
    game = Played(spec(merging={"selection": "random-k", "k": 2}), Log(8))
    for number in range(1, 6):
        game.round(number, *range(1, 9))
    found = completeness(game.rules, game.prefix)
    drawn = sum(len(one.merged_by) for one in found.submissions)
    left = sum(len(item.by) for one in found.submissions for item in one.left_out if item.outcome == "not-drawn")
    assert drawn == sum(len(game.prefix.update(one.ref).parents) for one in found.submissions)
    # Of seven others two were drawn at each merge; in round 1 some were not there yet.
    assert left == 5 * 8 * 4 + (1 + 2 + 3 + 4 + 5)
    assert shown(found).count("not-drawn") == 1


def test_no_round_and_no_member() -> None:
    found = completeness(spec(), Log().prefix)
    assert (found.rounds, found.sites, found.submissions) == ((), (), ())
    assert "No update has been recorded yet." in shown(found)
    assert lines(completeness(sync(), Log(2).prefix)) == {"site-1": "", "site-2": ""}
    json.dumps(found.as_json())


@pytest.mark.parametrize("seed", range(24))
def test_on_random_logs_everything_has_its_place(seed: int) -> None:
    dice = random.Random(seed)
    rules = random_spec(dice, SELECTIONS[seed % len(SELECTIONS)])
    log = random_log(dice, 6, 90) if seed % 2 else orderly_log(dice, 6, 7)
    prefix = log.prefix
    found = completeness(rules, prefix)
    json.dumps(found.as_json())
    shown(found)
    published = [fact.body.ref for fact in prefix.facts() if isinstance(fact.body, UpdatePublished)]
    assert [one.ref for one in found.submissions] == published
    for row in found.rounds:
        refs = {entry.ref for entry in prefix.of_round(row.number)}
        parts = [row.submitted, row.closing, row.ignored]
        assert sum(map(len, parts)) == len(refs) and {ref for part in parts for ref in part} == refs
        absent = {*row.missing, *row.awaited, *row.given_up}
        assert not absent & {ref.peer for ref in refs} and len(absent) == sum(
            map(len, (row.missing, row.awaited, row.given_up))
        )
        if row.expected is not None:
            retired = {facts.number for facts in prefix.peers() if not facts.active}
            assert set(row.expected) <= {ref.peer for ref in refs} | absent | retired
        if rules.rounds.mode == "sync" and row.expected is not None:
            cut = sync_prefix(rules, prefix, row.number + 1)
            late = {ref.peer for ref in row.late}
            assert set(cut.missing) <= {*row.missing, *row.awaited} | late | {ref.peer for ref in refs}
            assert not {*row.submitted} & set(row.late) & set(cut.present)
    for one in found.submissions:
        children = [
            child.ref
            for child in map(prefix.update, published)
            if any(parent.ref == one.ref and parent.share_ppm for parent in child.parents)
        ]
        assert list(one.merged_by) == children
        for item in one.left_out:
            assert all(one.ref not in _merged(prefix, by) for by in item.by)
    for site in found.sites:
        assert len(site.states) == len(found.rounds) and set(site.states) <= set(State)


def _merged(prefix: Prefix, ref: UpdateRef) -> set[UpdateRef]:
    return {parent.ref for parent in prefix.update(ref).parents if parent.share_ppm}


@pytest.mark.parametrize("seed", range(8))
def test_every_update_that_a_merge_considered_was_merged_or_left_out_with_a_reason(seed: int) -> None:
    """Nobody falls between: of each replayed merge, all but what was no update to merge shows up."""
    dice = random.Random(seed)
    rules = random_spec(dice, SELECTIONS[seed], mode="async")
    prefix = random_log(dice, 5, 60).prefix
    found = completeness(rules, prefix)
    by_ref = {one.ref: one for one in found.submissions}
    uncounted = {one.ref for one in found.ignored}
    for one in found.submissions:
        if one.ref in uncounted or one.ref in found.unreplayed:
            continue
        for item in selection_behind(rules, prefix, prefix.update(one.ref)).considered:
            if item.entry is None or item.peer == one.ref.peer or item.outcome == "already-merged":
                continue
            other = by_ref[item.entry.ref]
            assert one.ref in other.merged_by or any(one.ref in reason.by for reason in other.left_out)


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_an_earlier_part_of_the_log_is_judged_as_if_there_were_no_more(mode: str) -> None:
    dice = random.Random(11)
    rules = random_spec(dice, "all-latest", mode)
    log = orderly_log(dice, 5, 6)
    whole = log.prefix
    completeness(rules, whole)
    for size in range(1, len(log.entries) + 1, 7):
        assert completeness(rules, whole.upto(size)) == completeness(rules, Prefix(log.entries[:size]))


def test_hostile_names_steer_no_terminal() -> None:
    log = in_step(len(HOSTILE), 3, random.Random(0), HOSTILE)
    log.retire(2)
    text = shown(completeness(sync(), log.prefix))
    assert "\x1b" not in text and "\u202e" not in text and "\\u202egnp" in text


def test_a_large_federation_stays_readable_and_quick() -> None:
    log = in_step(50, 40, random.Random(1))
    began = time.monotonic()
    found = completeness(sync(), log.prefix)
    assert time.monotonic() - began < 10  # about a second on an idle core
    text = shown(found)
    assert len(text.splitlines()) < 40 and "group 1: 50 sites" in text
    narrow = shown(found, width=50)
    assert max(map(len, narrow.splitlines())) < 120
    rulers = [line.split() for line in narrow.splitlines() if line.strip() and not line.strip(" 0123456789")]
    assert rulers[0][:3] == ["1", "11", "21"] and len(rulers) == 2


def test_objections_do_not_hide_who_made_them() -> None:
    """The log of the retired is told by kind, and only theirs."""
    game = Played(spec(), Log(2))
    ref = game.play(1, 1)
    game.log.object(2, ref, Reason.UNAVAILABLE)
    game.log.retire(2, from_index=1)
    (one,) = completeness(game.rules, game.prefix).ignored
    assert one.kind == UpdateObjected.__name__ and one.peer == 2 and one.ref is None


def test_json_names_everything() -> None:
    game = Played(sync(), Log(3))
    game.round(1, 1, 2, 3)
    game.round(2, 1, 2)
    game.wait(40)
    game.round(3, 1, 2)
    told = json.loads(json.dumps(completeness(game.rules, game.prefix).as_json()))
    assert told["rounds"][1]["missing"] == [3] and told["rounds"][1]["submitted"] == ["1#2", "2#2"]
    silent = {site["site"]: site["silence"] for site in told["sites"]}
    assert silent["site-1"] is None and silent["site-3"]["last_update"] == "3#1" and silent["site-3"]["missed"] == [2]
    assert set(told["states"]) == {state.value for state in State}
    assert told["updates"][0]["merged_by"] == ["1#2", "2#2"]
