"""The graph around an update: what it came from and what came of it."""

from __future__ import annotations

import re
import shlex
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from markupsafe import Markup
from pydantic import Field

from fl_node.records import UpdateRef
from ledger_ui.contexts import Context, Query, Ref
from ledger_ui.provenance import building, words
from ledger_ui.provenance.choice import Choice, Wish, choose
from ledger_ui.provenance.drawing import draw
from ledger_ui.provenance.listing import Branch, by_round, indented
from ledger_ui.provenance.records import Collapse, Export, Kin, Merge, Node
from ledger_ui.provenance.walk import Walk
from ledger_ui.registry import Here, Page, PageError, add, not_here
from ledger_ui.text import visible
from ledger_ui.urls import dashed, undashed

#: Merges that a page follows, both ways together: quick, and as many as a federation of fifty peers and a hundred
#: rounds has. Of a thousand, some 1.5 ms.
NEAR: Final = 5_000
FAR: Final = 26_000
_MOST_NAMED: Final = 60


class ProvenanceQuery(Query):
    """How much of the graph is shown."""

    up: int | None = Field(
        None, ge=0, le=1_000_000, description="levels of ancestors; not given: as many as are easy to read"
    )
    down: int | None = Field(None, ge=0, le=1_000_000, description="levels of descendants, likewise")
    collapse: Collapse | None = Field(
        None,
        description="none: each update by itself; site: a node for each round and site; round: a node for each round; "
        "not given: as is easy to read",
    )
    open: str = Field(
        "",
        max_length=1500,
        pattern=r"^([0-9]{1,18}-[0-9]{1,18}(,[0-9]{1,18}-[0-9]{1,18})*)?$",
        description="updates whose parents (of ancestors) or children (of descendants) are drawn as well, such as "
        "3-12,4-11",
    )
    expand: str = Field(
        "",
        max_length=500,
        pattern=r"^([0-9]{1,10}(,[0-9]{1,10})*)?$",
        description="rounds whose updates are drawn each though others are put together, such as 7,8",
    )
    far: bool = Field(False, description="follow more merges: 26,000 instead of 5,000")


class RoundOf(Context):
    """One round of the graph."""

    round: int
    each: bool = Field(description="its updates are drawn one by one")
    toggle_url: str = Field(description="puts them together, or draws each; empty where nothing is put together")


class ProvenancePage(Context):
    """The graph around one update."""

    update: Ref
    entry: int = Field(description="entry index")
    peer: int
    site: int | None = Field(description="number of the site's first peer; none: its publisher is no member")
    site_name: str | None = Field(description="a stranger's text")
    round: int
    nominal: bool = Field(description="its own rule's shares only name the candidates")
    collapse: Collapse = Field(description="how updates are put together here")
    far: bool
    url: str = Field(description="address of just what is shown, whatever the log comes to")
    nodes: list[Node] = Field(description="by round, then site and peer")
    merges: list[Merge]
    rounds: list[RoundOf]
    above: Kin
    below: Kin
    notices: list[str] = Field(description="what was asked for and is not shown, and why")
    exports: list[Export]

    def drawing(self) -> Markup:
        """The graph as SVG."""
        urls = {one.round: one.toggle_url for one in self.rounds}
        return draw(self.nodes, self.merges, lambda number: urls.get(number, ""))

    def tree(self, side: str) -> list[Branch]:
        """One side as an indented list."""
        return indented(self.nodes, self.merges, self.key, side)

    def by_round(self, side: str) -> list[tuple[int | None, list[Node]]]:
        """One side by rounds."""
        return by_round(self.nodes, side)

    @property
    def key(self) -> str:
        return dashed(self.update)

    @property
    def root(self) -> Node:
        return next(node for node in self.nodes if node.side == "root")

    @property
    def words(self) -> Any:
        """Nodes in words."""
        return words


def provenance(here: Here, query: ProvenanceQuery, ref: str) -> ProvenancePage:
    """The graph around an update, as far as merges are followed for one page."""
    named = _parsed(ref)
    row = here.db.execute(
        "SELECT u.idx, u.peer, u.sequence, u.site, s.name, u.round FROM updates u LEFT JOIN sites s ON s.site = u.site "
        "WHERE u.peer = ? AND u.sequence = ?",
        (named.peer, named.sequence),
    ).fetchone()
    if row is None:
        raise not_here(f"update {named}", here.frame)
    above, below = _followed(here.db, row["idx"], FAR if query.far else NEAR)
    opened = _opened(here.db, query.open)
    expanded = tuple(dict.fromkeys(int(number) for number in query.expand.split(",") if number))[:_MOST_NAMED]
    wish = Wish(query.up, query.down, query.collapse, frozenset(opened.values()), expanded)
    choice = choose(above, below, wish)
    toggles = _Addresses(here, named, query, choice, tuple(opened))
    nodes = building.nodes(
        here.db, above, below, choice, wish.opened, building.Toggles(toggles.of_update, toggles.of_round)
    )
    return ProvenancePage(
        update=str(named),
        entry=row["idx"],
        peer=row["peer"],
        site=row["site"],
        site_name=row["name"],
        round=row["round"],
        nominal=bool(above.nominal.intersection(one for _, one, _ in above.links.get(above.root, ()))),
        collapse=choice.collapse,
        far=query.far,
        url=toggles.of_this(),
        nodes=nodes,
        merges=building.merges(choice),
        rounds=toggles.rounds(nodes),
        above=building.kin(here.db, above, choice),
        below=building.kin(here.db, below, choice),
        notices=list(choice.notices),
        exports=_exports(here, named, row["name"]),
    )


def _parsed(ref: str) -> UpdateRef:
    found = undashed(ref)
    if found is None:
        raise PageError(404, "No such update", f"Got {visible(ref)}; expected peer and sequence, such as 3-12.")
    return found


def _followed(db: sqlite3.Connection, root: int, most: int) -> tuple[Walk, Walk]:
    """Both ways, each half of it, and what one leaves goes to the other."""
    above, below = Walk(db, root, upward=True), Walk(db, root, upward=False)
    above.go(most // 2)
    below.go(most - above.looked)
    if above.waiting:
        above.go(most - above.looked - below.looked)
    return above, below


def _opened(db: sqlite3.Connection, text: str) -> dict[str, int]:
    """The updates of the address that there are: their names, as the address has them, and their entries."""
    found = {}
    for name in list(dict.fromkeys(text.split(",")))[:_MOST_NAMED] if text else ():
        peer, _, sequence = name.partition("-")
        row = db.execute(
            "SELECT idx FROM updates WHERE peer = ? AND sequence = ?", (int(peer), int(sequence))
        ).fetchone()
        if row is not None:
            found[name] = row["idx"]
    return found


class _Addresses:
    """This page with a little more or less in it. What is shown now is named, so that the rest stays as it is."""

    def __init__(
        self, here: Here, ref: UpdateRef, query: ProvenanceQuery, choice: Choice, opened: tuple[str, ...]
    ) -> None:
        self._here, self._ref, self._choice, self._opened = here, ref, choice, opened
        self._told = {
            "up": choice.levels[0],
            "down": choice.levels[1],
            "collapse": choice.collapse,
            "far": "true" if query.far else None,
        }

    def of_this(self) -> str:
        return self._address(self._opened, self._choice.expanded)

    def of_update(self, name: str) -> str:
        one = dashed(name)
        opened = [known for known in self._opened if known != one]
        if one not in self._opened:
            opened.append(one)
        return self._address(opened, self._choice.expanded)

    def of_round(self, number: int) -> str:
        expanded = [known for known in self._choice.expanded if known != number]
        if number not in self._choice.expanded:
            expanded.append(number)
        return self._address(self._opened, expanded)

    def rounds(self, nodes: Sequence[Node]) -> list[RoundOf]:
        together = {node.round for node in nodes if node.kind == "group"}
        each = set(self._choice.expanded)
        return [
            RoundOf(
                round=number,
                each=number not in together,
                toggle_url=self.of_round(number) if number in together or number in each else "",
            )
            for number in sorted({node.round for node in nodes if node.round is not None})
        ]

    def _address(self, opened: Sequence[str], expanded: Sequence[int]) -> str:
        return self._here.urls.provenance(
            self._ref, **self._told, open=",".join(opened), expand=",".join(map(str, expanded))
        )


def _exports(here: Here, ref: UpdateRef, site: str | None) -> list[Export]:
    command = re.sub(r"\s+", " ", f"fl-node lineage --federation {shlex.quote(here.shown.source.file.name)}")
    this = shlex.quote(str(ref))
    found = [
        Export(words="an indented list, with exact shares over everything", command=f"{command} {this}"),
        Export(words="a picture", command=f"{command} {this} --levels 4 --format svg --out lineage.svg"),
        Export(words="a graph for Graphviz", command=f"{command} {this} --format dot --out lineage.dot"),
        Export(words="W3C PROV as JSON", command=f"{command} {this} --format prov --out lineage.prov.json"),
    ]
    if site:
        what = "what came of all updates of its site: what is tainted if the site withdraws"
        found.append(Export(words=what, command=f"{command} --site {shlex.quote(site)}"))
    return found


PROVENANCE = add(
    Page(
        name="provenance",
        rule="/updates/<ref>/provenance",
        summary="The graph around an update: what it came from and what came of it, with effective shares",
        context=ProvenancePage,
        template="provenance.html",
        make=provenance,
        query=ProvenanceQuery,
        path={"ref": "an update, as peer number - sequence, such as 3-12"},
    )
)
