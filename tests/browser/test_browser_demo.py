"""A real demo under a real browser: followed while it runs, and audited when its chain and gateways are there again."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import driving
import pytest
import ui_demo
from driving import Served
from playwright.sync_api import Browser, expect

from fl_node.ledger.rpc import RpcReader
from fl_node.ledger.transport import Rpc
from fl_node.records import UpdateRef
from fl_node.spec import read_federation

pytestmark = pytest.mark.xdist_group("browser")

PEERS, ROUNDS = 3, 50
START_S = 120.0


@dataclass
class Demo:
    """A demo in a process of its own. ``url``: of its explorer's page of the federation."""

    process: subprocess.Popen[str]
    folder: Path
    url: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, browser: Browser, judge: str) -> Iterator[Demo]:
    """Begins when the browser is there: a demo is soon over."""
    folder = tmp_path_factory.mktemp("demo") / "kept"
    command = [sys.executable, "-m", "fl_node", "demo", "--peers", str(PEERS), "--rounds", str(ROUNDS)]
    command += ["--preset", "best-of", "--no-baselines", "--state", str(folder)]
    told = folder.parent / "told.txt"
    with told.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
    try:
        deadline = time.monotonic() + START_S
        while not (found := re.search(r"^explorer +(http://\S+)", told.read_text(), re.M)):
            assert process.poll() is None and time.monotonic() < deadline, told.read_text()
            time.sleep(0.05)
        yield Demo(process, folder, found[1])
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def left(demo: Demo) -> Iterator[ui_demo.Left]:
    """The same demo, over; its chain and gateways answer again."""
    assert demo.process.wait(timeout=200) == 0
    yield from ui_demo.again(demo.folder)


def test_a_page_follows_a_running_demo(browser: Browser, judge: str, demo: Demo) -> None:
    origin = re.match(r"http://[^/]+", demo.url)
    assert origin is not None
    with driving.opened(browser, Served(origin[0], None), judge) as one:  # type: ignore[arg-type]
        page = one.go(f"{demo.url}/updates?limit=500")
        page.evaluate("window.same = true")
        rows = page.locator("tbody tr[data-key]")
        counts = set()
        deadline = time.monotonic() + 120
        while demo.process.poll() is None and len(counts) < 3 and time.monotonic() < deadline:
            counts.add(rows.count())
            page.wait_for_timeout(100)
        assert len(counts) == 3, f"rows came while the page was open: {counts}"
        assert page.evaluate("window.same") is True
        # The demo may have ended since, and its explorer with it: what failed then is no fault of a page.
        wrong = [told for told in one.troubles if "ERR_CONNECTION_REFUSED" not in told and "ERR_INCOMPLETE" not in told]
        assert wrong == []


def test_verify_now_and_the_csv_are_of_the_chain(
    browser: Browser, judge: str, left: ui_demo.Left, tmp_path: Path
) -> None:
    explored = left.explorer(tmp_path, monitor=False, listeners=24)
    explored.shown.start()
    try:
        with driving.serving(explored) as served, driving.opened(browser, served, judge) as one:
            page = one.go(served.url(f"/updates/2-{ROUNDS}"))  # what is older may be gone by now
            expect(page.locator("#verdicts")).to_contain_text("has not audited this update yet")
            page.get_by_role("button", name="Verify now").click()
            page.wait_for_url(re.compile(rf"/updates/2-{ROUNDS}"))
            # The result comes by itself.
            expect(page.locator("#verdicts")).to_contain_text("the worst of", timeout=60_000)
            expect(page.locator("#verdicts tr", has_text="base").first).to_contain_text("ok")
            one.shoot("verified")
            assert one.troubles == [] and one.violations() == []

            one.go(served.url("/updates"))
            with page.expect_download() as started:
                page.get_by_role("link", name="CSV").click()
            rows = list(csv.DictReader(io.StringIO(Path(started.value.path()).read_text("utf-8"))))
            assert {row["update"]: row["claimed_ppm"] for row in rows} == on_chain(left.file)
            assert len(rows) == PEERS * (ROUNDS + 1)
            assert one.troubles == []
    finally:
        explored.stop()


def on_chain(file: Path) -> dict[str, str]:
    """The updates of a federation with what they claim, asked of the contract's state and not of the log."""
    federation = read_federation(file)
    assert federation.deployment is not None
    with closing(RpcReader(federation.deployment, federation.digest, Rpc(federation.deployment.rpc))) as ledger:
        found = {}
        for peer in ledger.peers():
            for sequence in range(1, peer.sequence + 1):
                ref = UpdateRef(peer.number, sequence)
                found[str(ref)] = str(ledger.update(ref).score_ppm)
        return found
