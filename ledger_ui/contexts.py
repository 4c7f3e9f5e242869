"""What pages are made of: one documented record for each, which is also its JSON."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Hex = Annotated[str, Field(pattern="^[0-9a-f]*$")]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="32 bytes in hexadecimal")]
Ref = Annotated[str, Field(pattern="^[0-9]+#[0-9]+$", description="an update, as peer number # sequence")]


class Context(BaseModel):
    """Base of every record that a page shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Frame(Context):
    """The federation that a page is of, and how this explorer stands to its chain."""

    slug: str = Field(description="its part of every address here")
    name: str = Field(description="as its spec calls it; a stranger's text")
    chain_id: int
    contract: str
    spec_digest: Digest
    size: int = Field(description="entries that these pages show")
    root: Digest | None = Field(description="Merkle root of the log at that size; none while the index is being made")
    state: str = Field(
        description="starting, catching-up, following, chain-down, inconsistent, refused, or elsewhere (another "
        "process keeps this index)"
    )
    detail: str = Field(description="why, in words; empty while all is well")
    since_s: float = Field(description="local time at which that state began, seconds since 1970")
    block: int | None = Field(description="number of the last block looked at")
    behind: int = Field(description="entries in the index that the pages do not show yet")
    encrypts: bool = Field(description="its spec asks for updates to be encrypted")
    scores: Literal["exact", "coarse", "withheld"] = Field(
        description="how peers tell scores: as measured; rounded for privacy; or not at all, as zero"
    )
    scores_words: str = Field(description="what that means; empty where they are exact")


class Link(Context):
    """A page to go to."""

    words: str
    url: str


class Paging(Context):
    """Where a list stands."""

    total: int | None = Field(description="rows that match; none where counting them would take long")
    limit: int
    first_url: str | None = Field(description="the first page; none on it")
    next_url: str | None = Field(description="the next page; none on the last")


class Query(BaseModel):
    """Base of what a page may be asked. Unknown parameters are refused, with the known ones named."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NoQuery(Query):
    """Nothing may be asked."""
