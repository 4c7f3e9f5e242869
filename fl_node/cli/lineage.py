"""``fl-node lineage``"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fl_node.access import viewing
from fl_node.cli.reading import find_update
from fl_node.cli.settings import settings_of
from fl_node.errors import UsageError
from fl_node.lineage import Lineage, prov_json, trace, trace_site
from fl_node.lineage.dot import dot
from fl_node.lineage.svg import svg
from fl_node.lineage.told import as_json
from fl_node.lineage.tree import tree
from fl_node.prefix import Prefix
from fl_node.spec import Spec
from fl_node.unwritable import unwritable

#: Of a tree, as many levels are shown as fit in, unless --levels says otherwise.
_UPDATES_IN_TREE: Final = 60


def lineage(arguments: argparse.Namespace) -> int:
    """What an update, or a site's updates, came from and what came of it."""
    if (arguments.update is None) == (arguments.site is None):
        raise UsageError("expected an update such as 3#12, or --site SITE for all updates of a site; not both")
    if arguments.site is not None and arguments.direction == "ancestors":
        raise UsageError("--site tells what came of a site's updates; name one update to see what it came from")
    if arguments.levels is not None and arguments.levels < 0:
        raise UsageError(f"--levels {arguments.levels}: expected 1 or more, or 0 for all")
    form = "json" if arguments.json else arguments.format
    with _log(arguments) as (spec, prefix):
        found = _found(arguments, prefix)
        levels = arguments.levels
        if levels is None:
            levels = _levels_that_fit(found) if form == "tree" else 0
        text = _text(form, found.within(levels), prefix, spec)
    _write(text, arguments.out)
    return 0


@contextmanager
def _log(arguments: argparse.Namespace) -> Iterator[tuple[Spec | None, Prefix]]:
    if arguments.pack is None:
        with viewing(settings_of(arguments)) as view:
            yield view.federation.spec, view.prefix
        return
    from fl_node.evidence.read import open_pack

    with open_pack(Path(arguments.pack)) as means:
        yield None if means.federation is None else means.federation.spec, means.prefix


def _found(arguments: argparse.Namespace, prefix: Prefix) -> Lineage:
    if arguments.update is not None:
        return trace(prefix, find_update(prefix, arguments.update).ref, arguments.direction)
    try:
        return trace_site(prefix, arguments.site)
    except LookupError as cause:
        known = ", ".join(sorted({facts.site for facts in prefix.peers()}))
        raise UsageError(f"--site {arguments.site}: {cause}; the members' sites are {known[:500]}") from cause


def _levels_that_fit(found: Lineage) -> int:
    """How many levels each list shows: all, or at least the nearest."""
    most = 0
    for relatives in (found.ancestors, found.descendants):
        updates = relatives.updates if relatives is not None else ()
        if len(updates) > _UPDATES_IN_TREE:
            fitting = max(1, updates[_UPDATES_IN_TREE].steps - 1)
            most = min(most or fitting, fitting)
    return most


def _text(form: str, found: Lineage, prefix: Prefix, spec: Spec | None) -> str:
    match form:
        case "json":
            return json.dumps(as_json(found), indent=1) + "\n"
        case "prov":
            return json.dumps(prov_json(prefix, found, spec), indent=1) + "\n"
        case "dot":
            return dot(found)
        case "svg":
            return svg(found)
    return tree(found)


def _write(text: str, name: str | None) -> None:
    if name is None:
        sys.stdout.write(text)
        return
    try:
        with Path(name).open("x", encoding="utf-8") as sink:
            sink.write(text)
    except FileExistsError as cause:
        raise UsageError(f"{name} exists already; expected a new file: name another with --out") from cause
    except OSError as cause:
        raise unwritable(name, cause, "name another file with --out") from cause
