"""Every address of the explorer, built in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from fl_node.records import UpdateRef


@dataclass(frozen=True, slots=True)
class Urls:
    """Addresses of one federation's pages. ``root``: what a proxy puts before all of them."""

    root: str
    slug: str

    def index(self) -> str:
        return f"{self.root}/"

    def api(self) -> str:
        return f"{self.root}/api"

    def openapi(self) -> str:
        return f"{self.root}/openapi.json"

    def about(self) -> str:
        return f"{self.root}/about"

    def static(self, name: str, version: str = "") -> str:
        return f"{self.root}/static/{name}" + (f"?v={version}" if version else "")

    def federation(self) -> str:
        return f"{self.root}/{self.slug}"

    def updates(self, **query: object) -> str:
        return self._of("updates", query)

    def update(self, ref: UpdateRef | str) -> str:
        return self._of(f"updates/{dashed(ref)}")

    def verify(self, ref: UpdateRef | str | None = None) -> str:
        """To POST to: of one update, or of the whole log."""
        return self._of("audit/verify" if ref is None else f"updates/{dashed(ref)}/verify")

    def provenance(self, ref: UpdateRef | str, **query: object) -> str:
        return self._of(f"updates/{dashed(ref)}/provenance", query)

    def entries(self, **query: object) -> str:
        return self._of("entries", query)

    def entry(self, index: int) -> str:
        return self._of(f"entries/{index}")

    def peers(self, **query: object) -> str:
        return self._of("peers", query)

    def peer(self, number: int) -> str:
        return self._of(f"peers/{number}")

    def sites(self, **query: object) -> str:
        return self._of("sites", query)

    def site(self, number: int) -> str:
        """A site by the number of its first peer."""
        return self._of(f"sites/{number}")

    def rounds(self, **query: object) -> str:
        return self._of("rounds", query)

    def round(self, number: int) -> str:
        return self._of(f"rounds/{number}")

    def trust(self, **query: object) -> str:
        return self._of("trust", query)

    def search(self, **query: object) -> str:
        return self._of("search", query)

    def audit(self, **query: object) -> str:
        return self._of("audit", query)

    def pack(self, **query: object) -> str:
        return self._of("audit/pack.zip", query)

    def health(self) -> str:
        return self._of("health")

    def live(self) -> str:
        return self._of("live")

    def content(self, cid: str, format: str = "") -> str:
        """Bytes by CID, through the bounded content client; ``format``: ``raw`` (the file), ``car``."""
        return self._of(f"content/{quote(cid, safe='')}", {"format": format or None})

    def _of(self, path: str, query: Mapping[str, object] | None = None) -> str:
        return f"{self.root}/{self.slug}/{path}" + asked(query or {})


def dashed(ref: UpdateRef | str) -> str:
    """An update's name in an address, where ``#`` has another meaning.

    >>> dashed("3#12")
    '3-12'
    """
    return str(ref).replace("#", "-")


def undashed(text: str) -> UpdateRef | None:
    """The update that a part of an address names; ``None`` where it names none, or in another spelling than ours.

    >>> undashed("3-12"), undashed("3-012"), undashed("3")
    (UpdateRef(peer=3, sequence=12), None, None)
    """
    ref = UpdateRef.parse(text.replace("-", "#", 1))
    return ref if ref is not None and dashed(ref) == text else None


def asked(query: Mapping[str, object]) -> str:
    """A query string of what is given; what is ``None`` or empty is left out.

    >>> asked({"site": "a&b", "round": 3, "kind": None})
    '?site=a%26b&round=3'
    """
    given = {key: str(value) for key, value in query.items() if value is not None and value != ""}
    return f"?{urlencode(given)}" if given else ""


def as_format(url: str, suffix: str) -> str:
    """The same page as ``json``, ``csv`` or ``jsonl``.

    >>> as_format("/a/updates?round=3", "csv")
    '/a/updates.csv?round=3'
    """
    path, _, query = url.partition("?")
    return f"{path.rstrip('/')}.{suffix}" + (f"?{query}" if query else "")
