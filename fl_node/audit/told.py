"""A report as JSON and as commands by which a person repeats what it says."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from fl_node.audit.means import Means
from fl_node.audit.verdicts import BY_NAME, CHECKS, Finding, Report, Result, UpdateVerdict
from fl_node.content.cid import Cid
from fl_node.content.names import cid_of_update
from fl_node.prefix import UpdateEntry

#: Names of updates, CIDs, hexadecimal digits with a number among them, numbers, and lists of any of these.
_ONE_OF_A_KIND: Final = re.compile(
    r"(?:baf[a-z2-7]{56}|\b0x[0-9a-f]+|\b(?=[0-9a-f]*[0-9])[0-9a-f]+(?:[#.][0-9]+)*\b)"
    r"(?:, (?:baf[a-z2-7]{56}|\b0x[0-9a-f]+|\b(?=[0-9a-f]*[0-9])[0-9a-f]+(?:[#.][0-9]+)*\b))*"
)


def as_json(report: Report, fail_on: str, repeats: Mapping[tuple[str, str], str] | None = None) -> dict[str, Any]:
    """Everything, JSON-ready. ``repeats``: commands by (update, check); see :func:`repeats_of`."""
    commands = repeats or {}
    return {
        "facts": dict(report.facts),
        "verdict": verdict(report, fail_on),
        "counted": len(report.counted(fail_on)),
        "fail_on": fail_on,
        "counts": {name: dict(by_result) for name, by_result in counts(report).items()},
        "checks": [
            {"number": check.number, "name": check.name, "proves": check.proves, "does_not_prove": check.limits}
            for check in CHECKS
        ],
        "findings": [_finding(finding, "") for finding in report.findings],
        "updates": [
            {
                "update": str(update.ref),
                "entry": update.index,
                "round": update.round,
                "site": update.site,
                "result": update.worst.value,
                "findings": [
                    _finding(finding, commands.get((str(update.ref), finding.check), "")) for finding in update.findings
                ],
            }
            for update in report.updates
        ],
        "notes": list(report.notes),
        "seconds": dict(report.seconds),
    }


def _finding(finding: Finding, repeat: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "check": finding.check,
        "result": finding.result.value,
        "detail": finding.detail,
        "data": dict(finding.data),
    }
    if not finding.asked:
        told["asked"] = False
    if repeat:
        told["repeat"] = repeat
    return told


def verdict(report: Report, fail_on: str) -> str:
    """One word for the whole: ``ok``, ``failed``, ``suspicious``, ``contradicted``, ``unknown`` or ``outlier``, by what
    counts at this level."""
    counted = report.counted(fail_on)
    for result in reversed(Result):
        if any(finding.result is result for finding in counted):
            return result.value
    return Result.OK.value


def counts(report: Report) -> dict[str, Counter[str]]:
    """How often each check came to each result, in the order of the checks."""
    found = {check.name: Counter[str]() for check in CHECKS}
    for finding in report.all_findings():
        found[finding.check][finding.result.value] += 1
    return {name: by_result for name, by_result in found.items() if by_result}


def alike(detail: str) -> str:
    """A finding's words without what is one update's alone: names, digests, numbers. Those that are equal so tell the
    same of several updates.

    >>> alike("2#1 has 3 parents, base 0fe1")
    '# has # parents, base #'
    """
    return _ONE_OF_A_KIND.sub("#", detail)


def grouped(report: Report) -> list[tuple[Finding, list[UpdateVerdict]]]:
    """Findings that are not ``ok``, the gravest first; those that say the same of several updates together, in the
    words of the first."""
    groups: dict[tuple[str, str, str], tuple[Finding, list[UpdateVerdict]]] = {}
    for finding in report.findings:
        if finding.result is not Result.OK:
            groups[(finding.check, finding.result, finding.detail)] = (finding, [])  # each a thing of its own
    for update in report.updates:
        for finding in update.findings:
            if finding.result is not Result.OK:
                key = (finding.check, finding.result, alike(finding.detail))
                groups.setdefault(key, (finding, []))[1].append(update)
    order = list(Result)
    return sorted(groups.values(), key=lambda group: (-order.index(group[0].result), BY_NAME[group[0].check].number))


def repeats_of(means: Means, report: Report) -> dict[tuple[str, str], str]:
    """For each finding about an update a command by which a person repeats the check."""
    found = {}
    for verdict_ in report.updates:
        update = means.prefix.update(verdict_.ref)
        words = _words(means, update)
        for finding in verdict_.findings:
            found[(str(verdict_.ref), finding.check)] = BY_NAME[finding.check].repeat.format_map(words)
    return found


def _words(means: Means, update: UpdateEntry) -> dict[str, object]:
    entry = means.log.entry(update.index)
    cid = cid_of_update(update.update)
    return {
        "rpc": shlex.quote(means.rpc or "RPC_URL"),  # the federation file may be a stranger's
        "contract": means.identity.address,
        "tx": "0x" + entry.tx_hash.hex(),
        "block": entry.block_number,
        "seen": update.update.seen,
        "gateway": means.blobs.where(cid) or "GATEWAY",
        "cid": cid,
        "report": Cid("raw", update.update.report),
        "update": update.ref,
        "index": update.index,
        "next": update.index + 1,
        "peer": update.ref.peer,
    }
