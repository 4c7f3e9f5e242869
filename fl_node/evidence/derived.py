"""What a pack holds for people though it follows from the rest: the lineage. A reader makes it again and compares."""

from __future__ import annotations

from typing import Final

from fl_node.errors import InconsistentLog
from fl_node.evidence.layout import Scope
from fl_node.evidence.plain import written_json
from fl_node.evidence.scope import updates_of
from fl_node.lineage import Lineage, Relatives, prov_json, trace
from fl_node.prefix import Prefix
from fl_node.spec import Spec

#: A document of more takes more memory than it is worth; `fl-node lineage --pack` still answers about one update.
MOST_UPDATES: Final = 5_000
_NONE: Final = Relatives((), (), 0, None, 0, True)


def lineage_bytes(prefix: Prefix, scope: Scope, spec: Spec | None) -> bytes | None:
    """The lineage as PROV-JSON: of one update what it came from and what came of it; else of all updates of the log.

    Returns:
        ``None`` where there is no update, or there are too many, or one names a parent that is not before it.
    """
    every = updates_of(prefix)
    if not 1 <= len(every) <= MOST_UPDATES:
        return None
    try:
        if scope.update is not None:
            lineage = trace(prefix, scope.update)
        else:
            sites = {facts.number: facts.site for facts in prefix.peers()}
            lineage = Lineage(every, "", sites, _NONE, _NONE)
        return written_json(prov_json(prefix, lineage, spec))
    except (InconsistentLog, LookupError):
        return None
