"""What an entry says, field by field, each with what it means; for entries of every kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from pydantic import Field

from fl_node.content.cid import Cid
from fl_node.content.names import cid_of_genesis, cid_of_update
from fl_node.merging.encodings import name_of
from fl_node.readers import valid_key
from fl_node.records import (
    ZERO32,
    Attestation,
    Entry,
    Flag,
    LedgerOpened,
    OwnerChanged,
    Parent,
    PeerAdmitted,
    PeerAnnounced,
    PeerRetired,
    Reason,
    Role,
    UnknownEntry,
    UpdateObjected,
    UpdatePublished,
    UpdateRef,
    UpdatesAttested,
    rule_name,
)
from fl_node.sealing.keytext import recipient_text
from ledger_ui.contexts import Context
from ledger_ui.questions.carried import since, words_of
from ledger_ui.text import percent, short, utc
from ledger_ui.urls import Urls

#: Items of one list that are told; a contract takes 64.
MOST_ITEMS: Final = 64
#: What each kind of entry is, for people.
KINDS: Final = {
    "LedgerOpened": "the ledger was opened",
    "OwnerChanged": "the ledger's owner changed",
    "PeerAdmitted": "a peer was admitted",
    "PeerRetired": "a peer was retired",
    "PeerAnnounced": "a peer said where it serves content",
    "UpdatePublished": "a peer published an update",
    "UpdatesAttested": "a peer attested updates of others",
    "UpdateObjected": "a peer objected to an update",
    "UnknownEntry": "of a kind that this version does not know",
}
REASONS: Final = {
    Reason.UNAVAILABLE: "its bytes could not be had",
    Reason.MALFORMED: "its bytes are no weights of this model",
    Reason.DIGEST_MISMATCH: "its weights are not those committed to",
    Reason.WITHDRAWN: "withdrawn by its publisher",
}


class Fact(Context):
    """One field of an entry."""

    name: str
    value: str = Field(description="as people read it; may be a stranger's text")
    meaning: str
    url: str | None = Field(None, description="the page of what it names")
    copied: bool = Field(False, description="a hash or address, worth copying")


def flag_names(flags: int) -> list[str]:
    """The bits of an update's flags, by name; those without one by number."""
    known = {Flag.DAG_PB: "dag-pb", Flag.ENCRYPTED: "encrypted", Flag.FINAL: "final"}
    found = [name for flag, name in known.items() if flags & flag]
    return found + [f"bit {bit}" for bit in range(3, 8) if flags >> bit & 1]


def role_names(roles: int) -> str:
    known = {Role.PUBLISH: "publish", Role.ATTEST: "attest", Role.READ: "read"}
    found = [name for role, name in known.items() if roles & role]
    return ", ".join(found + [f"bit {bit}" for bit in range(3, 8) if roles >> bit & 1]) or "none"


def facts_of(entry: Entry, urls: Urls) -> list[Fact]:
    """All that an entry says."""
    teller = _TELLERS.get(type(entry.body))
    said = [] if teller is None else list(teller(entry.body, urls))
    when = Fact(name="time", value=utc(entry.time_s), meaning="time of its block, as the chain's operator set it")
    return [*said, when]


def summary_of(entry: Entry) -> str:
    """An entry in one line; may hold a stranger's text."""
    match entry.body:
        case LedgerOpened() as body:
            return f"chain {body.chain_id}, contract {body.ledger}, owner {body.owner}"
        case OwnerChanged() as body:
            return f"from {body.previous} to {body.current}"
        case PeerAdmitted() as body:
            return f"peer {body.peer} of {body.site or 'a site without a name'}, may {role_names(body.roles)}"
        case PeerRetired() as body:
            return f"peer {body.peer} from entry {body.from_index} on: {body.reason or 'no reason given'}"
        case PeerAnnounced() as body:
            return f"peer {body.peer}, announcement {body.epoch}: {body.endpoint or 'it serves none'}"
        case UpdatePublished() as body:
            merged = sum(1 for parent in body.parents if parent.share_ppm)
            origin = "the genesis" if not body.parents else f"{merged} update{'' if merged == 1 else 's'}"
            claim = percent(body.update.score_ppm)
            return f"{body.ref} of round {body.update.round}, claims {claim}, made from {origin}"
        case UpdatesAttested() as body:
            items = [f"{item.peer}#{item.sequence} {percent(item.score_ppm)}" for item in body.items]
            return f"peer {body.peer} measured {_listed(items)}"
        case UpdateObjected() as body:
            return f"peer {body.peer} of {body.target}: {REASONS[body.reason]}"
        case UnknownEntry() as body:
            return f"topic {short(body.topic.hex())}, {len(entry.data):,} bytes of data"
    return ""


def _listed(words: list[str]) -> str:
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


# ---- by kind ----------------------------------------------------------------------------------------------------


def _opened(body: LedgerOpened, urls: Urls) -> Iterator[Fact]:
    yield Fact(name="chain", value=str(body.chain_id), meaning="chain that the ledger was deployed on")
    yield Fact(name="contract", value=body.ledger, meaning="address of the ledger", copied=True)
    yield _digest("spec digest", body.spec_digest, "SHA-256 of the spec's bytes")
    yield _digest("genesis content", body.genesis_content, "digest inside the CID of the initial weights")
    yield _cid("genesis CID", cid_of_genesis(body), "names the bytes of the initial weights", urls)
    yield _digest("genesis weights", body.genesis_weights, "digest of the initial tensors")
    yield Fact(name="genesis flags", value=_words(flag_names(body.genesis_flags)), meaning="how its CID is coded")
    yield Fact(
        name="least seconds",
        value=str(body.min_interval_s),
        meaning="between two updates of a peer, kept by the contract",
    )
    yield Fact(name="owner", value=body.owner, meaning="who may admit and retire", copied=True)


def _owner(body: OwnerChanged, urls: Urls) -> Iterator[Fact]:
    yield Fact(name="previous", value=body.previous, meaning="owner before", copied=True)
    yield Fact(name="current", value=body.current, meaning="may admit and retire from here on", copied=True)


def _admitted(body: PeerAdmitted, urls: Urls) -> Iterator[Fact]:
    yield _peer(body.peer, "the number that it has for ever", urls)
    yield Fact(name="account", value=body.account, meaning="signs for the peer", copied=True)
    yield Fact(
        name="site", value=body.site, meaning="the organisation behind it, a pseudonym; as the ledger's owner wrote it"
    )
    yield Fact(name="roles", value=role_names(body.roles), meaning="what it may do")


def _retired(body: PeerRetired, urls: Urls) -> Iterator[Fact]:
    yield _peer(body.peer, "can write no more; what it wrote stays", urls)
    yield Fact(
        name="from entry",
        value=str(body.from_index),
        meaning="its entries from here on do not count, as after a stolen key",
        url=urls.entry(body.from_index) if body.from_index < 2**59 else None,
    )
    yield Fact(name="reason", value=body.reason, meaning="as whoever retired it wrote it")


def _announced(body: PeerAnnounced, urls: Urls) -> Iterator[Fact]:
    yield _peer(body.peer, "who says so", urls)
    yield Fact(name="epoch", value=str(body.epoch), meaning="the peer's own count of announcements")
    yield Fact(name="endpoint", value=body.endpoint, meaning="address of its content gateway; empty: it serves none")
    yield _digest("recipient key", body.recipient_key, "X25519 public key that others encrypt to; zeros: none")
    yield Fact(
        name="as age writes it",
        value=recipient_text(body.recipient_key) if valid_key(body.recipient_key) else "no key that one can encrypt to",
        meaning="the same key",
        copied=valid_key(body.recipient_key),
    )
    yield _digest("TLS pin", body.tls_pin, "SHA-256 of the public key of the endpoint's certificate; zeros: none")


def _published(body: UpdatePublished, urls: Urls) -> Iterator[Fact]:
    update = body.update
    yield Fact(
        name="update",
        value=str(body.ref),
        meaning="peer number # sequence: its name for ever",
        url=urls.update(body.ref),
    )
    yield _peer(body.peer, "who published it", urls)
    yield Fact(name="round", value=str(update.round), meaning="the federation's pace", url=urls.round(update.round))
    yield Fact(name="sequence", value=str(update.sequence), meaning="the publisher's own count of updates, from 1")
    yield _cid("content CID", cid_of_update(update), "names the published bytes; every reader checks them", urls)
    yield _digest("content", update.content, "digest inside that CID")
    yield Fact(
        name="flags",
        value=_words(flag_names(update.flags)),
        meaning="dag-pb: the CID is of a tree of blocks, as of more than 1 MiB; encrypted: only members and auditors "
        "of its moment can read it; final: a closing update",
    )
    yield Fact(
        name="encoding",
        value=name_of(update.encoding),
        meaning=f"how the bytes carry the weights: {words_of(update.encoding, update.refers_to)}",
    )
    refers = UpdateRef.unpack(update.refers_to)
    yield Fact(
        name="refers to",
        value=since(update.refers_to),
        meaning="a delta is taken from it, and what the bytes leave out is as it is there",
        url=None if refers is None else urls.update(refers),
    )
    yield _digest(
        "weights",
        update.weights,
        "commitment to the decoded tensors under the publisher's own name: equal models of two peers do not look equal",
    )
    yield _digest("base", update.base, "digest of the merged weights that the training is said to have started from")
    yield _digest("report", update.report, "SHA-256 of its public report: metrics, and what became of each candidate")
    yield _cid("report CID", Cid("raw", update.report), "names the report's bytes", urls)
    yield Fact(name="seen", value=str(update.seen), meaning="entries of the log that the parents were chosen from")
    yield _digest(
        "seen root",
        update.seen_root,
        "root of the log at that size, as the publisher had it: a signed checkpoint of all that came before",
    )
    yield Fact(
        name="sealed at",
        value=str(update.sealed_at),
        meaning="size of the log that fixed who can decrypt it; 0: not encrypted",
    )
    yield Fact(
        name="score",
        value=percent(update.score_ppm, 4),
        meaning=f"the publisher's claim, of {update.test_samples:,} rows of its own test split",
    )
    yield Fact(name="base score", value=percent(update.base_score_ppm, 4), meaning="the same claim for the base")
    yield Fact(name="training samples", value=f"{update.train_samples:,}", meaning="rows it says it trained on")
    yield Fact(name="test samples", value=f"{update.test_samples:,}", meaning="rows it says the scores are measured on")
    yield Fact(name="rule", value=rule_name(update.rule), meaning="aggregation rule that made the base")
    yield Fact(
        name="extra",
        value=update.extra.hex() or "none",
        meaning="for what comes later; not read by this version",
        copied=bool(update.extra),
    )
    yield from _parents(body.parents, urls)


def _parents(parents: tuple[Parent, ...], urls: Urls) -> Iterator[Fact]:
    yield Fact(
        name="parents",
        value=f"{len(parents):,}",
        meaning="updates that were considered for the base; none: the genesis",
    )
    for parent in parents[:MOST_ITEMS]:
        value = f"{parent.ref}, share {percent(parent.share_ppm, 4)}, tag {parent.tag.hex()}"
        meaning = "merged into the base" if parent.share_ppm else "considered, not merged"
        yield Fact(name=f"parent {parent.ref}", value=value, meaning=meaning, url=urls.update(parent.ref))


def _attested(body: UpdatesAttested, urls: Urls) -> Iterator[Fact]:
    yield _peer(body.peer, "who measured, on its own data", urls)
    yield _evidence(body.evidence, urls)
    yield Fact(name="updates", value=f"{len(body.items):,}", meaning="how many it attests")
    for item in body.items[:MOST_ITEMS]:
        yield _item(item, urls)


def _item(item: Attestation, urls: Urls) -> Fact:
    ref = UpdateRef(item.peer, item.sequence)
    return Fact(
        name=f"update {ref}",
        value=f"{percent(item.score_ppm, 4)}, its base {percent(item.base_score_ppm, 4)}",
        meaning="what this peer measured",
        url=urls.update(ref),
    )


def _objected(body: UpdateObjected, urls: Urls) -> Iterator[Fact]:
    yield _peer(body.peer, "who objects", urls)
    yield Fact(name="update", value=str(body.target), meaning="that it speaks of", url=urls.update(body.target))
    yield Fact(name="reason", value=REASONS[body.reason], meaning="a peer's word: others may have had the bytes")
    yield _evidence(body.evidence, urls)


def _unknown(body: UnknownEntry, urls: Urls) -> Iterator[Fact]:
    yield _digest(
        "topic 0",
        body.topic,
        "names the kind; this version knows none of this name, or its data are not as that "
        "kind has them. It is a leaf of the log all the same",
    )


_TELLERS: Final[dict[type, Callable[[Any, Urls], Iterator[Fact]]]] = {
    LedgerOpened: _opened,
    OwnerChanged: _owner,
    PeerAdmitted: _admitted,
    PeerRetired: _retired,
    PeerAnnounced: _announced,
    UpdatePublished: _published,
    UpdatesAttested: _attested,
    UpdateObjected: _objected,
    UnknownEntry: _unknown,
}


# ---- pieces -----------------------------------------------------------------------------------------------------


def _peer(number: int, meaning: str, urls: Urls) -> Fact:
    return Fact(name="peer", value=str(number), meaning=meaning, url=urls.peer(number))


def _digest(name: str, raw: bytes, meaning: str) -> Fact:
    return Fact(name=name, value=raw.hex(), meaning=meaning, copied=True)


def _cid(name: str, cid: Cid, meaning: str, urls: Urls) -> Fact:
    return Fact(name=name, value=str(cid), meaning=meaning, url=urls.content(str(cid), "raw"), copied=True)


def _evidence(raw: bytes, urls: Urls) -> Fact:
    if raw == ZERO32:
        return Fact(name="evidence", value="none", meaning="a public report of how it was measured")
    return _cid("evidence CID", Cid("raw", raw), "names a public report of how it was measured", urls)


def _words(names: list[str]) -> str:
    return ", ".join(names) or "none"
