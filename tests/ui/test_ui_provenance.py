"""Provenance around an update: the walk against the exact one, what is drawn of it, and that it stays bounded."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import ui_large
import ui_logs
from ui_logs import Explored
from ui_scribe import Scribe

from fl_node.ledger.log_store import LogStore
from fl_node.lineage import Lineage, Relatives, trace
from fl_node.prefix import Prefix
from fl_node.records import PPM, Flag, Rule, UpdateRef
from fl_node.spec import parse_federation
from ledger_ui.pages.provenance import FAR, NEAR
from ledger_ui.provenance import words
from ledger_ui.provenance.building import _together, _ways
from ledger_ui.provenance.choice import MOST_MERGES, MOST_NODES
from ledger_ui.provenance.sites import by_site
from ledger_ui.provenance.walk import Walk

CLOSE = 1e-9


# ---- federations -----------------------------------------------------------------------------------------------------


def shared(dice: random.Random, found: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Random shares that sum to a million."""
    weights = [dice.randint(1, 9) for _ in found]
    shares = [weight * PPM // sum(weights) for weight in weights]
    shares[0] += PPM - sum(shares)
    return [(peer, sequence, share) for (peer, sequence), share in zip(found, shares, strict=True)]


def told_by(kind: str, peers: int, rounds: int, fan_in: int, seed: int = 1) -> Scribe:
    """A log of so many updates: ``sync`` merges the round before; ``async`` whatever is latest, also of its own round
    or of one ahead; ``chain`` has peers that merge nobody but themselves."""
    told, dice = Scribe(parse_federation(ui_logs.SPEC.encode()).digest), random.Random(seed)
    for peer in range(1, peers + 1):
        told.admit(f"site-{(peer - 1) % max(1, peers - 2)}")
    rules = [*[Rule.FEDAVG] * 30, Rule.MEDIAN] if kind != "chain" else [Rule.FEDAVG]
    latest: dict[int, tuple[int, int]] = {}
    at = dict.fromkeys(range(1, peers + 1), 0)
    before: dict[int, tuple[int, int]] = {}
    for number in range(1, rounds + 1):
        for peer in dice.sample(range(1, peers + 1), peers):
            if kind == "async" and dice.random() < 0.3 and number < rounds:
                continue
            own = {peer: latest[peer]} if peer in latest else {}
            known = list({"sync": before, "async": latest, "chain": own}[kind].values())
            found = dice.sample(known, min(fan_in, len(known)))
            at[peer] += 1
            parents = shared(dice, found) if found else []
            lagging = kind == "async" and dice.random() < 0.3
            told.publish(
                peer,
                at[peer],
                max(1, number - lagging),
                *parents,
                rule=int(dice.choice(rules)),
                flags=Flag.FINAL if number == rounds else Flag(0),
            )
            latest[peer] = (peer, at[peer])
        before = dict(latest)
    return told


@pytest.fixture(scope="module", params=["sync", "async", "chain"])
def medium(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explored]:
    told = told_by(request.param, 12, 14, 4)
    yield from ui_logs.closing(ui_logs.explored(tmp_path_factory.mktemp(request.param), told))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explored]:
    yield from ui_logs.closing(ui_large.large(tmp_path_factory.mktemp("large")))


def prefix_of(one: Explored) -> Prefix:
    log = LogStore(one.shown.store.path)
    try:
        return Prefix(log.entries(0, log.size))
    finally:
        log.close()


def refs_of(prefix: Prefix) -> list[UpdateRef]:
    return [entry.ref for peer in prefix.peers() for entry in prefix.updates(peer.number)]


def path_of(ref: UpdateRef | str) -> str:
    return f"/updates/{str(ref).replace('#', '-')}/provenance"


# ---- against the exact walk ------------------------------------------------------------------------------------------


def test_every_update_of_a_small_federation_is_as_traced(world: Explored) -> None:
    assert_as_traced(world, refs_of(prefix_of(world)))


def test_updates_of_medium_federations_are_as_traced(medium: Explored) -> None:
    prefix = prefix_of(medium)
    refs = refs_of(prefix)
    assert len(refs) > 80
    assert_as_traced(medium, refs[::7])


def assert_as_traced(one: Explored, refs: list[UpdateRef]) -> None:
    prefix = prefix_of(one)
    with one.shown.store.reading() as db:
        for ref in refs:
            exact = trace(prefix, ref)
            for found, upward in ((exact.ancestors, True), (exact.descendants, False)):
                assert found is not None
                walk = Walk(db, prefix.update(ref).index, upward=upward).go(1_000_000)
                assert_alike(walk, found, ref)
                assert_sites(by_site(db, walk)[0], found)


def assert_alike(walk: Walk, found: Relatives, ref: UpdateRef) -> None:
    assert not walk.waiting and walk.lost == 0 and not walk.unsound
    assert set(walk.relatives) == {relative.entry.index for relative in found.updates}
    for relative in found.updates:
        idx = relative.entry.index
        assert walk.shares[idx] == pytest.approx(float(relative.share), abs=CLOSE), (ref, relative.ref)
        assert walk.steps[idx] == relative.steps
        assert (idx in walk.nominal) == relative.nominal, (ref, relative.ref)
    if found.genesis is not None:
        assert walk.genesis == pytest.approx(float(found.genesis), abs=CLOSE)
        assert walk.genesis_steps == found.genesis_steps


def assert_sites(parts: list[Any], found: Relatives) -> None:
    assert sorted(part.site_name for part in parts) == [item.site for item in found.sites]
    by_name = {part.site_name: part for part in parts}
    for item in found.sites:
        part = by_name[item.site]
        assert (part.direct_ppm, part.updates) == (item.direct_ppm, item.updates)
        assert (part.first_round, part.last_round, part.nominal) == (item.first_round, item.last_round, item.nominal)
        assert part.largest == pytest.approx(float(item.largest), abs=CLOSE)
        assert part.latest_known
        assert part.latest == (None if item.latest is None else pytest.approx(float(item.latest), abs=CLOSE))
    assert all(one.largest >= other.largest for one, other in pairwise(parts))


def test_what_a_cut_walk_took_is_whole(medium: Explored) -> None:
    prefix = prefix_of(medium)
    ref = max(refs_of(prefix), key=lambda one: prefix.update(one).index)
    middle = sorted(refs_of(prefix), key=lambda one: prefix.update(one).index)[len(refs_of(prefix)) // 2]
    with medium.shown.store.reading() as db:
        for start, upward in ((ref, True), (middle, True), (middle, False)):
            lineage = trace(prefix, start)
            exact = relatives(lineage, upward)
            for most in (0, 1, 5, 17, 40):
                walk = Walk(db, prefix.update(start).index, upward=upward).go(most)
                assert walk.looked <= most
                assert walk.waiting or set(walk.relatives) == set(exact)
                assert set(walk.relatives) <= set(exact)
                for idx in walk.relatives:
                    if idx in walk.waiting:
                        assert walk.shares[idx] <= exact[idx] + CLOSE
                    else:
                        assert walk.shares[idx] == pytest.approx(exact[idx], abs=CLOSE)
                if upward:
                    assert walk.beyond + walk.genesis == pytest.approx(1, abs=CLOSE)
                # Going on comes to the same as going at once.
                walk.go(1_000_000)
                assert {idx: walk.shares[idx] for idx in walk.relatives} == pytest.approx(exact, abs=CLOSE)


def relatives(lineage: Lineage, upward: bool) -> dict[int, float]:
    found = lineage.ancestors if upward else lineage.descendants
    assert found is not None
    return {one.entry.index: float(one.share) for one in found.updates}


def test_shares_of_a_round_together_count_each_way_once(medium: Explored) -> None:
    prefix = prefix_of(medium)
    told = 0
    with medium.shown.store.reading() as db:
        for ref in refs_of(prefix)[::9]:
            root = prefix.update(ref).index
            walk = Walk(db, root, upward=True).go(1_000_000)
            ways = _ways(walk)
            rounds: dict[int, list[int]] = {}
            for idx in walk.relatives:
                rounds.setdefault(walk.facts[idx].round, []).append(idx)
            for members in rounds.values():
                together = _together(walk, tuple(members), ways)
                if together is not None:
                    told += 1
                    assert together == pytest.approx(float(through(walk, root, set(members))), abs=CLOSE)
    assert told > 3


def through(walk: Walk, root: int, members: set[int]) -> Fraction:
    """The share of starting points whose way from the root meets any of these, exactly."""
    known: dict[int, Fraction] = {}
    for idx in sorted(walk.shares):  # parents first
        if idx in members:
            known[idx] = Fraction(1)
        else:
            known[idx] = sum((known[other] * Fraction(ppm, PPM) for _, other, ppm in walk.links[idx]), Fraction(0))
    return known[root]


# ---- what is shown ---------------------------------------------------------------------------------------------------


def test_a_page_tells_the_same_three_times(world: Explored) -> None:
    told = world.json(f"{path_of('2#2')}.json")
    html = world.get(path_of("2#2")).text
    for node in told["nodes"]:
        assert html.count(f'id="at-{node["key"]}"') == 1  # in the graph
        assert html.count(f'id="in-{node["key"]}"') == 1  # in the list
    assert html.count('class="edge ') == len(told["merges"])
    for kin in (told["above"], told["below"]):
        for part in kin["sites"]:
            assert f">{words.percentage(part['largest'])}<" in html
    assert [node["side"] for node in told["nodes"]].count("root") == 1
    assert told["nodes"][0]["kind"] == "genesis"
    assert told["above"]["genesis"] == pytest.approx(1)
    closing = {node["update"] for node in told["nodes"] if node["final"]}
    assert closing == {f"{peer}#{sequence}" for peer, sequence in ((1, 5), (2, 5), (3, 4), (4, 5), (6, 5), (7, 4))}
    assert "share of starting points" in html and "no measure of how much" in html


def test_the_command_for_a_site_is_a_shells_one_word(world: Explored, hostile: Explored) -> None:
    assert world.json(f"{path_of('2#2')}.json")["exports"][-1]["command"].endswith("--site clinic-b")
    commands = [one["command"] for one in hostile.json(f"{path_of('3#4294967295')}.json")["exports"]]
    assert commands[-1].endswith("--site =1+1") and all(one.startswith("fl-node lineage ") for one in commands)


def test_levels_as_asked(medium: Explored) -> None:
    ref = refs_of(prefix_of(medium))[40]
    for up, down in ((0, 0), (1, 0), (0, 2), (2, 3)):
        told = medium.json(f"{path_of(ref)}.json?up={up}&down={down}&collapse=none")
        nodes = [node for node in told["nodes"] if node["kind"] == "update"]
        assert all(node["steps"] <= (up if node["side"] == "above" else down) for node in nodes)
        assert told["above"]["shown_levels"] <= up and told["below"]["shown_levels"] <= down
        assert len(nodes) == 1 + told["above"]["listed"] + told["below"]["listed"]
        hidden = [node for node in nodes if node["hidden"]]
        assert all(node["toggle_url"] for node in hidden)


def test_opening_a_node_draws_what_lies_behind_it_and_hides_it_again(medium: Explored) -> None:
    ref = max(refs_of(prefix_of(medium)), key=lambda one: prefix_of(medium).update(one).index)
    before = medium.json(f"{path_of(ref)}.json?up=1&down=0&collapse=none")
    node = next(node for node in before["nodes"] if node["side"] == "above" and node["hidden"])
    after = follow(medium, node["toggle_url"])
    assert follow(medium, after["url"])["nodes"] == after["nodes"]
    gained = {one["key"] for one in after["nodes"]} - {one["key"] for one in before["nodes"]} - {"genesis"}
    assert len(gained) == node["hidden"]
    opened = next(one for one in after["nodes"] if one["key"] == node["key"])
    assert opened["opened"] and opened["hidden"] == 0
    assert gained == {one["parent"] for one in after["merges"] if one["child"] == node["key"]} - {
        one["key"] for one in before["nodes"]
    } - {"genesis"}
    again = follow(medium, opened["toggle_url"])
    assert {one["key"] for one in again["nodes"]} == {one["key"] for one in before["nodes"]}


def follow(one: Explored, url: str) -> Any:
    path, _, query = url.removeprefix(f"/{one.shown.slug}").partition("?")
    return one.json(f"{path}.json?{query}")


@pytest.mark.parametrize("collapse", ["site", "round"])
def test_updates_are_put_together_and_taken_apart(medium: Explored, collapse: str) -> None:
    ref = max(refs_of(prefix_of(medium)), key=lambda one: prefix_of(medium).update(one).index)
    each = medium.json(f"{path_of(ref)}.json?up=99&down=0&collapse=none")
    told = medium.json(f"{path_of(ref)}.json?up=99&down=0&collapse={collapse}")
    assert each["collapse"] == "none" and told["collapse"] == collapse
    assert sum(node["updates"] for node in told["nodes"]) == sum(node["updates"] for node in each["nodes"])
    inside = sum(one["merges"] for one in each["merges"]) - sum(one["merges"] for one in told["merges"])
    assert inside >= 0
    group = next((node for node in told["nodes"] if node["kind"] == "group"), None)
    if group is None:
        assert len(told["nodes"]) == len(each["nodes"])  # a chain has nothing to put together
        return
    members = [node for node in each["nodes"] if node["round"] == group["round"] and node["side"] == group["side"]]
    if collapse == "site":
        members = [node for node in members if node["site"] == group["site"]]
    assert group["updates"] == len(members)
    assert group["share"] == max(node["share"] for node in members)
    after = follow(medium, group["toggle_url"])
    mine = [node for node in after["nodes"] if node["round"] == group["round"] and node["side"] == group["side"]]
    assert all(node["kind"] == "update" for node in mine) and len(mine) >= group["updates"]
    heading = next(one for one in after["rounds"] if one["round"] == group["round"])
    assert heading["each"] and heading["toggle_url"]
    assert follow(medium, heading["toggle_url"])["nodes"] == told["nodes"]


def test_the_list_holds_what_lies_deep_as_well(tmp_path: Path) -> None:
    told = told_by("chain", 1, 40, 1)
    for one in ui_logs.closing(ui_logs.explored(tmp_path, told)):
        html = one.get(f"{path_of('1#40')}?up=39&collapse=none").text
        assert all(f'id="in-1-{number}"' in html for number in range(1, 41))


# ---- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?far=true",
        "?up=1000000&down=1000000&collapse=round&far=true",
        "?up=1000000&down=1000000&collapse=site&far=true",
        "?up=1000000&down=1000000&collapse=none&far=true",
        "?up=1000000&down=1000000&collapse=round&far=true&expand=" + ",".join(map(str, range(1, 60))),
    ],
)
@pytest.mark.parametrize("ref", ["1#1", "25#50", "50#100"])
def test_a_graph_of_fifty_peers_and_a_hundred_rounds_stays_readable(large: Explored, ref: str, query: str) -> None:
    told = large.json(f"{path_of(ref)}.json{query}")
    assert len(told["nodes"]) <= MOST_NODES + 1 and len(told["merges"]) <= MOST_MERGES
    assert told["above"]["merges"] + told["below"]["merges"] <= (FAR if "far" in query else NEAR)
    html = large.get(f"{path_of(ref)}{query}")
    assert html.status_code == 200 and len(html.data) < 700_000


def test_all_of_it_is_followed_where_that_is_asked(large: Explored) -> None:
    told = large.json(f"{path_of('50#100')}.json?up=1000000&collapse=round&far=true")
    assert not told["above"]["cut"] and told["above"]["updates"] > 4_500
    assert told["above"]["genesis"] == pytest.approx(1)
    groups = [node for node in told["nodes"] if node["kind"] == "group"]
    assert len(groups) == 99 and all(node["share_sum"] == pytest.approx(1) for node in groups)
    after = follow(large, next(node for node in groups if node["round"] == 60)["toggle_url"])
    assert sum(1 for node in after["nodes"] if node["kind"] == "update" and node["round"] == 60) == 50


def test_a_cut_is_told(large: Explored) -> None:
    told = large.json(f"{path_of('50#100')}.json?up=1000000&collapse=round")
    above = told["above"]
    assert above["cut"] and 0.99 < above["beyond"] <= 1 and above["cut_round"] < 100
    assert any(node["at_least"] for node in told["nodes"])
    html = large.get(f"{path_of('50#100')}?up=1000000&collapse=round").text
    assert "Not followed to the end" in html and f"round {above['cut_round']}" in html
    assert "Follow farther" in html and "fl-node lineage" in html


def test_a_wish_that_cannot_be_drawn_is_told(large: Explored) -> None:
    told = large.json(f"{path_of('50#100')}.json?up=1000000&collapse=none")
    assert told["collapse"] != "none" and "Asked for every update by itself" in told["notices"][0]
    many = ",".join(map(str, range(60, 100)))
    told = large.json(f"{path_of('50#100')}.json?up=1000000&collapse=round&far=true&expand={many}")
    assert any("too many updates to draw each" in notice for notice in told["notices"])


def test_questions_go_by_an_index(large: Explored) -> None:
    """No statement of the page looks at a whole table."""
    asked: list[str] = []
    with large.shown.store.reading() as db:
        db.set_trace_callback(asked.append)
        try:
            large.json(f"{path_of('25#50')}.json")
            Walk(db, 53, upward=False).go(100)
            by_site(db, Walk(db, 53, upward=False).go(100))
        finally:
            db.set_trace_callback(None)
        plans = [
            (text, row[3])
            for text in asked
            if text.startswith("SELECT")
            for row in db.execute(f"EXPLAIN QUERY PLAN {text}")
        ]
    assert plans
    assert not [plan for plan in plans if re.match(r"SCAN (?!json_each|ui_state)", plan[1])]


# ---- what may come ---------------------------------------------------------------------------------------------------


def test_a_hostile_log_is_shown(hostile: Explored) -> None:
    with hostile.shown.store.reading() as db:
        refs = [f"{row[0]}#{row[1]}" for row in db.execute("SELECT peer, sequence FROM updates")]
    assert len(refs) >= 7
    for ref in refs:
        for query in ("", "?up=99&down=99", "?collapse=site", "?collapse=round", "?open=1-1,2-1,3-4294967295&up=0"):
            answer = hostile.get(path_of(ref) + query)
            assert answer.status_code == 200, (ref, query)
            assert "<script>alert" not in answer.text and 'onload="' not in answer.text
            told = hostile.json(f"{path_of(ref)}.json{query}")
            assert all(0 <= node["share"] <= 1 for node in told["nodes"])
    lost = hostile.json(f"{path_of('77#1')}.json")
    assert lost["above"]["lost"] == pytest.approx(1) and lost["site"] is None
    assert "does not have before them" in hostile.get(path_of("77#1")).text
    own = hostile.json(f"{path_of('3#4294967295')}.json")  # names itself, and shares beyond all bounds
    assert own["above"]["unsound"] and all(node["share"] <= 1 for node in own["nodes"])


def test_one_peer_alone(lonely: Explored) -> None:
    told = lonely.json(f"{path_of('1#1')}.json")
    assert told["above"]["genesis"] == 1 and told["above"]["updates"] == 0 and told["below"]["updates"] == 1
    assert "started from the genesis" in lonely.get(path_of("1#1")).text
    assert "Nobody has merged this update" in lonely.get(path_of("1#2")).text


@pytest.mark.parametrize("ref", ["9-9", "x", "1", "1-", "0-0", "1-99999999999999999999", "1-2-3"])
def test_what_is_no_update(world: Explored, empty: Explored, unseen: Explored, ref: str) -> None:
    for one in (world, empty, unseen):
        assert one.get(f"/updates/{ref}/provenance").status_code == 404


@pytest.mark.parametrize(
    "query", ["up=-1", "up=x", "collapse=all", "open=1", "open=1-1;", "expand=a", "expand=1,,2", "levels=3"]
)
def test_what_may_not_be_asked(world: Explored, query: str) -> None:
    assert world.get(f"{path_of('2#2')}?{query}").status_code == 400


def test_names_that_are_not_there_are_left_out_of_the_address(world: Explored) -> None:
    told = world.json(f"{path_of('2#2')}.json?open=1-1,55-1&expand=77&up=1&down=1&collapse=none")
    addresses = " ".join(node["toggle_url"] for node in told["nodes"])
    assert "1-1" in addresses and "55-1" not in addresses
