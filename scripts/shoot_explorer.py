"""Take the pictures of the explorer that the README shows: ``docs/images/explorer-*.png``.

Runs a demo, brings its chain and gateways back, has an explorer fetch and audit everything, and photographs pages with
Chromium, as the browser tests do. The files have a palette, so that they stay small.

    python scripts/shoot_explorer.py [--out docs/images]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "ui"), str(ROOT / "tests" / "browser")]

import driving  # noqa: E402
import numpy as np  # noqa: E402
import ui_demo  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import Page, sync_playwright  # noqa: E402

DEMO: Final = ["--peers", "8", "--rounds", "8", "--partition", "dirichlet:1.0", "--no-baselines"]
WIDTH: Final = 1400
MOST_BYTES: Final = 150_000
#: Name, address, height and colours of each picture, by the preset of the demo that they are of.
PICTURES: Final = {
    "robust": (
        ("overview", "", 900, "light"),
        ("overview-dark", "", 900, "dark"),
        ("update", "/updates/3-5", 900, "light"),
        ("round", "/rounds/5", 900, "light"),
    ),
    "trust": (
        ("provenance", "/updates/3-4/provenance", 1000, "light"),
        ("trust", "/trust", 760, "light"),
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="folder (default: docs/images)")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for preset in PICTURES:
        with tempfile.TemporaryDirectory() as folder:
            kept = Path(folder) / "demo"
            command = [sys.executable, "-m", "fl_node", "demo", *DEMO, "--preset", preset, "--no-ui"]
            subprocess.run([*command, "--state", str(kept)], check=True, capture_output=True)
            photograph(kept, preset, out)
    return 0


def photograph(kept: Path, preset: str, out: Path) -> None:
    """The pictures of a finished demo, with its chain and gateways back."""
    with contextmanager(ui_demo.again)(kept) as left:
        explored = left.explorer(kept.parent, monitor=True, listeners=8)
        explored.shown.start()
        try:
            with driving.serving(explored) as served:
                settle(served)
                shoot(served, preset, out)
        finally:
            explored.stop()


def settle(served: driving.Served) -> None:
    """Have everything audited, and wait until that is done and reports have come."""
    one = served.one
    one.client.post(f"/{one.shown.slug}/audit/verify", headers={"Sec-Fetch-Site": "same-origin"})
    wait(lambda: bool(one.json("/audit.json")["recent"]) and not one.json("/audit.json")["under_way"])
    wait(lambda: one.json("/updates/3-5.json")["report"]["state"] == "ok")


def wait(true: Callable[[], bool], within_s: float = 180.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"error: the explorer was not ready within {within_s:g} s")
        time.sleep(0.3)


def shoot(served: driving.Served, preset: str, out: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=driving.chromium(), args=list(driving.FLAGS))
        for name, path, height, scheme in PICTURES[preset]:
            page = browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(served.url(path))
            prepare(page, name)
            file = out / f"explorer-{name}.png"
            page.screenshot(path=str(file))
            page.close()
            squeeze(file)
            print(f"wrote {file}: {file.stat().st_size:,} bytes")
        browser.close()


def prepare(page: Page, name: str) -> None:
    """What a reader would do before they look."""
    page.wait_for_timeout(600)
    if name == "provenance":
        page.locator("#graph-title").evaluate("heading => heading.scrollIntoView()")
        page.locator("a.node.root").focus()
        page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(600)


def squeeze(file: Path) -> None:
    """Put it into a palette of its most frequent colours: those of grounds and sites stay exactly what they are."""
    with Image.open(file) as opened:
        pixels = np.asarray(opened.convert("RGB")).astype(np.int32)
    colours, places, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
    kept = colours[np.argsort(-counts, kind="stable")[:256]]
    nearest = np.abs(colours[:, None, :] - kept[None, :, :]).sum(axis=2).argmin(axis=1).astype(np.uint8)
    small = Image.fromarray(nearest[places.reshape(pixels.shape[:2])], mode="P")
    small.putpalette(kept.astype(np.uint8).tobytes())
    small.save(file, optimize=True)
    if file.stat().st_size > MOST_BYTES:
        raise SystemExit(f"error: {file} has {file.stat().st_size:,} bytes; expected at most {MOST_BYTES:,}")


if __name__ == "__main__":
    sys.exit(main())
