#!/usr/bin/env python3
"""Run `fl-node demo` for real in a terminal and draw what it showed: docs/images/demo.svg, the README's picture.

    python scripts/record_demo.py [--out FILE] [DEMO OPTIONS ...]

The picture holds the command, one frame of the live table from the middle of the run, and everything printed at the
end. Nothing is edited but the name of the temporary folder. Linux and macOS.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 118
# What rich's live display sends before it draws the next frame: clear this line and the ones above.
REDRAW = re.compile(r"\r\x1b\[2K(?:\x1b\[1A\x1b\[2K)*")
CURSOR = re.compile(r"\x1b\[\?25[lh]|\r")
FONT_FACE = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw a real run of the demo.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "demo.svg")
    options, demo = parser.parse_known_args()
    code, live, result = run(["demo", *demo])
    if code:
        print(f"the demo failed with exit code {code}:\n{live}", file=sys.stderr)
        return code
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115,PTH123
    command = " ".join(["fl-node demo", *demo])
    console.print(f"[green]$[/green] [bold]{command}[/bold]", highlight=False)
    for part in (*frames(live), result):
        console.print(Text.from_ansi(part.rstrip("\n")), soft_wrap=False)
    # rich's own pictures name fonts on another host; a picture should load nothing.
    svg = FONT_FACE.sub("", console.export_svg(title=command, theme=MONOKAI, unique_id="demo"))
    options.out.write_text(svg.replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas"), encoding="utf-8")
    print(options.out)
    return 0


def run(arguments: list[str]) -> tuple[int, str, str]:
    """Exit code, everything that went to the terminal (stderr), and the result (stdout, also in colour)."""
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "LINES": "40", "TERM": "xterm-256color", "FORCE_COLOR": "1"}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "fl_node", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=ROOT,
        env=environment,
    )
    os.close(theirs)
    shown: list[bytes] = []

    def read() -> None:
        while True:
            try:
                part = os.read(ours, 65_536)
            except OSError:  # Linux says so when the other side is closed
                return
            if not part:
                return
            shown.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    result, _ = process.communicate()
    # The demo's helper process for forking may hold the terminal a moment longer.
    reader.join(10.0)
    return process.returncode, b"".join(shown).decode(), result.decode()


def frames(live: str) -> tuple[str, str]:
    """What stood before the live table, and one of its frames from the middle of the run."""
    head, *drawn = (CURSOR.sub("", part) for part in REDRAW.split(live.replace("\r\n", "\n")))
    lines = head.split("\n")
    start = next((n for n, line in enumerate(lines) if "Peers" in line), len(lines))
    tables = [frame for frame in drawn if frame.count("\n") > 3]
    busy = [frame for frame in tables if "training" in frame and "0/" not in frame]
    chosen = busy or tables or ["\n".join(lines[start:])]
    return "\n".join(lines[:start]), chosen[len(chosen) // 2]


if __name__ == "__main__":
    sys.exit(main())
