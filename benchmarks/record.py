"""Write a benchmark's results: one JSON file, one Markdown table, both naming the command and the machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def write_results(name: str, command: str, found: Mapping[str, object]) -> None:
    """Write ``results/<name>.json`` and ``.md``, and print the table."""
    machine = {
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "load_at_the_end": round(os.getloadavg()[0], 1),
    }
    RESULTS.mkdir(exist_ok=True)
    whole = {"command": command, "machine": machine, "results": dict(found)}
    (RESULTS / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n")
    rows = "\n".join(f"| {key.replace('_', ' ')} | {value} |" for key, value in found.items())
    where = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in machine.items())
    text = f"# {name.capitalize()}\n\n`{command}`, on {where}.\n\n| what | value |\n| --- | --- |\n{rows}\n"
    (RESULTS / f"{name}.md").write_text(text)
    print(text)
