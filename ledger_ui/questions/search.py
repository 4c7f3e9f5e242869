"""What a reader may mean by what they typed, looked up by index only."""

from __future__ import annotations

import difflib
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from pydantic import Field

from fl_node.content.cid import Cid
from fl_node.content.names import cid_of_genesis
from fl_node.errors import UsageError
from fl_node.ledger.abi import checksum_address
from fl_node.records import LedgerOpened, UpdateRef
from ledger_ui.contexts import Context, Link
from ledger_ui.questions.digests import Named, by_digest, by_start
from ledger_ui.questions.facts import KINDS
from ledger_ui.questions.logged import entry_at
from ledger_ui.questions.orphans import dropped
from ledger_ui.registry import Here

#: Names that are looked through for a part of one.
_MOST_NAMES: Final = 20_000
_MOST_ALIKE: Final = 500
MOST_HITS: Final = 50
_MOST_NUMBER: Final = 2**62

_WORD: Final = re.compile(
    r"(peer|site|round|entry|block|update|tx|transaction|address|account|cid|digest|leaf|root)(?:[\s:#]+|(?=[0-9]))(.+)",
    re.I,
)
_LINK: Final = re.compile(r"(?:ipfs://|(?:https?://[^/\s]+)?/ipfs/)([A-Za-z0-9]{46,59})(?:[/?].*)?")
_REF: Final = re.compile(r"#?([0-9]{1,18})\s*[#/-]\s*([0-9]{1,18})")
_NUMBER: Final = re.compile(r"[0-9]{1,19}")
_HEX: Final = re.compile(r"(0x)?([0-9a-f]+)", re.I)
_SHORT: Final = re.compile(r"(?:0x)?([0-9a-f]{4,40})(?:…|\.{2,3})([0-9a-f]{3,40})", re.I)
_CID_V1: Final = re.compile(r"[bB][a-zA-Z2-7]{58}")
_CID_V0: Final = re.compile(r"Qm[1-9A-HJ-NP-Za-km-z]{44}")
_ENS: Final = re.compile(r"[^\s/]+\.eth", re.I)
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
#: Least digits of a digest or address that are looked up as its start.
_LEAST_START: Final = 6


class Hit(Context):
    """One thing that was found."""

    kind: str = Field(description="update, peer, site, round, entry, block, transaction, federation or content")
    words: str = Field(description="what it is to what was asked; may hold a stranger's text")
    url: str


class Found(Context):
    """All that was found."""

    understood: list[str] = Field(description="what it may be, in words")
    hits: list[Hit]
    unique: str | None = Field(description="address of the only thing that it can be; none: there is none, or several")
    suggestions: list[Link]


@dataclass(slots=True)
class _Search:
    """One search under way."""

    here: Here
    understood: list[str] = field(default_factory=list)
    hits: dict[str, Hit] = field(default_factory=dict)
    suggestions: list[Link] = field(default_factory=list)

    @property
    def db(self) -> sqlite3.Connection:
        return self.here.db

    def hit(self, kind: str, words: str, url: str) -> None:
        if len(self.hits) < MOST_HITS:
            self.hits.setdefault(url, Hit(kind=kind, words=words, url=url))

    def named(self, found: list[Named]) -> None:
        for one in found:
            self.hit(one.kind, one.words, one.url)


def find(here: Here, asked: str) -> Found:
    """Look up what was typed."""
    search = _Search(here)
    text = asked.strip().strip("\"'`<>()[]{},;").strip()
    link = _LINK.fullmatch(text)
    if text:
        _site_of_name(search, asked.strip(), text)
        _look(search, text if link is None else link[1])
        if not search.hits:
            _suggest(search, text)
    hits = list(search.hits.values())
    unique = hits[0].url if len(hits) == 1 else None
    return Found(understood=search.understood, hits=hits, unique=unique, suggestions=search.suggestions)


def _look(search: _Search, text: str) -> None:
    word = _WORD.fullmatch(text)
    if word is not None and _by_word(search, word[1].lower(), word[2].strip()):
        return
    for pattern, look in _FORMS:
        found = pattern.fullmatch(text)
        if found is not None:
            look(search, found)
    for kind in KINDS:
        if kind.lower() == text.lower():
            search.understood.append("a kind of entry")
            search.hit("entry", f"entries of the kind {kind}", search.here.urls.entries(kind=kind))
    if not search.hits:
        _sites_like(search, text)


def _by_word(search: _Search, word: str, rest: str) -> bool:
    """A kind said in so many words: ``round 4``. Whether it was understood."""
    if word == "site" and not _NUMBER.fullmatch(rest):
        _site_of_name(search, rest)
        if not search.hits:
            _sites_like(search, rest)
        return True
    look = {"peer": _peer, "round": _round, "entry": _entry, "block": _block, "site": _site_number}.get(word)
    if look is not None:
        if _NUMBER.fullmatch(rest) is None or int(rest) > _MOST_NUMBER:
            return False
        search.understood.append(f"{word} {int(rest)}")
        look(search, int(rest))
        return True
    before = len(search.understood)
    for pattern, form in _FORMS:
        found = pattern.fullmatch(rest)
        if found is not None:
            form(search, found)
    return len(search.understood) > before


# ---- by form ------------------------------------------------------------------------------------------------------


def _ref(search: _Search, found: re.Match[str]) -> None:
    ref = UpdateRef(int(found[1]), int(found[2]))
    search.understood.append(f"an update: number {ref.sequence} of peer {ref.peer}")
    row = search.db.execute(
        "SELECT idx FROM updates WHERE peer = ? AND sequence = ?", (ref.peer, ref.sequence)
    ).fetchone()
    if row is not None:
        search.hit("update", f"update {ref}, entry {row[0]}", search.here.urls.update(ref))


def _number(search: _Search, found: re.Match[str]) -> None:
    number = int(found[0])
    search.understood.append(f"a number: it may be peer, round, entry or block {number}")
    if number <= _MOST_NUMBER:
        for look in (_peer, _round, _entry, _block):
            look(search, number)


def _peer(search: _Search, number: int) -> None:
    row = search.db.execute(
        "SELECT s.name FROM peers p LEFT JOIN sites s ON s.site = p.site WHERE p.peer = ?", (number,)
    ).fetchone()
    if row is not None:
        search.hit("peer", f"peer {number} of {row[0] or 'a site without a name'}", search.here.urls.peer(number))


def _site_number(search: _Search, number: int) -> None:
    row = search.db.execute("SELECT name FROM sites WHERE site = ?", (number,)).fetchone()
    if row is not None:
        search.hit("site", f"site {row[0] or 'without a name'}", search.here.urls.site(number))


def _round(search: _Search, number: int) -> None:
    if search.db.execute("SELECT 1 FROM updates WHERE round = ? LIMIT 1", (number,)).fetchone():
        search.hit("round", f"round {number}", search.here.urls.round(number))


def _entry(search: _Search, number: int) -> None:
    if number < search.here.frame.size:
        row = search.db.execute("SELECT kind FROM entries WHERE idx = ?", (number,)).fetchone()
        search.hit("entry", f"entry {number}: {KINDS[row[0]]}", search.here.urls.entry(number))


def _block(search: _Search, number: int) -> None:
    many = search.db.execute(
        "SELECT count(*) FROM (SELECT 1 FROM entries WHERE block = ? LIMIT 1000)", (number,)
    ).fetchone()[0]
    if many:
        told = f"block {number}, with {many} {'entry' if many == 1 else 'entries'}"
        search.hit("block", told, search.here.urls.entries(block=number))


def _hex(search: _Search, found: re.Match[str]) -> None:
    digits = found[2].lower()
    if len(digits) == 64:
        search.understood.append("32 bytes: a digest, a root, a leaf, or the hash of a transaction")
        search.named(by_digest(search.here, bytes.fromhex(digits)))
    elif len(digits) == 40:
        search.understood.append("an address")
        _address(search, bytes.fromhex(digits))
    elif len(digits) == 72:
        _binary_cid(search, bytes.fromhex(digits))
    elif _LEAST_START <= len(digits) < 64 and not search.hits:  # it may be a number that there is
        search.understood.append("the start of a digest, a hash or an address")
        search.named(by_start(search.here, digits))


def _short(search: _Search, found: re.Match[str]) -> None:
    search.understood.append("a digest, hash or address with its middle left out")
    search.named(by_start(search.here, found[1].lower(), found[2].lower()))


def _address(search: _Search, raw: bytes) -> None:
    account = checksum_address(raw)
    row = search.db.execute(
        "SELECT p.peer, s.name FROM peers p LEFT JOIN sites s ON s.site = p.site WHERE p.account = ?", (account,)
    ).fetchone()
    if row is not None:
        told = f"account of peer {row[0]} of {row[1] or 'a site without a name'}"
        search.hit("peer", told, search.here.urls.peer(row[0]))
    if search.here.frame.contract.lower() == account.lower():
        search.hit("federation", "the ledger’s contract", search.here.urls.federation())
    opened = entry_at(search.db, 0)
    if opened is not None and isinstance(opened.body, LedgerOpened) and opened.body.owner == account:
        search.hit("entry", "the owner with whom the ledger was opened", search.here.urls.entry(0))


def _cid_v1(search: _Search, found: re.Match[str]) -> None:
    try:
        cid = Cid.parse(found[0].lower())
    except UsageError:
        search.understood.append("a CID of a kind that no ledger of this software names")
        return
    _cid(search, cid, "a CID")


def _cid_v0(search: _Search, found: re.Match[str]) -> None:
    number = 0
    for letter in found[0]:
        number = number * 58 + _BASE58.index(letter)
    raw = number.to_bytes(35, "big")[1:]
    if raw[:2] == b"\x12\x20":
        _cid(search, Cid("dag-pb", raw[2:]), "an old CID, which names the same as")


def _binary_cid(search: _Search, raw: bytes) -> None:
    try:
        _cid(search, Cid.decode(raw), "a CID in binary:")
    except UsageError:
        search.understood.append("36 bytes that are no CID of ours")


def _cid(search: _Search, cid: Cid, words: str) -> None:
    search.understood.append(words if words == "a CID" else f"{words} {cid}")
    opened = entry_at(search.db, 0)
    if opened is not None and isinstance(opened.body, LedgerOpened) and cid_of_genesis(opened.body) == cid:
        search.hit("entry", "the CID of the genesis weights", search.here.urls.entry(0))
    search.named(by_digest(search.here, cid.digest, named=cid))


def _ens(search: _Search, found: re.Match[str]) -> None:
    search.understood.append(
        "a name of the Ethereum Name Service: this explorer asks nobody for names, so look for the address behind it"
    )


_FORMS: Final[tuple[tuple[re.Pattern[str], Callable[[_Search, re.Match[str]], None]], ...]] = (
    (_REF, _ref),
    (_NUMBER, _number),
    (_CID_V1, _cid_v1),
    (_CID_V0, _cid_v0),
    (_HEX, _hex),
    (_SHORT, _short),
    (_ENS, _ens),
)


# ---- by name ------------------------------------------------------------------------------------------------------


def _site_of_name(search: _Search, *names: str) -> None:
    """The site of one of these very names: names may look like anything else."""
    for name in names:
        row = search.db.execute("SELECT site, name FROM sites WHERE name = ?", (name,)).fetchone()
        if row is not None:
            search.understood.append("a site’s name")
            search.hit("site", f"site {row[1]}", search.here.urls.site(row[0]))
            return


def _sites_like(search: _Search, text: str) -> None:
    """Sites that have it in their names."""
    wanted = text.casefold()
    found = [(site, name) for site, name in _names(search.db) if wanted in name.casefold()]
    if found:
        search.understood.append("part of a site’s name")
    for site, name in found[:MOST_HITS]:
        search.hit("site", f"site {name}", search.here.urls.site(site))


def _names(db: sqlite3.Connection, most: int = _MOST_NAMES) -> Iterator[tuple[int, str]]:
    for row in db.execute("SELECT site, name FROM sites ORDER BY site LIMIT ?", (most,)):
        yield row[0], row[1] or ""


def _suggest(search: _Search, text: str) -> None:
    """Something near to what cannot be found."""
    here = search.here
    gone = dropped(search.db, text)
    if gone is not None:
        told = f"entry {gone.entry} of block {gone.block}, which a reorganisation of the chain dropped: {gone.words}"
        search.suggestions.append(Link(words=told, url=here.urls.entries()))
    ref = _REF.search(text)
    if ref is not None:
        last = search.db.execute("SELECT max(sequence) FROM updates WHERE peer = ?", (int(ref[1]),)).fetchone()[0]
        if last is not None:
            name = UpdateRef(int(ref[1]), last)
            search.suggestions.append(
                Link(words=f"{name}, the last update of peer {name.peer}", url=here.urls.update(name))
            )
    names = {name.casefold(): site for site, name in _names(search.db, _MOST_ALIKE) if name}
    word = _WORD.fullmatch(text)
    wanted = (word[2] if word is not None else text).casefold()
    for name in difflib.get_close_matches(wanted[:64], names, n=3, cutoff=0.6):
        search.suggestions.append(Link(words=f"site {name}", url=here.urls.site(names[name])))
    number = re.fullmatch(r"(?:entry[\s#:]*)?([0-9]{1,18})", text, re.I)
    if number is not None and here.frame.size and int(number[1]) >= here.frame.size:
        search.suggestions.append(
            Link(words=f"entry {here.frame.size - 1}, the last one", url=here.urls.entry(here.frame.size - 1))
        )
    if not search.understood:
        search.understood.append("nothing that this explorer knows the form of, nor part of a site’s name")
