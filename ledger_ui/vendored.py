"""Libraries by others that pages load, as they lie below ``static/vendor``; ``scripts/vendor_ui.py`` fetches them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from pydantic import Field

from ledger_ui.contexts import Context, Digest

FOLDER: Final = Path(__file__).parent / "static" / "vendor"


class Vendored(Context):
    """One library."""

    name: str
    version: str
    licence: str = Field(description="SPDX identifier")
    licence_file: str = Field(description="its licence text, beside it")
    licence_sha256: Digest
    source: str = Field(description="the package that it was taken from")
    integrity: str = Field(description="npm's digest of that package")
    file: str
    from_: str = Field(alias="from", description="the file's place in the package")
    bytes: int
    sha256: Digest


def vendored() -> tuple[Vendored, ...]:
    """All of them, in the order in which pages load them: each needs those before it."""
    told = json.loads((FOLDER / "VENDOR.json").read_text("utf-8"))
    return tuple(Vendored.model_validate(one) for one in told["packages"])
