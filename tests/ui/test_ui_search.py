"""Search: whatever the ledger names is found by it, in any spelling, and said to be what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ui_logs import HOSTILE, SPEC, Explored, explored, founded, over
from ui_scribe import Scribe

from fl_node.content.cid import Cid
from fl_node.records import PPM
from fl_node.spec import parse_federation
from ledger_ui.pages.search import MOST_CHARACTERS


def found(one: Explored, asked: str) -> Any:
    """What a search tells; and it sends a browser there if, and only if, it is one thing."""
    told = one.json(f"/search.json?q={quote(asked, safe='')}")
    page = one.get(f"/search?q={quote(asked, safe='')}")
    if told["unique"] is None:
        assert page.status_code == 200
        assert len(told["hits"]) != 1
    else:
        assert (page.status_code, page.headers["Location"]) == (302, told["unique"])
        assert [hit["url"] for hit in told["hits"]] == [told["unique"]]
    assert told["q"] == asked
    return told


def goes(one: Explored, asked: str) -> str:
    """Where it leads, after the federation's own address; empty: to no single place."""
    unique = found(one, asked)["unique"]
    return "" if unique is None else unique.removeprefix(f"/{one.shown.slug}")


def facts(one: Explored, ref: str) -> dict[str, str]:
    told = one.json(f"/updates/{ref}.json")
    return {
        **{fact["name"]: fact["value"] for fact in told["facts"]},
        **{name: told["raw"][name] for name in ("leaf", "transaction")},
        "account": told["account"],
        "entry": str(told["update"]["entry"]),
    }


@pytest.mark.parametrize(
    "asked", ["3#2", "3-2", "#3#2", " 3#2 ", "3 # 2", "3/2", "update 3#2", "Update 3-2", '"3#2"', "(3#2)"]
)
def test_an_update_by_its_name(world: Explored, asked: str) -> None:
    assert goes(world, asked) == "/updates/3-2"
    assert found(world, asked)["understood"] == ["an update: number 2 of peer 3"]


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("round 2", "/rounds/2"),
        ("Round2", "/rounds/2"),
        ("ROUND #2", "/rounds/2"),
        ("round: 2", "/rounds/2"),
        ("entry 7", "/entries/7"),
        ("peer 5", "/peers/5"),
        ("site 3", "/sites/3"),
        ("site clinic-c", "/sites/3"),
        ("clinic-c", "/sites/3"),
        ("CLINIC-C", "/sites/3"),
        ("inic-c", "/sites/3"),
        ("UpdatesAttested", "/entries?kind=UpdatesAttested"),
        ("updatesattested", "/entries?kind=UpdatesAttested"),
    ],
)
def test_things_said_in_words(world: Explored, asked: str, path: str) -> None:
    assert goes(world, asked) == path


def test_a_number_is_all_that_it_may_be(world: Explored) -> None:
    told = found(world, "3")
    assert told["unique"] is None and told["understood"] == ["a number: it may be peer, round, entry or block 3"]
    assert [hit["kind"] for hit in told["hits"]] == ["peer", "round", "entry", "block"]
    assert goes(world, "60") == "" and {hit["kind"] for hit in found(world, "60")["hits"]} == {"entry", "block"}
    size = world.json("/search.json")["federation"]["size"]
    assert found(world, str(size + 5))["suggestions"][-1]["url"].endswith(f"/entries/{size - 1}")
    for beyond in ("9" * 18, "9" * 19, "9" * 20, "0"):
        found(world, beyond)


@pytest.mark.parametrize("name", ["content", "weights", "base", "report", "content CID", "report CID", "seen root"])
def test_digests_and_cids_of_an_update(world: Explored, name: str) -> None:
    value = facts(world, "3-2")[name]
    spellings = [value, value.upper(), f" {value}\n"]
    spellings += [
        f"ipfs://{value}",
        f"/ipfs/{value}?format=raw",
        f"https://gateway.example/ipfs/{value}/",
        f"cid {value}",
    ]
    if not name.endswith("CID"):
        spellings = [value, value.upper(), f"0x{value}", f"0X{value.upper()}", f"digest {value}"]
    for asked in spellings:
        assert goes(world, asked) == "/updates/3-2", asked
        words = found(world, asked)["hits"][0]["words"]
        assert words.endswith("3#2") or words == "the root that 3#2 had seen"


def test_old_and_binary_cids_are_the_same_content(tmp_path: Path) -> None:
    told = Scribe(parse_federation(SPEC.encode()).digest)
    told.admit("a")
    told.publish(1, 1, 1, flags=1)
    one = explored(tmp_path, told)
    try:
        digest = bytes.fromhex(facts(one, "1-1")["content"])
        cid = Cid("dag-pb", digest)
        for asked in (str(cid), bytes(cid).hex(), old_cid(digest)):
            assert goes(one, asked) == "/updates/1-1", asked
        assert found(one, str(Cid("raw", digest)))["hits"] == [], "the same digest, and another content"
        assert str(cid) in found(one, old_cid(digest))["understood"][0]
        assert goes(one, digest.hex()) == "/updates/1-1"
    finally:
        one.stop()


def old_cid(digest: bytes) -> str:
    letters = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number, text = int.from_bytes(b"\x12\x20" + digest, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        text = letters[rest] + text
    return text


def test_hashes_of_the_chain_and_of_the_tree(world: Explored) -> None:
    known = facts(world, "3-2")
    entry = f"/entries/{known['entry']}"
    assert goes(world, known["transaction"]) == goes(world, f"tx 0x{known['transaction']}") == entry
    assert goes(world, known["leaf"]) == goes(world, f"leaf {known['leaf']}") == entry
    made = world.json("/entries/0.json")["raw"]["transaction"]
    assert goes(world, made) == f"/entries?tx={made}", "one transaction, several entries"


def test_what_the_federation_itself_has(world: Explored) -> None:
    frame = world.json("/search.json")["federation"]
    for known in ("root", "spec_digest", "contract"):
        assert found(world, frame[known])["unique"] == f"/{world.shown.slug}", known
    assert found(world, frame["root"])["hits"][0]["words"] == f"the root of all {frame['size']:,} entries"
    opened = world.json("/entries/0.json")
    genesis = {fact["name"]: fact["value"] for fact in opened["facts"]}
    assert goes(world, genesis["genesis CID"]) == "/entries/0"
    assert found(world, genesis["genesis content"])["unique"] == f"/{world.shown.slug}"
    assert {hit["words"] for hit in found(world, genesis["owner"])["hits"]} == {
        "the owner with whom the ledger was opened"
    }


def test_accounts(world: Explored) -> None:
    account = facts(world, "3-2")["account"]
    for asked in (
        account,
        account.lower(),
        account.upper(),
        account[2:],
        f"address {account}",
        f"{account[:8]}…{account[-6:]}",
    ):
        assert goes(world, asked) == "/peers/3", asked
    assert found(world, account)["hits"][0]["words"] == "account of peer 3 of clinic-c"
    assert found(world, "0x" + "00" * 20)["hits"] == []


@pytest.mark.parametrize("name", ["content", "weights", "base", "report", "leaf", "transaction"])
def test_the_start_is_enough(world: Explored, name: str) -> None:
    known = facts(world, "3-2")
    value, path = known[name], f"/entries/{known['entry']}" if name in ("leaf", "transaction") else "/updates/3-2"
    for asked in (
        value[:9],
        value[:10].upper(),
        f"0x{value[:9]}",
        value[:40] + value[40:63],
        f"{value[:8]}…{value[-6:]}",
    ):
        assert goes(world, asked) == path, asked
    assert found(world, f"{value[:8]}...{'0' * 6 if value[-6:] != '0' * 6 else '1' * 6}")["hits"] == []


def test_copies_are_all_told(tmp_path: Path) -> None:
    told = Scribe(parse_federation(SPEC.encode()).digest)
    told.admit("a")
    told.admit("b")
    told.publish(1, 1, 1)
    told.publish(2, 1, 1, content=b"\x11" * 32, base=b"\x22" * 32)
    told.publish(2, 2, 2, (2, 1, PPM), content=b"\x11" * 32, base=b"\x11" * 32)
    one = explored(tmp_path, told)
    try:
        hits = found(one, "11" * 32)["hits"]
        assert [hit["words"] for hit in hits] == ["the content of 2#1", "the content of 2#2"], "each update once"
        assert goes(one, "22" * 32) == "/updates/2-1"
    finally:
        one.stop()


def test_names_may_look_like_anything(tmp_path: Path) -> None:
    names = ["3#2", "round 4", "abcdef", "site-a", "7", "round table", "0x", "peer"]
    one = over(founded(names), tmp_path)
    try:
        for number, name in enumerate(names, 1):
            hits = found(one, name)["hits"]
            assert f"/{one.shown.slug}/sites/{number}" in [hit["url"] for hit in hits], name
        assert goes(one, "round ta") == "/sites/6"
    finally:
        one.stop()


def test_hostile_names_are_found_and_harm_nothing(hostile: Explored) -> None:
    for number, name in enumerate(HOSTILE, 1):
        if name.strip():
            assert goes(hostile, name) == f"/sites/{number}", name
    page = hostile.get("/search?q=" + quote("a")).text
    assert "<script>alert" not in page and "\u202e" not in page


@pytest.mark.parametrize(
    ("asked", "words", "suggested"),
    [
        ("3#99", "an update: number 99 of peer 3", ["3#4, the last update of peer 3"]),
        ("99#1", "an update: number 1 of peer 99", []),
        ("clinic-f", "nothing that this explorer knows the form of", ["site clinic-"]),
        ("vitalik.eth", "a name of the Ethereum Name Service", []),
        ("0x" + "ab" * 32, "32 bytes", []),
        ("bafkreiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "a CID", []),
        ("b" + "z" * 58, "a CID of a kind that no ledger of this software names", []),
        ("💥", "nothing that this explorer knows the form of", []),
    ],
)
def test_what_is_not_there(world: Explored, asked: str, words: str, suggested: list[str]) -> None:
    told = found(world, asked)
    assert told["hits"] == [] and told["understood"][0].startswith(words)
    assert [one for one in suggested if not any(told["words"].startswith(one) for told in told["suggestions"])] == []
    page = world.get(f"/search?q={quote(asked)}").text
    assert "Nothing in this federation’s log is named so." in page and told["understood"][0] in page


def test_nothing_was_asked(world: Explored, empty: Explored, unseen: Explored) -> None:
    for one in (world, empty, unseen):
        for asked in ("", "   ", "\t", "()", '""'):
            told = found(one, asked)
            assert told["hits"] == [] and told["unique"] is None
        assert "What can be looked for" in one.get("/search").text
    for asked in ("3", "3#1", "ab" * 32, "clinic", "0x" + "ab" * 20, "round 1", "entry 9"):
        assert found(unseen, asked)["hits"] == []


def test_it_is_bounded(world: Explored) -> None:
    assert world.get(f"/search?q={'a' * MOST_CHARACTERS}").status_code == 200
    told = world.get(f"/search.json?q={'a' * (MOST_CHARACTERS + 1)}")
    assert told.status_code == 400 and "200 characters" in told.get_json()["detail"]


def test_a_federation_of_many_sites_is_bounded(tmp_path: Path) -> None:
    told = Scribe(parse_federation(SPEC.encode()).digest)
    for number in range(120):
        told.admit(f"hospital {number}")
    one = explored(tmp_path, told)
    try:
        assert len(found(one, "hospital")["hits"]) == 50
        assert goes(one, "hospital 77") == "/sites/78"
    finally:
        one.stop()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(st.text(max_size=60) | st.from_regex(r"[0-9a-fx#\-/ …]{1,40}", fullmatch=True))
def test_whatever_is_typed_is_answered(world: Explored, asked: str) -> None:
    answer = world.get("/search", query_string={"q": asked})
    assert answer.status_code in (200, 302)
    assert world.get("/search.json", query_string={"q": asked}).status_code == 200


def test_what_a_reorganisation_dropped_is_not_silently_gone(tmp_path: Path) -> None:
    told = Scribe(parse_federation(SPEC.encode()).digest)
    told.admit("a")
    told.publish(1, 1, 1)
    told.publish(1, 2, 2)
    one = explored(tmp_path, told)
    try:
        told.cut(3)
        one.look()
        for asked in ("1#2", "#1-2", "entry 3"):
            search = found(one, asked)
            assert search["hits"] == [], asked
            (first, *_) = [link["words"] for link in search["suggestions"]]
            assert first.startswith("entry 3 of block ") and "reorganisation" in first, asked
        assert found(one, "1#9")["suggestions"][0]["words"].startswith("1#1, the last update")
    finally:
        one.stop()
