"""Who is a member, and whose updates a page is about."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import Field

from fl_node.records import Role
from ledger_ui.contexts import Context

Standing = Literal["active", "closed", "retired", "stranger"]
_ROLES: Final = {Role.PUBLISH: "publishes", Role.ATTEST: "attests", Role.READ: "reads"}
_SITE_PEERS: Final = 200
#: Tables of what somebody wrote whom nobody may have admitted: a contract may be hostile.
_WRITTEN: Final = ("updates", "attestations", "objections", "announcements")

#: Of a peer ``p``: its latest update that counts, and how it stands. Look-ups in an index, whatever the log's length.
LATEST: Final = (
    "(SELECT v.idx FROM updates v WHERE v.peer = p.peer AND v.state != 'ignored' ORDER BY v.idx DESC LIMIT 1)"
)
STANDING: Final = f"""CASE WHEN p.retired IS NOT NULL THEN 'retired'
    WHEN (SELECT w.final FROM updates w WHERE w.idx = {LATEST}) THEN 'closed' ELSE 'active' END"""  # noqa: S608


class Member(Context):
    """A peer as the log has it."""

    peer: int
    standing: Standing = Field(description="active; closed (it has published its closing update); retired; or stranger")
    account: str | None = Field(description="its address; none: nobody admitted it")
    site: int | None = Field(description="number of the site's first peer")
    site_name: str | None = Field(description="a stranger's text")
    roles: list[str] = Field(description="publishes, attests, reads")
    admitted: int | None = Field(description="entry of its admission")
    admitted_s: int | None = Field(description="block time of that, seconds since 1970")
    retired: int | None = Field(description="entry of its retirement")
    retired_s: int | None
    retired_from: int | None = Field(description="its entries do not count from this one on")
    reason: str | None = Field(description="why it was retired; a stranger's text")


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose updates: a peer's, or those of all peers of a site. ``peers``: up to two hundred of them."""

    column: Literal["peer", "site"]
    number: int
    peers: tuple[int, ...]


def member(db: sqlite3.Connection, number: int) -> Member | None:
    """A peer by number; ``None`` where the log holds nothing by it."""
    query = (
        f"SELECT p.peer, p.account, p.site, s.name AS site_name, p.roles, p.admitted, p.retired, p.retired_from, "  # noqa: S608
        f"p.reason, {STANDING} AS standing FROM peers p LEFT JOIN sites s ON s.site = p.site WHERE p.peer = ?"
    )
    row = db.execute(query, (number,)).fetchone()
    if row is not None:
        return _member(db, row)
    if not any(db.execute(f"SELECT 1 FROM {table} WHERE peer = ? LIMIT 1", (number,)).fetchone() for table in _WRITTEN):  # noqa: S608
        return None
    nothing = dict.fromkeys(Member.model_fields)
    return Member.model_validate({**nothing, "peer": number, "standing": "stranger", "roles": []})


def roles_of(roles: int) -> list[str]:
    """What a member may do, in words.

    >>> roles_of(3), roles_of(0)
    (['publishes', 'attests'], [])
    """
    return [words for role, words in _ROLES.items() if roles & role]


def site_peers(db: sqlite3.Connection, site: int) -> list[Member]:
    """The peers of a site, by number."""
    query = (
        f"SELECT p.peer, p.account, p.site, s.name AS site_name, p.roles, p.admitted, p.retired, p.retired_from, "  # noqa: S608
        f"p.reason, {STANDING} AS standing FROM peers p LEFT JOIN sites s ON s.site = p.site WHERE p.site = ? "
        "ORDER BY p.peer LIMIT ?"
    )
    return [_member(db, row) for row in db.execute(query, (site, _SITE_PEERS))]


def sites_of(db: sqlite3.Connection, peers: Iterable[int]) -> Mapping[int, tuple[int, str]]:
    """Site and its name of each of these peers that is a member."""
    query = (
        "SELECT p.peer, p.site, s.name FROM json_each(?) j CROSS JOIN peers p ON p.peer = j.value "
        "LEFT JOIN sites s ON s.site = p.site"
    )
    return {row[0]: (row[1], row[2] or "") for row in db.execute(query, (json.dumps(sorted(set(peers))),))}


def _member(db: sqlite3.Connection, row: sqlite3.Row) -> Member:
    told: dict[str, Any] = dict(row)
    return Member(
        **{**told, "roles": roles_of(told["roles"] or 0)},
        admitted_s=_time(db, told["admitted"]),
        retired_s=_time(db, told["retired"]),
    )


def _time(db: sqlite3.Connection, index: int | None) -> int | None:
    row = db.execute("SELECT time_s FROM entries WHERE idx = ?", (index,)).fetchone()
    return row[0] if row else None
