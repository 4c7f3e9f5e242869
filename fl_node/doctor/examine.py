"""Every check in order, each with how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from fl_node.access import View, deployed, viewing
from fl_node.config import NodeConfig
from fl_node.doctor.chain import chain_findings
from fl_node.doctor.content import content_findings, disk_finding
from fl_node.doctor.finding import Finding, checked
from fl_node.doctor.own import budget_finding, secrecy_findings, spec_findings, training_finding


def examine(config: NodeConfig) -> Iterator[Finding]:
    """All checks in order; later ones are ``unknown`` where they need what an earlier one found missing."""
    finding, opened = checked("federation file", lambda: deployed(config), "ask your coordinator for the deployed file")
    yield finding
    if opened is None:
        for name in ("chain", "code", "spec", "policies", "membership", "balance", "log", "rows and model"):
            yield Finding(name, "unknown", "needs the federation file")
        yield from content_findings(config)
        yield disk_finding(config)
        return
    federation, deployment = opened
    yield from spec_findings(federation)
    sound = True
    for finding in chain_findings(config, federation, deployment):
        sound = sound and not (finding.name in ("chain", "code", "spec") and finding.result != "ok")
        yield finding
    with ExitStack() as stack:
        view: View | None = None
        if sound:
            mend = "name another endpoint with --rpc, and tell the others what this one gave"
            finding, view = checked("log", lambda: stack.enter_context(viewing(config)), mend)
            told = "" if view is None else f"{view.prefix.size} entries, of which the contract has the same root"
            yield Finding(finding.name, finding.result, told or finding.message, finding.mend)
        else:
            yield Finding("log", "unknown", "needs the ledger")
        yield from content_findings(config)
        yield disk_finding(config)
        yield from secrecy_findings(config, federation)
        yield training_finding(config, federation, view)
        if federation.spec.privacy.mechanism != "none":
            yield budget_finding(config, federation, deployment, view)
