"""``fl-node verify``"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from fl_node.audit.open_means import notes_in
from fl_node.audit.verdicts import Report
from fl_node.cli.at_hand import identities_of, with_keys
from fl_node.cli.audit import audited, page_file, scope_of, shown
from fl_node.cli.bar import bar
from fl_node.cli.text import read_or_not
from fl_node.evidence.read import AlteredEvidence, OpenedPack, opened

ONLY_A_CHAIN: Final = (
    "what only the chain can add: that these blocks are part of it now, and that nothing was appended since",
    "what only the peers can add: that they still give the bytes",
)


def verify(arguments: argparse.Namespace) -> int:
    """Check a pack: every file against the manifest, then everything that an audit checks, without a network."""
    scope, page = scope_of(arguments), page_file(arguments.html)
    checkpoints = [note for name in arguments.checkpoints for note in notes_in(Path(name))]
    identities = identities_of(arguments)
    with _opened(arguments) as pack:
        means, _ = with_keys(pack.means, identities, None)
        means = replace(means, checkpoints=(*means.checkpoints, *checkpoints))
        report = audited(means, replace(scope, refs=pack.refs), arguments)
        return shown(means, with_pack(report, pack, scope.checks), arguments, page)


@contextmanager
def _opened(arguments: argparse.Namespace) -> Iterator[OpenedPack]:
    """The pack. One that was altered is told as JSON too, where that was asked for."""
    with ExitStack() as stack:
        try:
            with bar() as tell:
                pack = stack.enter_context(opened(Path(arguments.pack), tell))
        except AlteredEvidence as cause:
            if arguments.json:
                altered = [{"file": one.path, "concerns": list(one.concerns)} for one in cause.altered]
                with read_or_not():
                    print(json.dumps({"verdict": "failed", "altered": altered}, indent=1))
            raise
        yield pack


def with_pack(report: Report, pack: OpenedPack, checks: frozenset[str]) -> Report:
    """The report, with what is wrong with the pack's own proofs, and what a pack cannot tell.

    Args:
        checks: those that were asked for.
    """
    updates, told = [], set()
    for update in report.updates:
        wrong = pack.by_entry.get(update.index)
        if wrong is not None and wrong.check in checks:
            told.add(update.index)
            update = replace(
                update, findings=tuple(wrong if one.check == wrong.check else one for one in update.findings)
            )
        updates.append(update)
    others = [wrong for index, wrong in sorted(pack.by_entry.items()) if index not in told]
    return replace(
        report,
        facts={**report.facts, "pack": pack.digest.hex(), "scope": str(pack.manifest.scope)},
        findings=(*report.findings, *(wrong for wrong in (*others, *pack.findings) if wrong.check in checks)),
        updates=tuple(updates),
        notes=(*report.notes, *pack.notes, *ONLY_A_CHAIN),
    )
