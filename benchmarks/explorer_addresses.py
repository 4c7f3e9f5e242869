"""Addresses of every page that the explorer registers, with arguments of all kinds from an index: oldest, newest and in
the middle; every order, every filter, and places deep in a list."""

from __future__ import annotations

import sqlite3
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from urllib.parse import quote, urlencode

import ledger_ui.pages  # noqa: F401  registers the pages
from ledger_ui.registry import PAGES, Page


def addresses(slug: str, db: sqlite3.Connection, contract: str) -> dict[str, list[str]]:
    """By name of the page; as HTML, and the plain one as JSON."""
    known = _Known(db, contract)
    found = {}
    for page in PAGES.values():
        paths = [f"/{slug}{path}" for path in _paths(page, known)]
        several = [f"{path}{query}" for path in paths[:1] for query in _queries(page, known)]
        found[page.name] = [*paths, *several, f"{paths[-1]}.json" if page.rule else f"/{slug}.json"]
    return found


class _Known:
    """Values to ask for, out of an index."""

    def __init__(self, db: sqlite3.Connection, contract: str) -> None:
        self.last = db.execute("SELECT value FROM ui_state WHERE key = 'folded'").fetchone()[0] - 1
        self.updates = [
            db.execute(
                "SELECT * FROM updates WHERE idx >= ? ORDER BY idx LIMIT 1", (self.last * part // 10,)
            ).fetchone()
            for part in (0, 5, 9)
        ]
        popular = "SELECT * FROM updates ORDER BY children DESC, idx LIMIT 1"
        self.updates.append(db.execute(popular).fetchone())
        self.updates.append(db.execute("SELECT * FROM updates ORDER BY idx DESC LIMIT 1").fetchone())
        self.peers = [row[0] for row in db.execute("SELECT peer FROM peers ORDER BY peer")]
        self.sites = db.execute("SELECT site, name FROM sites ORDER BY site").fetchall()
        self.rounds = [row[0] for row in db.execute("SELECT DISTINCT round FROM updates ORDER BY round")]
        self.account = db.execute("SELECT account FROM peers WHERE peer = ?", (self.peers[-1],)).fetchone()[0]
        self.entry = db.execute("SELECT * FROM entries WHERE idx = ?", (self.last // 2,)).fetchone()
        self.contract = contract

    @property
    def refs(self) -> list[str]:
        return [f"{row['peer']}-{row['sequence']}" for row in self.updates]

    def numbers(self, page: str) -> list[int]:
        """Of peers, rounds or sites: first, middle, last."""
        of = self.rounds if page.startswith("round") else self.peers
        if page.startswith("site"):
            of = [row["site"] for row in self.sites]
        return [of[0], of[len(of) // 2], of[-1]]

    def values(self, page: str, name: str) -> list[object]:
        """What a parameter of a query may be; empty: leave it."""
        middle, update = self.rounds[len(self.rounds) // 2], self.updates[1]
        own: dict[str, list[object]] = {
            "peer": [self.peers[len(self.peers) // 2]],
            "site": [self.sites[-1]["site"]],
            "round": [middle],
            "block": [self.entry["block"]],
            "tx": [self.entry["tx_hash"].hex()],
            "parent": [self.refs[1]],
            "since": [update["time_s"]],
            "until": [update["time_s"]],
            "first": [self.rounds[0], middle],
            "last": [middle],
            "check": ["merge"],
            "up": [3],
            "down": [3],
            "page": [2],
            "limit": [500],
            "after": [str(self.last // 2)] if page in ("updates", "entries") else [],
            "claimed_min": [90],
            "claimed_max": [30],
            "attested_min": [90],
            "attested_max": [30],
            "q": [
                *(self.refs[1], update["content"].hex(), update["weights"].hex(), self.account, self.contract),
                *(self.entry["tx_hash"].hex(), self.entry["leaf"].hex(), self.sites[0]["name"], f"round {middle}"),
                *(str(self.last // 3), "nothing of the kind", update["content"].hex()[:9]),
            ],
        }
        return own.get(name, [])


def _paths(page: Page, known: _Known) -> Iterator[str]:
    if not page.path:
        yield page.rule
        return
    for name in page.path:
        told: list[object] = list(known.refs if name == "ref" else known.numbers(page.name))
        if name == "index":
            told = [0, known.last // 2, known.last]
        for value in told:
            yield page.rule.replace(f"<int:{name}>", str(value)).replace(f"<{name}>", quote(str(value)))


def _queries(page: Page, known: _Known) -> Iterator[str]:
    fields = page.query.model_fields
    for name, told in fields.items():
        if name == "order":
            continue
        for value in known.values(page.name, name) or _choices(told.annotation):
            yield _asked({told.alias or name: value})
            if name == "sort":
                yield _asked({"sort": value, "order": "asc" if fields["order"].default == "desc" else "desc"})
    if "sort" in fields and "state" in fields:
        for state in _choices(fields["state"].annotation):
            for sort in _choices(fields["sort"].annotation):
                yield _asked({"state": state, "sort": sort})


def _asked(told: dict[str, object]) -> str:
    return f"?{urlencode(told)}"


def _choices(kind: Any) -> list[object]:
    """The values of a literal, wherever it is inside a type."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if kind is bool:
        return ["true"]
    if get_origin(kind) in (Union, types.UnionType, Annotated):
        return [value for part in get_args(kind) for value in _choices(part)]
    return []
