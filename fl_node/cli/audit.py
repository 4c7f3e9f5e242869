"""``fl-node audit``"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fl_node.audit.at_hand import AtHand
from fl_node.audit.kept import Kept
from fl_node.audit.means import Means
from fl_node.audit.open_means import Where, means_of
from fl_node.audit.run import ALL, Scope
from fl_node.audit.run import audit as run_audit
from fl_node.audit.told import as_json, counts, grouped, repeats_of, verdict
from fl_node.audit.verdicts import BY_NAME, Finding, Report, Result
from fl_node.cli.at_hand import identities_of, with_keys
from fl_node.cli.bar import bar
from fl_node.cli.console import Out
from fl_node.cli.settings import settings_of
from fl_node.cli.text import read_or_not, safe
from fl_node.cli.working import working_folder
from fl_node.errors import ChecksFailed, InconsistentLog, NotAllKnown, StoreFull, UsageError
from fl_node.unwritable import NO_ROOM

_MOST_SHOWN = 40
_STYLES = {
    Result.OK: "green",
    Result.OUTLIER: "cyan",
    Result.UNKNOWN: "yellow",
    Result.CONTRADICTED: "magenta",
    Result.SUSPICIOUS: "magenta",
    Result.FAILED: "bold red",
}


def audit(arguments: argparse.Namespace) -> int:
    """Check every update; 0 only if all that was asked for holds."""
    config = settings_of(arguments)
    file = Path(config.federation)
    scope, identities = scope_of(arguments), identities_of(arguments)
    out = page_file(arguments.html)
    with working_folder(arguments.work, None if arguments.contract else file, "audit") as folder:
        if arguments.fresh:
            for log in folder.glob("log-*.sqlite*"):
                log.unlink()
        where = Where(
            federation=file,
            rpc=config.rpc,
            contract=arguments.contract,
            content=arguments.sources,
            checkpoints=[Path(name) for name in arguments.checkpoints],
            tiles=arguments.tiles or "",
            depth=arguments.depth,
            work=folder,
        )
        try:
            with means_of(where) as found:
                means, keys = with_keys(found, identities, config if arguments.state is not None else None)
                with _kept(folder, means, arguments.fresh, keys) as kept:
                    report = audited(means, scope, arguments, kept)
                    return shown(means, report, arguments, out)
        except InconsistentLog as cause:
            return _refused(str(cause), arguments, out)


def scope_of(arguments: argparse.Namespace) -> Scope:
    """Which updates and checks the flags ask for.

    Raises:
        UsageError: an unknown check, or a range that is none.
    """
    names = frozenset(name.strip() for name in arguments.checks.split(",") if name.strip())
    unknown = sorted(names - ALL)
    if unknown or (arguments.checks and not names):
        named = unknown[0] if unknown else arguments.checks
        raise UsageError(f"--checks {named}: expected one of {', '.join(BY_NAME)}")
    if arguments.stop is not None and arguments.stop < arguments.start:
        raise UsageError(f"got --from {arguments.start} --to {arguments.stop}; expected from <= to")
    if arguments.jobs < 0:
        raise UsageError(f"--jobs {arguments.jobs}: expected 1 or more, or 0 for as many as there are cores")
    return Scope(arguments.start, arguments.stop, arguments.peer, None, names or ALL)


def audited(means: Means, scope: Scope, arguments: argparse.Namespace, kept: Kept | None = None) -> Report:
    """The audit, with a bar on a terminal.

    Raises:
        UsageError: what was asked for is not in the log, so that its being well would say nothing.
    """
    _check_there(means, scope)
    jobs = arguments.jobs or len(os.sched_getaffinity(0))
    with bar() as tell:
        report = run_audit(means, scope, jobs=jobs, progress=tell, kept=kept)
    if report.updates:
        return report
    return replace(report, notes=(*report.notes, "no update was checked: none is within what was asked for"))


def _check_there(means: Means, scope: Scope) -> None:
    size = len(means.entries)
    for flag, entry in (("--from", scope.start), ("--to", scope.stop or 0)):
        if entry > size:
            raise UsageError(f"{flag} {entry}: the log has {size} entries; expected at most as many")
    members = [facts.number for facts in means.prefix.peers()]
    if scope.peer is not None and scope.peer not in members:
        numbers = f"1 to {len(members)}" if members else "none"
        raise UsageError(f"--peer {scope.peer}: the ledger has no such peer; its peers are {numbers}")


def shown(means: Means, report: Report, arguments: argparse.Namespace, out: Path | None) -> int:
    """Print a report, write its page, and leave with what it comes to.

    Raises:
        ChecksFailed, NotAllKnown: something counts at ``--fail-on``.
    """
    told = as_json(report, arguments.fail_on, repeats_of(means, report))
    extra = None
    if arguments.completeness and means.federation is not None:
        from fl_node.completeness import completeness

        extra = completeness(means.federation.spec, means.sound)
        told["completeness"] = extra.as_json()
    with read_or_not():
        if arguments.json:
            print(json.dumps(told, indent=1))
        else:
            console = Out(markup=False, highlight=False)
            show_report(console, report, told)
            if extra is not None:
                from fl_node.cli.completeness import show_completeness

                show_completeness(console, extra)
    write_page(out, told)
    return conclusion(report, arguments.fail_on)


def conclusion(report: Report, fail_on: str) -> int:
    """0, or the error that tells why not."""
    counted = report.counted(fail_on)
    if not counted:
        return 0
    worst = verdict(report, fail_on)
    unknown = sum(finding.result is Result.UNKNOWN for finding in counted)
    first = next(finding for finding in counted if finding.result.value == worst)
    if unknown == len(counted):
        more = "Get a pack of more (--blobs, --all)" if "pack" in report.facts else "Give more sources with --content"
        if any(finding.data.get("encrypted") for finding in counted):
            more += ", keys with --identity"
        raise NotAllKnown(
            f"nothing failed, but {unknown} of {sum(1 for _ in report.all_findings())} results are unknown; the first: "
            f"{first.check}: {first.detail}. {more}, or ask for less: --checks, --fail-on"
        )
    bad = len(counted) - unknown
    raise ChecksFailed(f"{bad} results are not as they should be; the gravest: {first.check} {worst}: {first.detail}")


def show_report(console: Console, report: Report, told: Mapping[str, Any]) -> None:
    """The summary, and what is not ``ok``, for people."""
    facts = report.facts
    if facts.get("pack"):
        console.print(f"pack        {facts['pack']}, {facts['scope']}", soft_wrap=True)
    console.print(f"ledger      {facts['contract']} on chain {facts['chain_id']}", soft_wrap=True)
    console.print(
        f"log         {facts['size']} entries, root 0x{facts['root']}, block {facts['block']}", soft_wrap=True
    )
    if facts.get("name"):
        console.print(f"federation  {safe(str(facts['name']))}, spec {facts['spec_digest']}", soft_wrap=True)
    console.print(f"updates     {len(report.updates)}\n")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("", "check"):
        table.add_column(heading, no_wrap=True)
    for result in Result:
        table.add_column(result.value, justify="right")
    for name, by_result in counts(report).items():
        cells = [str(by_result[result.value] or "·") for result in Result]
        table.add_row(str(BY_NAME[name].number), name, *cells)
    console.print(table)
    groups = grouped(report)
    if groups:
        console.print()
    for finding, updates in groups[:_MOST_SHOWN]:
        _show_group(console, finding, [str(update.ref) for update in updates], told)
    if len(groups) > _MOST_SHOWN:
        console.print(f"... and {len(groups) - _MOST_SHOWN} more; --json and --html have them all")
    for note in report.notes[:_MOST_SHOWN]:
        console.print(f"note: {safe(note)}", soft_wrap=True)
    if len(report.notes) > _MOST_SHOWN:
        console.print(f"... and {len(report.notes) - _MOST_SHOWN} more notes")
    unknown = sum(by_result[Result.UNKNOWN] for by_result in counts(report).values())
    aside = f" ({unknown} results are unknown; at --fail-on {told['fail_on']} these do not count)"
    ok = told["verdict"] == Result.OK
    console.print(f"\nverdict     {told['verdict']}", style=_STYLES[Result(told["verdict"])], end="")
    console.print(aside if ok and unknown else "")


def _show_group(console: Console, finding: Finding, refs: list[str], told: Mapping[str, Any]) -> None:
    named = ", ".join(refs[:6]) + (f" and {len(refs) - 6} more" if len(refs) > 6 else "")
    aside = "" if finding.asked else " (not asked for)"
    console.print(f"{finding.result.value}: {finding.check}{aside}", style=_STYLES[finding.result], end="")
    first = " (of the first)" if len(refs) > 1 else ""
    console.print(f": {named + first + ': ' if refs else ''}{safe(finding.detail)}", soft_wrap=True)
    if refs and finding.result in (Result.FAILED, Result.SUSPICIOUS, Result.CONTRADICTED):
        for update in told["updates"]:
            if update["update"] == refs[0]:
                for item in update["findings"]:
                    if item["check"] == finding.check and item.get("repeat"):
                        console.print(f"    see for yourself: {safe(item['repeat'])}", soft_wrap=True)
                return


def _refused(message: str, arguments: argparse.Namespace, out: Path | None) -> int:
    """A log that is not the contract's: nothing of it is believed, so that is the only finding."""
    finding = Finding("included", Result.FAILED, message)
    facts = {"contract": arguments.contract, "chain_id": None, "size": 0, "root": "", "block": None}
    report = Report(facts, (finding,), ())
    told = as_json(report, arguments.fail_on)
    with read_or_not():
        print(json.dumps(told, indent=1) if arguments.json else f"failed: included: {safe(message)}")
    write_page(out, told)
    return conclusion(report, arguments.fail_on)


def page_file(name: str | None) -> Path | None:
    """The page's file, found out to be writable before the work and not after it."""
    if name is None:
        return None
    path = Path(name)
    try:
        before = path.exists()
        path.open("a").close()
        if not before:
            path.unlink()
    except OSError as cause:
        kind = StoreFull if cause.errno in NO_ROOM else UsageError
        raise kind(f"--html {name}: cannot write it: {cause.strerror}; name another file") from cause
    return path


def write_page(path: Path | None, told: Mapping[str, Any]) -> None:
    """The report as one page, where one was asked for.

    Raises:
        StoreFull: it cannot be written.
    """
    if path is None:
        return
    from fl_node.audit.page import page

    try:
        path.write_text(page(told), encoding="utf-8")
    except OSError as cause:
        raise StoreFull(
            f"--html {path}: cannot write it: {cause.strerror}; free some space, or name another"
        ) from cause


@contextmanager
def _kept(folder: Path, means: Means, fresh: bool, keys: AtHand | None) -> Iterator[Kept]:
    own = None if keys is None else keys.own
    with Kept(folder / "results.sqlite", means.log, means.spec_digest, own) as kept:
        if fresh:
            kept.forget()
        try:
            yield kept
        finally:
            if kept.trouble:
                print(f"fl-node: {kept.trouble}", file=sys.stderr)
