"""What readers do: search, watch, copy, download, and all of it without a mouse."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import driving
import pytest
import ui_logs
import ui_scribe
from driving import Open, Served, addresses
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Served]:
    """An explorer over a federation that goes on."""
    world = ui_logs.founded(["clinic-a", "clinic-b", "clinic-c"])
    for peer in (1, 2, 3):
        world.update(peer, 1)
    one = ui_logs.over(world, tmp_path, listeners=24)
    try:
        with driving.serving(one) as served:
            yield served
    finally:
        one.stop()


# ---- search --------------------------------------------------------------------------------------------------------


def search(page: Page, words: str) -> None:
    """Type into the box that the press of / leads to."""
    page.locator("h1").click()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type(words)
    with page.expect_navigation():
        page.keyboard.press("Enter")


def test_every_kind_of_search_goes_there(open_page: Open, explorer: Served) -> None:
    update = explorer.one.json("/updates/3-2.json")
    facts = {fact["name"]: fact["value"] for fact in update["facts"]}
    kinds = {
        "3#2": "/updates/3-2",
        facts["content CID"]: "/updates/3-2",
        facts["weights"]: "/updates/3-2",
        facts["content"][:12]: "/updates/3-2",
        update["account"]: "/peers/3",
        "clinic-c": "/sites/3",
        "round 2": "/rounds/2",
        "entry 7": "/entries/7",
        "peer 5": "/peers/5",
    }
    with open_page() as one:
        page = one.go(explorer.url("/updates"))
        for words, path in kinds.items():
            search(page, words)
            assert page.url == explorer.url(path), words
        search(page, update["raw"]["transaction"])
        assert re.search(r"/(updates/3-2|entries/\d+|entries\?.+)$", page.url)
        assert one.troubles == []


def test_a_search_that_may_be_several_things_says_so(open_page: Open, explorer: Served) -> None:
    with open_page() as one:
        page = one.go(explorer.url("/updates"))
        search(page, "3")
        expect(page.get_by_role("heading", level=1)).to_have_text("Search")
        expect(page.locator("main")).to_contain_text("it may be peer, round, entry or block 3")
        expect(page.locator("#q")).to_have_value("3")
        assert page.locator(".hits a").count() == 4
        search(page, "<b>nobody</b>")
        expect(page.locator("main")).to_contain_text("<b>nobody</b>")
        assert one.troubles == [] and one.violations() == []


# ---- live ----------------------------------------------------------------------------------------------------------


def test_the_page_follows_the_log_and_waits_while_paused(
    open_page: Open, browser: Browser, growing: Served, judge: str
) -> None:
    explored = growing.one
    world = explored.world
    assert world is not None
    with driving.opened(browser, growing, judge) as one:
        page = one.go(growing.url("/updates"))
        rows = page.locator("tbody tr[data-key]")
        expect(rows).to_have_count(3)
        expect(page.get_by_role("button", name="Pause")).to_be_visible()
        page.evaluate("window.same = true")
        page.wait_for_timeout(500)  # until the page listens
        world.update(1, 2)
        explored.look()
        expect(rows).to_have_count(4)
        expect(page.locator("tr.new")).to_contain_text("1#2")

        pause = page.locator("#pause")
        pause.click()
        expect(pause).to_have_attribute("aria-pressed", "true")
        world.update(2, 2)
        explored.look()
        page.wait_for_timeout(1500)
        expect(rows).to_have_count(4)
        pause.click()
        expect(rows).to_have_count(5)
        expect(page.locator("#foot-root")).to_contain_text(f"{explored.shown.follower.now.size} entries")
        assert page.evaluate("window.same") is True, "the page itself was not loaded again"
        assert one.troubles == []


def test_the_graph_follows_the_log_and_keeps_its_place(browser: Browser, growing: Served, judge: str) -> None:
    explored = growing.one
    world = explored.world
    assert world is not None
    with driving.opened(browser, growing, judge) as one:
        page = one.go(growing.url("/updates/2-1/provenance"))
        page.locator('[data-zoom="in"]').click()
        page.locator("a.node.root").focus()
        scale = page.locator("g.world").get_attribute("transform").rpartition("scale")[2]  # type: ignore[union-attr]
        many = page.locator("a.node").count()
        page.wait_for_timeout(500)
        world.update(2, 2)
        explored.look()
        expect(page.locator("a.node")).to_have_count(many + 1)
        expect(page.locator("#in-2-2")).to_be_attached()
        assert (page.locator("g.world").get_attribute("transform") or "").endswith(scale)
        assert page.evaluate("document.activeElement.dataset.key") == "2-1"
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.dataset.key") not in ("2-1", None)
        page.locator('[data-zoom="out"]').click()  # still moves
        assert not (page.locator("g.world").get_attribute("transform") or "").endswith(scale)
        assert one.troubles == []


# ---- one thing and another -----------------------------------------------------------------------------------------


def test_the_list_as_csv_is_the_log(open_page: Open, explorer: Served) -> None:
    assert explorer.one.world is not None
    prefix = explorer.one.world.prefix
    with open_page() as one:
        page = one.go(explorer.url("/updates"))
        with page.expect_download() as started:
            page.get_by_role("link", name="CSV").click()
        rows = list(csv.DictReader(io.StringIO(Path(started.value.path()).read_text("utf-8"))))
        assert started.value.suggested_filename.endswith("-updates.csv")
        entries = [entry for peer in prefix.peers() for entry in prefix.updates(peer.number)]
        assert {row["update"]: (row["entry"], row["claimed_ppm"]) for row in rows} == {
            str(entry.ref): (str(entry.index), str(entry.update.score_ppm)) for entry in entries
        }
        assert len(rows) == len(entries)


def test_light_and_dark_by_choice(open_page: Open, explorer: Served) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with open_page(scheme="light") as one:
        page = one.go(explorer.url("/updates"))
        light = page.evaluate(ground)
        page.get_by_role("button", name="Light or dark").click()
        dark = page.evaluate(ground)
        assert light != dark and page.locator("html").get_attribute("data-theme") == "dark"
        one.go(explorer.url("/rounds"))
        assert page.evaluate(ground) == dark, "kept for the next page"
        assert one.violations() == []
        page.get_by_role("button", name="Light or dark").click()
        assert page.evaluate(ground) == light
        assert page.context.cookies() == []


def test_copying(open_page: Open, explorer: Served) -> None:
    with open_page() as one:
        page = one.go(explorer.url("/updates/3-2"))
        button = page.locator("main [data-copy]").first
        wanted = button.get_attribute("data-copy")
        button.click()
        expect(page.locator('[role="status"]', has_text="Copied")).to_be_attached()
        assert page.evaluate("navigator.clipboard.readText()") == wanted
        assert one.troubles == []


def test_by_keys_alone(open_page: Open, explorer: Served) -> None:
    """The skip link comes first and leads into the page; every stop is to be seen; links are followed by Enter."""
    with open_page() as one:
        page = one.go(explorer.url("/updates"))
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        assert (page.locator(".skip").bounding_box() or {"x": -1})["x"] >= 0
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.getElementById('main').contains(document.activeElement)")
        seen = set()
        for _ in range(25):
            told = page.evaluate(
                """() => {
                  const one = document.activeElement;
                  const box = one.getBoundingClientRect(), style = getComputedStyle(one);
                  return [one.outerHTML.slice(0, 80), box.width * box.height, style.outlineStyle, style.outlineWidth];
                }"""
            )
            assert told[1] > 0 and told[2] != "none" and told[3] != "0px", told
            seen.add(told[0])
            page.keyboard.press("Tab")
        assert len(seen) > 15, "the focus goes on"
        page.locator("main a", has_text="#").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(r"/updates/\d+-\d+$"))


# ---- logs that are not as they should be ---------------------------------------------------------------------------


def strange(kind: str, folder: Path) -> ui_logs.Explored:
    if kind == "hostile":
        return ui_logs.explored(folder, ui_scribe.hostile(), listeners=24)
    if kind == "empty":
        return ui_logs.over(ui_logs.founded([]), folder, listeners=24)
    return ui_logs.explored(folder, ui_scribe.Scribe(b"\0" * 32), look=False, listeners=24)


@pytest.mark.parametrize("kind", ["hostile", "empty", "unseen"])
def test_pages_of_strange_logs(browser: Browser, judge: str, tmp_path: Path, kind: str) -> None:
    """Strangers' text runs nothing, moves nothing and loads nothing; where there is nothing to show, that is said."""
    one = strange(kind, tmp_path)
    paths = {
        **addresses({"ref": "3-4294967295", "number": "3", "index": "6"}),
        "far round": "/rounds/4294967295",
        "stranger": "/updates/77-1",
    }
    try:
        with driving.serving(one) as served, driving.opened(browser, served, judge, width=360) as opened:
            opened.page.on("dialog", lambda dialog: opened.troubles.append(f"dialog: {dialog.message}"))
            for name, path in paths.items():
                answer = opened.page.goto(served.url(path), wait_until="load")
                assert answer is not None and answer.status in (200, 404), (name, answer and answer.status)
                opened.shoot(f"{kind}-{name}")
                wrong = [told for told in opened.troubles if f"status of {answer.status}" not in told]
                assert wrong == [], (name, wrong)
                assert opened.sideways() == [], name
                assert opened.page.locator("h1").count() == 1
                if name in ("federation", "updates", "update", "sites", "provenance", "audit", "health"):
                    assert opened.violations() == [], name
                opened.troubles.clear()
    finally:
        one.stop()
