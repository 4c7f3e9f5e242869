"""Where a request came from: another site's page must not be able to have this machine do work."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Request

from ledger_ui.registry import PageError


def check_own_page(request: Request) -> None:
    """Refuse a POST that did not come from a page of this explorer.

    Browsers say so in ``Sec-Fetch-Site`` where the connection is trustworthy, and in ``Origin`` always. Who asks
    without a browser names this explorer as the origin.

    Raises:
        PageError: 403.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        own = site == "same-origin"
    else:
        own = origin is not None and _authority(origin) == request.host.lower()
    if not own:
        raise PageError(
            403,
            "Not from here",
            "This address does work when a page of this explorer asks for it. Open the page and press its button, or "
            f"send the header Origin: {request.scheme}://{request.host}",
        )


def check_not_another_site(request: Request) -> None:
    """Refuse a GET that another site's page makes, where answering is work.

    Raises:
        PageError: 403.
    """
    if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
        raise PageError(403, "Not from here", "Another site's page asked for this. Open it from the explorer's pages.")


def _authority(origin: str) -> str:
    """Host and port of an origin, as the Host header has them."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
