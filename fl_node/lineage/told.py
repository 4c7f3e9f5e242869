"""A lineage as JSON."""

from __future__ import annotations

from typing import Any

from fl_node.lineage.kin import Lineage, Relatives
from fl_node.prefix import UpdateEntry


def as_json(lineage: Lineage) -> dict[str, Any]:
    """JSON-ready: ``roots``, ``site``, ``ancestors``, ``descendants`` (or null), ``edges``. Effective shares are the
    doubles nearest to the exact ones."""
    return {
        "roots": [{**_entry_json(entry), "site": lineage.sites[entry.ref.peer]} for entry in lineage.roots],
        "site": lineage.site or None,
        "ancestors": _relatives_json(lineage.ancestors),
        "descendants": _relatives_json(lineage.descendants),
        "edges": [
            {
                "child": str(edge.child),
                "parent": "genesis" if edge.parent is None else str(edge.parent),
                "share_ppm": edge.share_ppm,
                "nominal": edge.nominal,
            }
            for edge in lineage.edges()
        ],
    }


def _relatives_json(found: Relatives | None) -> dict[str, Any] | None:
    if found is None:
        return None
    told: dict[str, Any] = {
        "updates": [
            {
                **_entry_json(relative.entry),
                "site": relative.site,
                "steps": relative.steps,
                "effective_share": float(relative.share),
                "nominal": relative.nominal,
                "withdrawn": relative.withdrawn,
                "counts": relative.counts,
            }
            for relative in found.updates
        ],
        "sites": [
            {
                "site": item.site,
                "direct_share_ppm": item.direct_ppm,
                "updates": item.updates,
                "first_round": item.first_round,
                "last_round": item.last_round,
                "largest_effective_share": float(item.largest),
                "nominal": item.nominal,
                "latest_effective_share": None if item.latest is None else float(item.latest),
            }
            for item in found.sites
        ],
        "farther": found.farther,
        "exact": found.exact,
    }
    if found.genesis is not None:
        told["genesis"] = {"effective_share": float(found.genesis), "steps": found.genesis_steps}
    return told


def _entry_json(entry: UpdateEntry) -> dict[str, Any]:
    return {
        "update": str(entry.ref),
        "peer": entry.ref.peer,
        "round": entry.round,
        "entry": entry.index,
        "time_s": entry.time_s,
        "final": entry.final,
        "content": entry.content.hex(),
        "claimed_score_ppm": entry.update.score_ppm,
    }
