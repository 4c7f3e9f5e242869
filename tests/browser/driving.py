"""A real browser before a real explorer, and what must be true of every page that it opens."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response, Route
from ui_logs import Explored
from waitress.server import create_server

import ledger_ui.app  # noqa: F401  registers the pages
from ledger_ui.registry import PAGES

HERE: Final = Path(__file__).parent
FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: WCAG 2.2 AA, and what axe holds to be good practice besides.
RULES: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
Scheme = Literal["light", "dark"]


#: What stands for each part of an address.
ARGUMENTS: Final = {"ref": "2-2", "number": "2", "index": "9"}
#: Pages that are asked something.
ASKED: Final = {"search": "?q=clinic"}


def addresses(arguments: Mapping[str, str] = ARGUMENTS) -> dict[str, str]:
    """Every page by name, with the address of a sample of it below the federation's."""
    return {
        name: re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", lambda part: arguments[part[1]], page.rule) + ASKED.get(name, "")
        for name, page in PAGES.items()
    }


def chromium() -> str:
    """The browser's program.

    Raises:
        AssertionError: there is none; says how to get it.
    """
    named = os.environ.get("CHROMIUM", "")
    found = shutil.which(named or "chromium")
    assert found, (
        f"no Chromium: {named or 'chromium'} is no program here. The browser tests need one: apt-get install chromium, "
        "or set CHROMIUM to the path of a Chromium or Chrome"
    )
    return found


def axe() -> str:
    """The text of axe-core, installed from the lock file unless it is there already."""
    modules, wanted = HERE / "node_modules", (HERE / "package-lock.json").read_bytes()
    with (Path(tempfile.gettempdir()) / "fl-node-npm-browser.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = modules / ".installed-from"
        if not stamp.exists() or stamp.read_bytes() != wanted:
            command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"]
            subprocess.run(command, cwd=HERE, check=True, stdout=subprocess.DEVNULL, timeout=300)
            stamp.write_bytes(wanted)
    return (modules / "axe-core" / "axe.min.js").read_text("utf-8")


@dataclass(frozen=True)
class Served:
    """An explorer that answers at an address of this machine."""

    origin: str
    one: Explored

    def url(self, path: str) -> str:
        """A page of its federation, by what comes after the federation's address."""
        return f"{self.origin}/{self.one.shown.slug}{path}"


def until(true: Callable[[], bool], within_s: float = 15.0) -> None:
    """Wait for something that no locator tells of."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"not so within {within_s:g} s"
        time.sleep(0.05)


@contextmanager
def serving(one: Explored) -> Iterator[Served]:
    """Serve it as ``fl-node ui`` does, on a free port."""
    # As ledger_ui.serve has it: the lookahead is what has a listener that left be noticed.
    server: Any = create_server(
        one.app, host="127.0.0.1", port=0, threads=32, channel_request_lookahead=1, asyncore_use_poll=True
    )
    thread = threading.Thread(target=server.run, name="explorer", daemon=True)
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{server.effective_port}", one)
    finally:
        with suppress(OSError):
            server.close()
        thread.join(timeout=10.0)


@dataclass
class Opened:
    """A page in a browser of its own, and all that went wrong with it. ``bytes``: of its first load, by address."""

    context: BrowserContext
    page: Page
    origin: str
    axe: str = field(repr=False)
    troubles: list[str] = field(default_factory=list)
    bytes: dict[str, int] = field(default_factory=dict)
    _answers: list[Response] = field(default_factory=list, repr=False)

    def watch(self) -> None:
        """Note every error from now on, and let nothing out to other places than the explorer."""
        self.context.route("**/*", self._guard)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.troubles.append(f"script: {error}"))
        self.page.on("requestfailed", self._failed)
        self.page.on("response", self._answered)

    def go(self, url: str, status: int = 200) -> Page:
        """Open an address; it must answer with this status."""
        self._answers.clear()
        answer = self.page.goto(url, wait_until="load")
        assert answer is not None and answer.status == status, f"{url}: {answer.status if answer else 'no answer'}"
        return self.page

    def weight(self) -> int:
        """Bytes of the first load, uncompressed: the page and all that it needed."""
        for answer in self._answers:
            if answer.request.resource_type != "eventsource" and answer.ok:
                self.bytes[answer.url] = len(answer.body())
        return sum(self.bytes.values())

    def violations(self, *less: str) -> list[str]:
        """What axe finds against the page as it is now, a line each. ``less``: rules that do not apply here."""
        if not self.page.evaluate("typeof window.axe === 'object'"):
            self.page.evaluate(self.axe)
        options = {
            "runOnly": {"type": "tag", "values": list(RULES)},
            "resultTypes": ["violations"],
            "rules": {rule: {"enabled": False} for rule in less},
        }
        found = self.page.evaluate("options => axe.run(document, options)", options)["violations"]
        return [
            f"{rule['id']} ({rule['impact']}): {node['target']} {node['html'][:160]} {node['failureSummary'][:300]}"
            for rule in found
            for node in rule["nodes"][:3]
        ]

    def sideways(self) -> list[str]:
        """Elements that make the page wider than its window; empty where it need not be moved sideways."""
        found: list[str] = self.page.evaluate(
            """() => {
              const wide = document.documentElement.clientWidth;
              if (document.documentElement.scrollWidth <= wide) return [];
              const inside = (one) => one.closest('.scroll, svg, .visually-hidden, .skip, pre');
              const out = [...document.body.querySelectorAll('*')].filter(
                (one) => one.getBoundingClientRect().right > wide + 1 && !inside(one));
              return [`page of ${document.documentElement.scrollWidth} px`,
                      ...out.slice(0, 5).map((one) => one.outerHTML.slice(0, 120))];
            }"""
        )
        return found

    def shoot(self, name: str) -> None:
        """A screenshot of the whole page, where the environment names a folder for them."""
        folder = os.environ.get("FL_NODE_SCREENSHOTS", "")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            safe = re.sub(r"[^\w.-]+", "-", name).strip("-")
            self.page.screenshot(path=str(Path(folder) / f"{safe}.png"), full_page=True)

    def _guard(self, route: Route) -> None:
        if route.request.url.startswith((f"{self.origin}/", "data:", "blob:")):
            route.continue_()
        else:
            self.troubles.append(f"request to elsewhere: {route.request.url}")
            route.abort()

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.troubles.append(f"console {message.type}: {message.text}")

    def _failed(self, request: Request) -> None:
        # A stream ends with its page, and a download is no page.
        if request.resource_type != "eventsource" and "ERR_ABORTED" not in (request.failure or ""):
            self.troubles.append(f"request failed: {request.url}: {request.failure}")

    def _answered(self, answer: Response) -> None:
        self._answers.append(answer)
        if answer.status >= 400 and answer.request.resource_type != "document":
            self.troubles.append(f"{answer.status}: {answer.url}")


#: Opens a page of an explorer in a fresh browser: ``with open_page(width=360) as one: one.go(...)``.
Open = Callable[..., AbstractContextManager[Opened]]


@contextmanager
def opened(
    browser: Browser, served: Served, judge: str, width: int = 1400, height: int = 900, scheme: Scheme = "light"
) -> Iterator[Opened]:
    """A page in a fresh browser, with nothing remembered."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        reduced_motion="reduce",
        permissions=["clipboard-read", "clipboard-write"],
        has_touch=width < 500,
    )
    context.set_default_timeout(15_000)
    one = Opened(context, context.new_page(), served.origin, judge)
    one.watch()
    try:
        yield one
    finally:
        context.close()
