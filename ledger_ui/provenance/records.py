"""What the provenance page shows, as records: nodes and merges of the graph, and each site's part."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ledger_ui.contexts import Context, Ref

Side = Literal["above", "root", "below"]
Collapse = Literal["none", "site", "round"]


class Node(Context):
    """One update in the graph, or several of one round, or the genesis."""

    key: str = Field(description="names it in this graph")
    kind: str = Field(description="update, group or genesis")
    side: Side = Field(description="above: an ancestor; below: a descendant")
    updates: int = Field(description="how many it stands for; 0: the genesis")
    round: int | None = Field(description="none: the genesis")
    site: int | None = Field(None, description="number of the site's first peer; none: no member, or of several sites")
    site_name: str | None = Field(None, description="a stranger's text")
    sites: int = Field(description="of how many sites its updates are")
    peer: int | None = Field(None, description="none: of several updates")
    update: Ref | None = Field(None, description="none: of several updates")
    entry: int | None = Field(None, description="entry index; none: of several updates")
    steps: int = Field(description="merges between it and this update, by the shortest way; of several, of the nearest")
    share: float = Field(
        description="effective share, 0 to 1: of an ancestor in this update, or of this update in a descendant; of "
        "several, the largest"
    )
    share_sum: float | None = Field(
        None,
        description="of several ancestors, the share of starting points that came through any of them; none: not told "
        "apart here, or descendants",
    )
    at_least: bool = Field(False, description="beyond where merges were followed: the share is this or more")
    nominal: bool = Field(
        False, description="a way between the two goes through a rule whose shares only name candidates"
    )
    final: bool = Field(False, description="a closing update: untrained, its weights are its base")
    withdrawn: bool = Field(False, description="by its publisher")
    ignored: bool = Field(False, description="it does not count: its publisher was retired from before it")
    state: str | None = Field(
        None, description="merged, submitted, left-out, closing or ignored; none: of several updates"
    )
    claimed_ppm: int | None = Field(None, description="the publisher's claim; none: of several updates")
    test_samples: int | None = Field(None, description="rows that the claim is said to be measured on")
    attested_ppm: int | None = Field(None, description="median over other sites of what they attest; none: nobody has")
    attested_sites: int | None = None
    relatives: int = Field(0, description="of an ancestor, its parents with a share; of a descendant, its children")
    hidden: int = Field(0, description="those of them that are not drawn")
    opened: bool = Field(False, description="they are drawn because the address asks for it")
    toggle_url: str = Field("", description="draws what is hidden behind it, or hides it again; empty: nothing to draw")


class Merge(Context):
    """Merges between two nodes: what one gave to the other."""

    parent: str = Field(description="key of a node")
    child: str = Field(description="key of a node")
    merges: int = Field(description="how many, between their updates")
    share_ppm: int = Field(description="recorded share, parts per million; of several, the mean over the child's")
    nominal: bool = Field(description="the rule's shares only name candidates")


class SitePart(Context):
    """What one site has to do with this update, over all that was followed."""

    site: int | None = Field(description="number of the site's first peer; none: no member")
    site_name: str | None = Field(description="a stranger's text")
    direct_ppm: int = Field(
        description="of ancestors, the sum of the shares with which this update merged the site's; of descendants, the "
        "largest share that one of the site's updates gave to this one; 0: none directly"
    )
    updates: int
    first_round: int
    last_round: int
    largest: float = Field(description="largest effective share among them")
    nominal: bool
    at_least: bool = Field(description="some of it lies beyond where merges were followed")
    latest: float | None = Field(
        description="of descendants, the effective share in the site's latest update; none: it has gone on without, "
        "or its latest lies beyond where merges were followed (latest_known is false)"
    )
    latest_known: bool


class Kin(Context):
    """All ancestors, or all descendants, as far as they were followed."""

    updates: int = Field(description="that were reached")
    listed: int = Field(description="that the graph and the list hold, by themselves or among several")
    levels: int = Field(description="steps to the farthest of them")
    shown_levels: int = Field(description="steps within which all are in the graph")
    sites: list[SitePart] = Field(description="those with the largest effective shares first")
    sites_total: int
    cut: bool = Field(description="not all merges were followed")
    cut_entry: int | None = Field(description="followed up to this entry; none: to the end")
    cut_round: int | None
    beyond: float = Field(description="of ancestors, the share of starting points that lies beyond the cut, 0 to 1")
    genesis: float | None = Field(description="share of starting points at the genesis; none: of descendants")
    genesis_steps: int = Field(description="fewest merges between the genesis and this update; 0: not reached")
    unsound: bool = Field(description="some parents are not in the log before their child; never in a sound log")
    lost: float = Field(description="effective share of such parents, 0 to 1")
    merges: int = Field(description="merges that were looked at")


class Export(Context):
    """A command that gives all of it, exactly."""

    words: str
    command: str
