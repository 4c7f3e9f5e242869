from __future__ import annotations

import re
from pathlib import Path
from statistics import median_low

import pytest
from ui_logs import BEGAN_S, SPEC, Explored, closing, digest, explored, founded, over, write_federation
from ui_scribe import Scribe

from fl_node.ledger.log_store import LogStore
from fl_node.presets import PRESETS
from fl_node.spec import parse_federation
from fl_node.spec_text import spec_text
from ledger_ui import Options, create_app
from ledger_ui.federation import Source
from ledger_ui.pages.federation import endpoint
from ledger_ui.words import preset_of, spec_words

# ---- totals and the spec ---------------------------------------------------------------------------------------------


def test_totals_are_those_of_the_log(world: Explored) -> None:
    told = world.json(".json")
    kinds = [entry.kind for entry in LogStore(world.shown.store.path).entries()]
    totals = told["totals"]
    assert totals["entries"] == len(kinds) == told["federation"]["size"]
    assert totals["updates"] == kinds.count("UpdatePublished")
    assert totals["attestations"] == kinds.count("UpdatesAttested")
    assert totals["objections"] == kinds.count("UpdateObjected")
    assert (totals["peers_active"], totals["peers_retired"], totals["sites"]) == (6, 1, 6)
    assert totals["highest_round"] == 5


def test_what_is_not_known_is_not_told_as_zero(world: Explored) -> None:
    totals = world.json(".json")["totals"]
    assert totals["gas"] is None and totals["bytes"] is None and totals["gas_of"] == totals["bytes_of"] == 0
    html = world.get("").text
    assert "no size is known yet" in html and "no transaction was read yet" in html


def test_sums_say_of_how_many_they_are(tmp_path: Path) -> None:
    alone = founded(["clinic-a"])
    alone.update(1, 1)
    for one in closing(over(alone, tmp_path)):
        with one.shown.store.writing() as db:
            db.execute("INSERT INTO transactions (tx_hash, gas_used) VALUES (?, 111000)", (digest("tx"),))
            db.execute("INSERT INTO holders (idx, size_bytes) VALUES (2, 2500000)")
        totals = one.json(".json")["totals"]
        assert (totals["gas"], totals["gas_of"], totals["bytes"], totals["bytes_of"]) == (111_000, 1, 2_500_000, 1)
        html = one.get("").text
        assert "111,000" in html and "in the 1 transactions read so far" in html and "2.5 MB" in html


def test_the_spec_is_told_in_words_and_whole(world: Explored) -> None:
    told = world.json(".json")
    assert told["spec_toml"] == SPEC and not told["spec_cut"]
    words = {one["topic"]: " ".join(one["sentences"]) for one in told["spec"]["topics"]}
    assert "2 best updates of the others" in words["merging"] and "as the publisher claims it" in words["merging"]
    assert "Nobody waits" in words["rounds"] and "4 rounds are planned" in words["rounds"]
    assert "every update of the others" in words["attestation"]
    assert "predecessor" not in words


def test_a_predecessor_is_told(tmp_path: Path) -> None:
    spec = SPEC + f'\n[predecessor]\nchain_id = 5\ncontract = "0xabc"\nsize = 12\nroot = "{"ab" * 32}"\n'
    for one in closing(over(founded(["clinic-a"], spec), tmp_path)):
        told = one.json(".json")
        assert told["predecessor"] == {"chain_id": 5, "contract": "0xabc", "size": 12, "root": "ab" * 32}
        assert "Continues the ledger at 0xabc on chain 5, of 12 entries" in one.get("").text


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_recognised_and_every_key_has_words(name: str) -> None:
    chosen = PRESETS[name]
    spec = parse_federation(spec_text("x", chosen.overrides(7)).encode()).spec
    found = preset_of(spec, 7)
    assert found is not None and found.name == name
    told = spec_words(spec, 7)
    assert told.preset == name and chosen.title in told.preset_words
    merging = next(one for one in told.topics if one.topic == "merging")
    assert all(sentence[-1] == "." and "{" not in sentence for sentence in merging.sentences)


def test_a_spec_of_no_preset_is_none() -> None:
    assert preset_of(parse_federation(SPEC.encode()).spec, 7) is None


def test_words_of_unusual_specs_hold() -> None:
    text = """
[merging]
selection = "graph"
graph = "small-world"
aggregation = "multi-krum"
keep = 3
clip = "fixed"
personal = ["bn.*"]
[training]
optimizer = "adam"
schedule = "cosine"
every = 3
[attestation]
mode = "sample"
k = 1
every = 2
[rounds]
planned = 1
mode = "sync"
quorum = 0.7
depth = 2
"""
    words = " ".join(
        sentence for topic in spec_words(parse_federation(text.encode()).spec, 5).topics for sentence in topic.sentences
    )
    for told in (
        *("small-world, 4 neighbours each", "the 3 that lie closest", "cut to 1.", "named like bn.* stay", "by Adam"),
        *("In every 3rd round", "up to 1 update of others in a round, in every 2nd round", "1 round is planned"),
        *("70 % of the active peers", "once 2 blocks lie on top"),
    ):
        assert told in words, told


def test_an_endpoint_tells_no_secret() -> None:
    assert endpoint("https://user:key@rpc.example:8545/v3/key?x=1") == "https://rpc.example:8545"
    assert endpoint("http://[::1]:8545") == "http://[::1]:8545"
    assert endpoint("nonsense") == endpoint("http://x:99999999") == ""


# ---- scores ----------------------------------------------------------------------------------------------------------


def test_scores_stand_by_peer_and_round(world: Explored) -> None:
    told = world.json(".json")["scores"]
    updates = world.json("/updates.json?limit=500")["rows"]
    counting = {row["update"]: row for row in updates if row["state"] != "ignored"}
    points = {point["update"]: point for line in told["lines"] for point in line["points"]}
    assert points.keys() == counting.keys()
    assert all(points[ref]["claimed_ppm"] == row["claimed_ppm"] for ref, row in counting.items())
    assert all(points[ref]["attested_ppm"] == row["attested_ppm"] for ref, row in counting.items())
    assert told["rounds"] == [1, 2, 3, 4, 5] and not told["spread"]


def test_the_range_of_rounds_is_in_the_address(world: Explored) -> None:
    told = world.json(".json?from=2&to=3")["scores"]
    assert told["rounds"] == [2, 3]
    assert {point["round"] for line in told["lines"] for point in line["points"]} == {2, 3}
    earlier = world.client.get(told["earlier_url"].replace("?", ".json?")).get_json()["scores"]
    assert earlier["rounds"] == [1] and earlier["earlier_url"] is None
    later = world.client.get(told["later_url"].replace("?", ".json?")).get_json()["scores"]
    assert later["rounds"] == [4, 5]
    html = world.get("?from=2&to=3").text
    assert 'name="from" min="0" aria-label="first round" value="2"' in html
    assert world.json(".json?from=900")["scores"]["rounds"] == []
    assert world.get("?from=x").status_code == 400


def test_the_table_beneath_has_every_value(world: Explored) -> None:
    html = world.get("").text
    table = html[html.index("Scores by round as a table") :]
    for line in world.json(".json")["scores"]["lines"]:
        for point in line["points"]:
            assert f"{point['claimed_ppm'] / 10_000:.2f}" in table


def test_of_many_peers_the_spread_is_told(tmp_path: Path) -> None:
    told = Scribe(parse_federation(SPEC.encode()).digest)
    for number in range(15):
        told.admit(f"site-{number}")
    claims = [(number * 37_000) % 900_000 for number in range(1, 16)]
    for peer, claim in enumerate(claims, 1):
        told.publish(peer, 1, 1, score_ppm=claim)
    for peer in (1, 2, 3):
        told.attest(4, (peer, 1, 100_000 * peer))
    told.publish(1, 2, 2, score_ppm=2_000_000)
    for one in closing(explored(tmp_path, told)):
        scores = one.json(".json")["scores"]
        assert scores["lines"] == [] and scores["impossible"] == 1
        first, second = scores["spread"]
        ordered = sorted(claims)
        assert (first["lowest_ppm"], first["median_ppm"], first["highest_ppm"]) == (
            ordered[0],
            median_low(claims),
            ordered[-1],
        )
        assert (first["lower_quarter_ppm"], first["upper_quarter_ppm"]) == (ordered[3], ordered[10])
        assert (first["updates"], first["attested"], first["attested_median_ppm"]) == (15, 3, 200_000)
        assert second["attested_median_ppm"] is None
        html = one.get("").text
        assert "1 of these updates claims more than 100 %" in html and "Attested median" in html


# ---- activity, checkpoints, the rest ---------------------------------------------------------------------------------


def test_activity_counts_every_entry_once(world: Explored, hostile: Explored, lonely: Explored) -> None:
    for one in (world, lonely, hostile):
        told = one.json(".json")
        stretches = told["activity"]["stretches"]
        counted = sum(row[kind] for row in stretches for kind in ("updates", "attestations", "objections", "members"))
        assert counted == told["totals"]["entries"]
        if one is not hostile:  # there, an update is in the log twice under one name
            assert sum(row["updates"] for row in stretches) == told["totals"]["updates"]
        assert sum(row["objections"] for row in stretches) == told["totals"]["objections"]
        assert len(stretches) <= 60


def test_activity_falls_into_its_time(tmp_path: Path) -> None:
    told = Scribe(parse_federation(SPEC.encode()).digest)
    told.admit("a")
    told.time_s = BEGAN_S + 86_400 * 3
    for sequence in (1, 2, 3):
        told.publish(1, sequence, sequence)
    for one in closing(explored(tmp_path, told)):
        found = one.json(".json")["activity"]
        full = [row for row in found["stretches"] if row["updates"]]
        assert len(full) == 1 and full[0]["updates"] == 3
        assert full[0]["start_s"] <= BEGAN_S + 86_400 * 3 + 1 < full[0]["start_s"] + found["length_s"]


def test_checkpoints_tell_who_signed_and_whether_they_hold(tmp_path: Path) -> None:
    alone = founded(["clinic-a"])
    alone.update(1, 1)
    for one in closing(over(alone, tmp_path)):
        with one.shown.store.writing() as db:
            row = "INSERT INTO notes (signer, size, root, trouble, seen_at, peer) VALUES (?, ?, ?, ?, ?, ?)"
            db.execute(row, (alone.accounts[0], 2, digest("old"), None, 5.0, 1))
            db.execute(row, (alone.accounts[0], 3, digest("new"), None, 6.0, 1))
            db.execute(row, ("0x" + "1" * 40, 2, digest("other"), "another root at that size", 7.0, None))
        first, second = one.json(".json")["checkpoints"]
        assert (first["peer"], first["site_name"], first["size"], first["holds"]) == (1, "clinic-a", 3, True)
        assert (second["peer"], second["holds"], second["trouble"]) == (None, False, "another root at that size")
        html = one.get("").text
        assert "no member" in html and "another root at that size" in html


def test_the_latest_updates_come_first(world: Explored) -> None:
    latest = [row["entry"] for row in world.json(".json")["latest"]]
    assert latest == sorted(latest, reverse=True) and len(latest) == 10
    assert latest == [row["entry"] for row in world.json("/updates.json?limit=10")["rows"]]


def test_every_state_of_a_federation_has_an_overview(
    world: Explored, empty: Explored, lonely: Explored, hostile: Explored, unseen: Explored
) -> None:
    for one in (world, empty, lonely, hostile, unseen):
        answer = one.get("")
        assert answer.status_code == 200
        assert answer.text.count("<h1") == 1
        assert not re.search(r"style=|<script>|onload=\"|\u202e", answer.text)
    assert "Nobody has published an update yet." in empty.get("").text
    assert "not known while the index is being made" in unseen.get("").text
    origin = world.json(".json")["origin"]
    assert origin["genesis_weights"] == digest("genesis weights").hex() and origin["genesis_cid"].startswith("baf")
    assert unseen.json(".json")["origin"]["owner"] is None


def test_the_overview_is_small(world: Explored) -> None:
    assert len(world.get("").data) < 100_000


def test_fifty_peers_stay_below_the_limit(tmp_path: Path) -> None:
    told = Scribe(parse_federation(SPEC.encode()).digest)
    for number in range(50):
        told.admit(f"hospital number {number}")
    for number in range(1, 61):
        for peer in range(1, 51):
            told.publish(peer, number, number, score_ppm=500_000 + 1_000 * peer + number)
    for one in closing(explored(tmp_path, told)):
        static = sum(len(path.read_bytes()) for path in Path(one.app.root_path, "static").glob("*.[cj]s*"))
        for path in ("", "/sites", "/peers", "/sites/1", "/peers/1"):
            assert len(one.get(path).data) + static < 300_000, path


# ---- several federations ---------------------------------------------------------------------------------------------


def test_one_federation_is_gone_to_at_once(world: Explored) -> None:
    answer = world.client.get("/")
    assert answer.status_code == 302 and answer.headers["Location"] == f"/{world.shown.slug}"


def test_several_are_listed_also_as_json(tmp_path: Path) -> None:
    sources = []
    for name, spec in (("one", SPEC), ("two", SPEC.replace("four clinics", "<b>bold"))):
        made = founded(["clinic-a"], spec)
        made.update(1, 1)
        file = write_federation(tmp_path / name, made.chain.ledger(), made.spec_bytes)
        sources.append(Source(file, connect=made.chain.ledger))
    app = create_app(Options(sources=tuple(sources), hosts=(), harvest=False), start=False)
    shown = list(app.extensions["federations"].values())
    try:
        for one in shown:
            one.follower.look()
        client = app.test_client()
        html, told = client.get("/"), client.get("/index.json")
        assert html.status_code == 200 and "&lt;b&gt;bold" in html.text and "<b>bold" not in html.text
        cards = told.get_json()["federations"]
        assert [card["federation"]["slug"] for card in cards] == [one.slug for one in shown]
        assert [card["totals"]["updates"] for card in cards] == [1, 1]
        assert all(client.get(card["url"]).status_code == 200 for card in cards)
        assert client.get("/index.json", headers={"If-None-Match": told.headers["ETag"]}).status_code == 304
    finally:
        for one in shown:
            one.stop()


def test_two_of_one_name_and_contract_are_both_shown(tmp_path: Path) -> None:
    """Every fresh development chain gives its first contract the same address."""
    sources = []
    for name, updates in (("one", 1), ("two", 2)):
        made = founded(["clinic-a"])
        for number in range(1, updates + 1):
            made.update(1, number)
        file = write_federation(tmp_path / name, made.chain.ledger(), made.spec_bytes)
        sources.append(Source(file, connect=made.chain.ledger))
    again = Source(tmp_path / "two" / ".." / "one" / sources[0].file.name)
    app = create_app(Options(sources=(*sources, again), hosts=(), harvest=False), start=False)
    shown = app.extensions["federations"]
    try:
        first, second = shown
        assert second == f"{first}-2", "the same file twice is one"
        for one in shown.values():
            one.follower.look()
        client = app.test_client()
        counted = [client.get(f"/{slug}/updates.json").get_json()["paging"]["total"] for slug in (first, second)]
        assert counted == [1, 2]
        assert f">{second}<" in client.get("/").text, "else nothing on the page tells them apart"
    finally:
        for one in shown.values():
            one.stop()


def test_the_index_of_one_is_json_too(world: Explored) -> None:
    (card,) = world.client.get("/index.json").get_json()["federations"]
    assert card["totals"]["entries"] == card["federation"]["size"]
