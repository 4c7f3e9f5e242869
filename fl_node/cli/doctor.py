"""``fl-node doctor``"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from fl_node.cli.settings import settings_of
from fl_node.cli.text import safe
from fl_node.doctor import examine


def doctor(arguments: argparse.Namespace) -> int:
    """Print every finding; 1 if one failed. A warning is no failure."""
    findings = []
    for finding in examine(settings_of(arguments)):
        findings.append(finding)
        if not arguments.json:
            print(f"{finding.result:<8} {finding.name}: {safe(finding.message)}", flush=True)
            if finding.mend and finding.result != "ok":
                print(f"         to mend: {safe(finding.mend)}")
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    return 1 if any(finding.result == "failed" for finding in findings) else 0
