"""What published weights tell of the rows behind them: membership inference and update inversion.

    .venv/bin/python -m benchmarks.privacy.leakage [--seeds 5] [--data-dir DIR] [--only PATTERN] [--quick]

Every setting is run with seeds from 0 on; settings were chosen with seeds from 100 on. What was run already with the
same settings is not run again, so a run that was stopped goes on; ``--tables`` only writes the tables anew, and
``--picture`` the picture, which is drawn where there is none. ``--quick`` runs everything once, so small that its
numbers mean nothing, and writes no file. docs/leakage.md says what is attacked, how, and what the numbers mean.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path

import torch

from benchmarks.privacy import inversion_cases, membership_cases
from benchmarks.privacy.found import Case, Found
from benchmarks.privacy.picture import draw
from benchmarks.privacy.tables import page
from benchmarks.record import RESULTS

PICTURE = Path(__file__).resolve().parent.parent.parent / "docs" / "images" / "inversion.png"
NAME = "privacy-leakage"
COMMAND = ".venv/bin/python -m benchmarks.privacy.leakage"


def main() -> int:
    options = _options()
    torch.set_num_threads(1)
    cases: list[Case] = [*membership_cases.cases(), *inversion_cases.cases()]
    data_dir = options.data_dir.resolve()
    if options.quick:
        cases = [case.quick() for case in cases]
    command = COMMAND + (f" --seeds {options.seeds}" if options.seeds != 5 else "")
    found = Found(None, command) if options.quick else Found.load(RESULTS / f"{NAME}.json", command)
    for seed in range(1 if options.quick else options.seeds):
        for case in cases:
            if options.tables or not re.search(options.only, case.key) or seed in found.of(case):
                continue
            began = time.process_time()
            noted = case.run(seed, data_dir)
            seconds = time.process_time() - began
            found.add(case, seed, noted, seconds)
            print(f"seed {seed}, {case.key}: {seconds:.1f} s of one core", flush=True)
    text = page(found, cases)
    if options.quick:
        print(text)
    else:
        (RESULTS / f"{NAME}.md").write_text(text, "utf-8")
        if options.picture or not PICTURE.exists():
            draw(PICTURE, data_dir)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    parser.add_argument("--only", default="", help="only cases whose key this pattern is found in")
    parser.add_argument("--data-dir", type=Path, default=Path(os.environ.get("FL_NODE_DATA_DIR", "../shared/data")))
    parser.add_argument("--quick", action="store_true", help="once, tiny, to the screen")
    parser.add_argument("--tables", action="store_true", help="run nothing, write the tables anew")
    parser.add_argument("--picture", action="store_true", help="draw docs/images/inversion.png anew")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
