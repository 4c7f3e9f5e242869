"""One update: everything recorded about it, raw and decoded, and what others made of it."""

from __future__ import annotations

import sqlite3
from typing import Final

from pydantic import Field

from fl_node.content.cid import Cid
from fl_node.content.names import cid_of_update
from fl_node.records import UpdatePublished, UpdateRef
from ledger_ui.contexts import Context, Link
from ledger_ui.pages.updates import SELECTED, SITES, UpdateRow, row_of
from ledger_ui.pages.verdicts import VerdictPanel, verdict_of
from ledger_ui.questions.carried import Carried, carried
from ledger_ui.questions.commands import Command, commands_of, own_command
from ledger_ui.questions.facts import Fact, facts_of
from ledger_ui.questions.kin import Kin, kin_of
from ledger_ui.questions.logged import RawEntry, entry_at, raw_of, root_of
from ledger_ui.questions.orphans import Orphans, orphans
from ledger_ui.questions.others import Others, others_of
from ledger_ui.questions.reported import Reported, reported_of
from ledger_ui.questions.sealing import Sealing, sealing_of
from ledger_ui.questions.sent import Sent, sent_of
from ledger_ui.registry import Here, Page, PageError, add
from ledger_ui.text import storable
from ledger_ui.urls import undashed

_MOST_DOUBLES: Final = 20


class Content(Context):
    """Where an update's bytes are, as far as is known."""

    cid: str
    report_cid: str
    raw_url: str = Field(description="its bytes, checked on the way")
    car_url: str = Field(description="its blocks as a CAR file")
    report_url: str = Field(description="the report's bytes")
    size_bytes: int | None = Field(description="none: nobody has said")
    haves: int | None = Field(description="peers that said they have it; none: nobody was asked")
    lacks: int | None
    silent: int | None
    publisher_has: bool | None = Field(description="what the publisher's own gateway said; none: nothing")
    holders: str = Field(description="who said what, by peer number; empty: nobody was asked")
    asked_s: float | None = Field(description="local time of the last look, seconds since 1970")


class UpdatePage(Context):
    """Everything about one update."""

    update: UpdateRow
    account: str | None = Field(description="the publisher's account; none: it is no member")
    became: str = Field(description="what became of it, in a sentence")
    remarks: list[str] = Field(
        description="what a reader must know first: withdrawn, not counted, closing, recorded twice"
    )
    ignored: str | None = Field(description="why it does not count; none: it counts")
    gain_ppm: int = Field(description="claimed score less the claimed score of its base")
    facts: list[Fact] = Field(description="all that its entry says, but for the parents")
    seen_root_holds: bool | None = Field(
        description="whether the log at the size that it had seen has the root that it recorded; none: no such size"
    )
    sealing: Sealing
    carried: Carried
    kin: Kin
    others: Others
    audit: VerdictPanel
    report: Reported
    content: Content
    raw: RawEntry
    sent: Sent
    orphans: Orphans = Field(description="entries that a reorganisation dropped, of the same index")
    doubles: list[int] = Field(description="other entries that use the same name; the contract takes none")
    links: list[Link] = Field(description="its neighbours")
    commands: list[Command]


def update(here: Here, query: object, ref: str) -> UpdatePage:
    """One update, by ``3-12``."""
    name = undashed(ref)
    row = None if name is None else _row(here.db, name)
    entry = None if row is None else entry_at(here.db, row["idx"])
    if name is None or row is None or entry is None or not isinstance(entry.body, UpdatePublished):
        raise _missing(here, ref, name)
    body, index = entry.body, entry.index
    raw = raw_of(here.db, entry, here.frame.size)
    seen_root = root_of(here.db, body.update.seen)
    doubles = _doubles(here, name, index)
    return UpdatePage(
        update=row_of(row),
        account=row["account"],
        became=_became(here.db, row),
        remarks=_remarks(row, doubles),
        ignored=row["ignored"],
        gain_ppm=row["score_ppm"] - row["base_score_ppm"],
        facts=[fact for fact in facts_of(entry, here.urls) if not fact.name.startswith("parent")],
        seen_root_holds=None if seen_root is None else seen_root == body.update.seen_root,
        sealing=sealing_of(
            here.db,
            index,
            int(body.update.flags),
            body.update.sealed_at,
            wanted=here.shown.spec.privacy.encrypt,
        ),
        carried=carried(here.db, body.ref, int(body.update.encoding), body.update.refers_to),
        kin=kin_of(here.db, index, body),
        others=others_of(here.db, row),
        audit=verdict_of(here, index),
        report=reported_of(here.db, index, body),
        content=_content(here, index, body),
        raw=raw,
        sent=sent_of(here.db, entry, here.frame.contract, here.frame.chain_id),
        orphans=orphans(here.db, index=index),
        doubles=doubles,
        links=_links(here, name),
        commands=[*_own(here, name), *commands_of(here, entry, raw)],
    )


def _row(db: sqlite3.Connection, ref: UpdateRef) -> sqlite3.Row | None:
    found: sqlite3.Row | None = db.execute(
        f"SELECT {SELECTED}, u.ignored, u.children, u.left_out_by, p.account FROM updates u {SITES} "  # noqa: S608
        "LEFT JOIN peers p ON p.peer = u.peer WHERE u.peer = ? AND u.sequence = ?",
        (ref.peer, ref.sequence),
    ).fetchone()
    return found


def _missing(here: Here, asked: str, ref: UpdateRef | None) -> PageError:
    if ref is None:
        return PageError(404, "No such update", "Expected a peer's number and a sequence, such as 3-12 for 3#12.")
    last = here.db.execute("SELECT max(sequence) FROM updates WHERE peer = ?", (ref.peer,)).fetchone()[0]
    dropped = orphans(here.db, kind="UpdatePublished", peer=ref.peer)
    if any(one.update == str(ref) for one in dropped.rows):
        told = f"A reorganisation of the chain dropped {ref}, and it has not been recorded again."
    elif last is not None:
        told = f"There is no update {ref}: the last one of peer {ref.peer} is {ref.peer}#{last}."
    else:
        told = f"There is no update {ref}: peer {ref.peer} has published none. The log has {here.frame.size:,} entries."
    return PageError(404, f"No update {ref}", told)


def _doubles(here: Here, ref: UpdateRef, index: int) -> list[int]:
    """Other entries of the same name: only a contract that is none of ours takes them."""
    rows = here.db.execute(
        "SELECT idx FROM entries WHERE kind = 'UpdatePublished' AND peer = ? AND sequence = ? AND idx != ? AND idx < ? "
        "ORDER BY idx LIMIT ?",
        (ref.peer, ref.sequence, index, here.frame.size, _MOST_DOUBLES),
    )
    return [row[0] for row in rows]


def _became(db: sqlite3.Connection, row: sqlite3.Row) -> str:
    merged_by, left = row["merged_by"], row["left_out_by"]
    if row["state"] == "ignored":
        return f"It does not count: {row['ignored']}."
    if row["state"] == "closing":
        return "A closing update: untrained, its weights are its base. It is the publisher’s final model."
    left_words = f" {_count(left, 'merge')} looked at it and left it out." if left else ""
    if row["state"] == "merged":
        return f"Merged by {_count(merged_by, 'other peer')}.{left_words}"
    if row["state"] == "left-out":
        return f"No other peer has merged it.{left_words}"
    return "Submitted: no other peer has merged it, or looked at it and left it out, so far."


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _remarks(row: sqlite3.Row, doubles: list[int]) -> list[str]:
    found = []
    if row["withdrawn"]:
        found.append("Withdrawn by its publisher: others are asked not to merge it.")
    if row["ignored"] is not None:
        found.append(f"It does not count: {row['ignored']}.")
    if row["site"] is None:
        found.append("Its publisher is no member of this federation: the contract should have refused it.")
    if doubles:
        told = ", ".join(map(str, doubles))
        found.append(f"The same name is used again at entry {told}: the contract should have refused that.")
    return found


def _content(here: Here, index: int, body: UpdatePublished) -> Content:
    cid, report = str(cid_of_update(body.update)), str(Cid("raw", body.update.report))
    row = here.db.execute(
        "SELECT haves, lacks, silent, publisher, size_bytes, asked_at, detail FROM holders WHERE idx = ?", (index,)
    ).fetchone()
    held = dict(row) if row is not None else {}
    publisher = held.get("publisher")
    return Content(
        cid=cid,
        report_cid=report,
        raw_url=here.urls.content(cid, "raw"),
        car_url=here.urls.content(cid, "car"),
        report_url=here.urls.content(report, "raw"),
        size_bytes=held.get("size_bytes"),
        haves=held.get("haves"),
        lacks=held.get("lacks"),
        silent=held.get("silent"),
        publisher_has=None if publisher is None else bool(publisher),
        holders=storable(held.get("detail") or ""),
        asked_s=held.get("asked_at"),
    )


def _links(here: Here, ref: UpdateRef) -> list[Link]:
    """Provenance, and the same peer's updates before and after."""
    found = [Link(words="Provenance", url=here.urls.provenance(ref))]
    for words, beyond, way in (("Previous", "<", "DESC"), ("Next", ">", "ASC")):
        row = here.db.execute(
            f"SELECT sequence FROM updates WHERE peer = ? AND sequence {beyond} ? ORDER BY sequence {way} LIMIT 1",  # noqa: S608
            (ref.peer, ref.sequence),
        ).fetchone()
        if row is not None:
            other = UpdateRef(ref.peer, row[0])
            found.append(Link(words=f"{words}: {other}", url=here.urls.update(other)))
    return found


def _own(here: Here, ref: UpdateRef) -> list[Command]:
    return [
        Command(
            words="All that is recorded of it, and its choice of parents", command=own_command(here, "show", str(ref))
        ),
        Command(words="Where it came from and where it went", command=own_command(here, "lineage", str(ref))),
        Command(
            words="Its weights, fetched and checked",
            command=own_command(here, "model", "--at", str(ref), "--out", "model.safetensors"),
        ),
    ]


UPDATE = add(
    Page(
        name="update",
        rule="/updates/<ref>",
        summary="One update: everything recorded, and what others made of it",
        context=UpdatePage,
        template="update.html",
        make=update,
        path={"ref": "peer number and sequence, such as 3-12"},
    )
)
