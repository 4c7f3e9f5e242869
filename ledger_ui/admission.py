"""Whether a request may be answered at all: by which name it came, whether it knows the secret, how long it is."""

from __future__ import annotations

import re
import secrets
from base64 import b64decode
from binascii import Error as BadBase64
from typing import Final

from flask import Request

from ledger_ui.options import Options
from ledger_ui.registry import PageError
from ledger_ui.text import visible

#: Longest query string; the longest that a page of ours links to has some hundred characters.
MOST_QUERY: Final = 4096
_HOST: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+))(?::[0-9]{0,5})?")


class NotAdmitted(PageError):
    """A request that nothing is told to, not even which federations there are. ``headers``: what it is told besides."""

    def __init__(self, status: int, title: str, detail: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(status, title, detail)
        self.headers = headers


def admit(options: Options, request: Request) -> None:
    """Let a request through.

    Raises:
        NotAdmitted: 421 for a name that is not ours, 401 without the secret, 414 for a query that is too long.
    """
    if options.hosts and not _is_ours(request.host, options.hosts):
        allowed = ", ".join(options.hosts)
        told = f"Got host {visible(request.host)}; expected one of {allowed}: see --allow-host."
        raise NotAdmitted(421, "Not a name of this explorer", told)
    if options.secret and not _knows(request.headers.get("Authorization", ""), options.secret):
        challenges = ('Basic realm="ledger explorer", charset="UTF-8"', 'Bearer realm="ledger explorer"')
        raise NotAdmitted(
            *(401, "The secret is wanted", "Expected the explorer's secret: basic authentication, or a bearer token."),
            tuple(("WWW-Authenticate", one) for one in challenges),
        )
    if len(request.query_string) > MOST_QUERY:
        told = f"Got a query of {len(request.query_string):,} bytes; expected at most {MOST_QUERY:,}."
        raise NotAdmitted(414, "Too long a query", told)


def _is_ours(given: str, hosts: tuple[str, ...]) -> bool:
    parsed = _HOST.fullmatch(given)
    if parsed is None:
        return False
    name = (parsed[1] or parsed[2]).lower().removesuffix(".")
    return name in {host.lower().strip("[]") for host in hosts}


def _knows(header: str, secret: str) -> bool:
    kind, _, given = header.partition(" ")
    said = given.strip()
    if kind.lower() == "basic":
        try:
            said = b64decode(said, validate=True).decode()
        except (BadBase64, UnicodeDecodeError, ValueError):
            return False
        if ":" not in secret:  # a token: whoever the user calls themselves
            said = said.partition(":")[2]
    elif kind.lower() != "bearer":
        return False
    return secrets.compare_digest(said.encode("utf-8", "surrogateescape"), secret.encode())
