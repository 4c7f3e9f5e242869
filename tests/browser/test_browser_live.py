"""Pages that change while somebody uses them: what the reader does is not undone, and nothing is missed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import driving
import pytest
import ui_logs
from driving import Served
from playwright.sync_api import Browser, expect
from ui_logs import World

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[tuple[Served, World]]:
    world = ui_logs.founded(["clinic-a", "clinic-b", "clinic-c"])
    for peer in (1, 2, 3):
        world.update(peer, 1)
    one = ui_logs.over(world, tmp_path, listeners=24)
    try:
        with driving.serving(one) as served:
            yield served, world
    finally:
        one.stop()


def test_a_focused_link_does_not_hold_its_list_back(
    browser: Browser, growing: tuple[Served, World], judge: str
) -> None:
    served, world = growing
    with driving.opened(browser, served, judge) as one:
        page = one.go(served.url("/updates"))
        rows = page.locator("tbody tr[data-key]")
        page.locator("tr[data-key] a", has_text="2#1").first.focus()
        page.wait_for_timeout(500)  # until the page listens
        world.update(1, 2)
        served.one.look()
        expect(rows).to_have_count(4)
        assert page.evaluate("document.activeElement.textContent") == "2#1", "and it still has the focus"
        assert one.troubles == []


def test_marked_text_stays_until_the_reader_is_done(
    browser: Browser, growing: tuple[Served, World], judge: str
) -> None:
    served, world = growing
    with driving.opened(browser, served, judge) as one:
        page = one.go(served.url("/updates"))
        rows = page.locator("tbody tr[data-key]")
        page.evaluate("getSelection().selectAllChildren(document.querySelector('tbody tr[data-key]'))")
        page.wait_for_timeout(500)
        world.update(1, 2)
        served.one.look()
        page.wait_for_timeout(1500)
        expect(rows).to_have_count(3)
        page.evaluate("getSelection().removeAllRanges()")
        expect(rows).to_have_count(4)
        assert one.troubles == []


def test_a_list_moved_sideways_stays_there(browser: Browser, growing: tuple[Served, World], judge: str) -> None:
    served, world = growing
    with driving.opened(browser, served, judge, width=360) as one:
        page = one.go(served.url("/updates"))
        page.evaluate("for (const one of document.querySelectorAll('[data-live] .scroll')) one.scrollLeft = 60")
        page.wait_for_timeout(500)
        world.update(1, 2)
        served.one.look()
        expect(page.locator("tbody tr[data-key]")).to_have_count(4)
        places = page.evaluate("[...document.querySelectorAll('[data-live] .scroll')].map((one) => one.scrollLeft)")
        assert places and set(places) == {60}


def test_what_came_between_the_page_and_its_first_event_is_shown(
    browser: Browser, growing: tuple[Served, World], judge: str
) -> None:
    served, world = growing
    with driving.opened(browser, served, judge) as one:
        # The stream is held back until the log has grown.
        one.page.route("**/live", lambda route: (world.update(1, 2), served.one.look(), route.continue_()))
        page = one.go(served.url("/updates"))
        expect(page.locator("tbody tr[data-key]")).to_have_count(4)
        assert one.troubles == []


def test_a_server_that_ends_is_no_error_of_the_page(
    browser: Browser, growing: tuple[Served, World], judge: str
) -> None:
    served, world = growing
    with driving.opened(browser, served, judge) as one:
        page = one.go(served.url("/updates"))
        page.wait_for_timeout(500)
        page.route("**/updates", lambda route: route.abort("connectionrefused"))
        world.update(1, 2)
        served.one.look()
        page.wait_for_timeout(1500)
        assert [trouble for trouble in one.troubles if trouble.startswith("script:")] == []
        page.unroute("**/updates")
        world.update(2, 2)
        served.one.look()
        expect(page.locator("tbody tr[data-key]")).to_have_count(5)
