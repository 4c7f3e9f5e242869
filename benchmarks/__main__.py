"""Run every benchmark, one after the other: ``python -m benchmarks [NAME ...]``."""

from __future__ import annotations

import subprocess
import sys

NAMES = (
    *("merge", "robust", "content", "memory", "gas", "federation", "batched", "simulation", "audit", "audit_advice"),
    *("encodings", "explorer", "sealing", "privacy.leakage"),
)


def main() -> int:
    names = sys.argv[1:] or list(NAMES)
    for name in names:
        if name not in NAMES:
            print(f"unknown benchmark {name}; expected some of {', '.join(NAMES)}", file=sys.stderr)
            return 2
    for name in names:
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
