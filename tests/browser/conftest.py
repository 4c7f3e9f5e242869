"""One browser and one explorer for all browser tests, in one process: every module is of the group ``browser``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "ui"))
sys.path.insert(0, str(Path(__file__).parent))

import driving
import ui_logs
from driving import Open, Served
from playwright.sync_api import Browser, sync_playwright


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What explorers keep for their user lies here, not in the home of who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    program = driving.chromium()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(driving.FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="session")
def judge() -> str:
    return driving.axe()


@pytest.fixture(scope="session")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Over a finished federation, for reading; see :func:`ui_logs.played`."""
    one = ui_logs.over(ui_logs.played(), tmp_path_factory.mktemp("browsed"), listeners=24)
    try:
        with driving.serving(one) as served:
            yield served
    finally:
        one.stop()


@pytest.fixture
def open_page(browser: Browser, explorer: Served, judge: str) -> Open:
    """Opens pages of the finished federation."""
    return partial(driving.opened, browser, explorer, judge)
