"""The federation itself: how it stands now, what its spec has peers do, and how it went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field

from fl_node.content.names import cid_of_genesis
from fl_node.records import LedgerOpened
from ledger_ui.contexts import Context, Digest, Frame
from ledger_ui.federation import Shown
from ledger_ui.pages.updates import SELECTED, SITES, UpdateRow, row_of
from ledger_ui.questions.activity import Activity, activity
from ledger_ui.questions.checkpoints import SignedCheckpoint, checkpoints
from ledger_ui.questions.exposure import Exposure, exposure
from ledger_ui.questions.logged import entry_at
from ledger_ui.questions.scores import Scores, scores
from ledger_ui.questions.strip import Strip, StripQuery, strip
from ledger_ui.questions.totals import Totals, totals
from ledger_ui.registry import Here, Page, add
from ledger_ui.respond import frame_of
from ledger_ui.urls import Urls
from ledger_ui.words import SpecWords, spec_words

_LATEST: Final = 10
#: Rounds times sites on the strip: the whole page is to stay below 300 kB.
_CELLS: Final = 1400
_LONGEST_TOML: Final = 16_000


class FederationQuery(StripQuery):
    """Which rounds the chart and the strip show."""


class Origin(Context):
    """Where the ledger is, and what it began with."""

    contract: str
    chain_id: int
    first_block: int = Field(description="block of the deployment")
    rpc: str = Field(description="endpoint that is asked, as scheme, host and port: what else is in it may be secret")
    owner: str | None = Field(description="who owned the contract when it was opened; none: that is not known here")
    genesis_cid: str | None = Field(description="content identifier of the genesis weights")
    genesis_weights: Digest | None = Field(description="digest of the genesis weights themselves")


class Predecessor(Context):
    """The ledger that this federation says it continues."""

    chain_id: int
    contract: str
    size: int
    root: str


class FederationPage(Context):
    """The overview of a federation."""

    totals: Totals
    planned_rounds: int
    exposure: Exposure
    spec: SpecWords
    spec_toml: str = Field(description="the spec as it was deployed, a stranger's text; a long one is cut")
    spec_cut: bool = Field(description="the spec is longer than what spec_toml has of it")
    scores: Scores
    activity: Activity
    strip: Strip
    latest: list[UpdateRow] = Field(description="the last updates, newest first")
    checkpoints: list[SignedCheckpoint] = Field(description="the latest of each signer")
    origin: Origin
    predecessor: Predecessor | None


def federation(here: Here, query: FederationQuery) -> FederationPage:
    """The overview."""
    db, spec = here.db, here.shown.spec
    url = here.urls.federation()
    known = totals(db, here.frame)
    toml = here.shown.federation.spec_bytes.decode("utf-8", "replace")
    before = spec.predecessor
    return FederationPage(
        totals=known,
        planned_rounds=spec.rounds.planned,
        exposure=exposure(db, spec),
        spec=spec_words(spec, known.peers_active + known.peers_retired),
        spec_toml=toml[:_LONGEST_TOML],
        spec_cut=len(toml) > _LONGEST_TOML,
        scores=scores(here, query.first, query.last, url),
        activity=activity(db, here.frame.size),
        strip=strip(here, query.first, query.last, page=query.sites, url=url, cells=_CELLS),
        latest=_latest(here),
        checkpoints=checkpoints(db),
        origin=_origin(here),
        predecessor=None if before is None else Predecessor.model_validate(before.model_dump()),
    )


def _latest(here: Here) -> list[UpdateRow]:
    query = f"SELECT {SELECTED} FROM updates u {SITES} ORDER BY u.idx DESC LIMIT ?"  # noqa: S608
    return [row_of(row) for row in here.db.execute(query, (_LATEST,))]


def _origin(here: Here) -> Origin:
    deployment = here.shown.deployment
    first = entry_at(here.db, 0) if here.frame.size else None
    opened = first.body if first is not None and isinstance(first.body, LedgerOpened) else None
    return Origin(
        contract=deployment.contract,
        chain_id=deployment.chain_id,
        first_block=deployment.first_block,
        rpc=endpoint(deployment.rpc),
        owner=opened.owner if opened else None,
        genesis_cid=str(cid_of_genesis(opened)) if opened else None,
        genesis_weights=opened.genesis_weights.hex() if opened else None,
    )


def endpoint(rpc: str) -> str:
    """No more of an endpoint than everybody may know.

    >>> endpoint("https://user:key@rpc.example:8545/v3/key")
    'https://rpc.example:8545'
    """
    try:
        parts = urlsplit(rpc)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}" if parts.scheme and host else ""


FEDERATION = add(
    Page(
        name="federation",
        rule="",
        summary="A federation now: its spec in words, scores, completeness, totals, checkpoints",
        context=FederationPage,
        template="federation.html",
        make=federation,
        query=FederationQuery,
    )
)


# ---- all federations -------------------------------------------------------------------------------------------------


class FederationCard(Context):
    """One federation of those that this explorer shows."""

    federation: Frame
    url: str
    totals: Totals


class IndexPage(Context):
    """The federations that this explorer shows."""

    federations: list[FederationCard]


def all_federations(federations: Mapping[str, Shown], root: str) -> IndexPage:
    """A card for each federation.

    Args:
        root: what a proxy puts before every address.
    """
    cards = []
    for one in federations.values():
        with one.store.reading() as db:
            frame = frame_of(one, db)
            url = Urls(root, one.slug).federation()
            cards.append(FederationCard(federation=frame, url=url, totals=totals(db, frame)))
    return IndexPage(federations=cards)
