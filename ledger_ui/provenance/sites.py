"""What each site has to do with an update, over all that was followed."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Final

from ledger_ui.provenance.records import SitePart
from ledger_ui.provenance.walk import Walk

#: Rows of a table of sites.
MOST_SITES: Final = 120


@dataclass(slots=True)
class _Part:
    direct_ppm: int = 0
    updates: int = 0
    first: int = 0
    last: int = 0
    largest: float = 0.0
    nominal: bool = False
    at_least: bool = False


def by_site(db: sqlite3.Connection, walk: Walk) -> tuple[list[SitePart], int]:
    """The sites with the largest effective shares, and how many there are."""
    parts: dict[int | None, _Part] = {}
    for idx in walk.relatives:
        facts = walk.facts[idx]
        part = parts.get(facts.site)
        if part is None:
            part = parts[facts.site] = _Part(first=facts.round, last=facts.round)
        part.updates += 1
        part.first, part.last = min(part.first, facts.round), max(part.last, facts.round)
        part.largest = max(part.largest, min(1.0, walk.shares[idx]))
        part.nominal |= idx in walk.nominal
        part.at_least |= idx in walk.waiting
    for _, other, share_ppm in walk.links.get(walk.root, ()):
        part = parts[walk.facts[other].site]
        part.direct_ppm = part.direct_ppm + share_ppm if walk.upward else max(part.direct_ppm, share_ppm)
    ranked = sorted(parts, key=lambda site: (-parts[site].largest, site or 0))[:MOST_SITES]
    names = names_of(db, [site for site in ranked if site is not None])
    latest = {} if walk.upward else _latest(db, walk, [site for site in ranked if site is not None])
    rows = []
    for site in ranked:
        part = parts[site]
        share, known = latest.get(site, (None, walk.upward or site is not None))
        rows.append(
            SitePart(
                site=site,
                site_name=names.get(site) if site is not None else None,
                direct_ppm=part.direct_ppm,
                updates=part.updates,
                first_round=part.first,
                last_round=part.last,
                largest=part.largest,
                nominal=part.nominal,
                at_least=part.at_least,
                latest=share,
                latest_known=known,
            )
        )
    return rows, len(parts)


def names_of(db: sqlite3.Connection, sites: list[int]) -> dict[int, str]:
    """The names of sites by their numbers."""
    query = "SELECT site, name FROM sites WHERE site IN (SELECT value FROM json_each(?))"
    return {row[0]: row[1] for row in db.execute(query, (json.dumps(sites),))}


def _latest(db: sqlite3.Connection, walk: Walk, sites: list[int]) -> dict[int | None, tuple[float | None, bool]]:
    """The root's effective share in the latest update of each site (of several peers, the largest), and whether it is
    known: the latest may lie beyond where merges were followed."""
    query = (
        "SELECT p.site, (SELECT max(u.idx) FROM updates u WHERE u.peer = p.peer) FROM peers p "
        "WHERE p.site IN (SELECT value FROM json_each(?))"
    )
    cut = min(walk.waiting, default=None)
    found: dict[int | None, tuple[float | None, bool]] = {}
    for site, idx in db.execute(query, (json.dumps(sites),)):
        share, known = found.get(site, (None, True))
        if idx is not None and cut is not None and idx >= cut:
            known = False
        elif idx is not None and idx in walk.shares and idx != walk.root:
            share = max(share or 0.0, min(1.0, walk.shares[idx]))
        found[site] = share, known
    return {site: (share if known else None, known) for site, (share, known) in found.items()}
