"""An update's public report: the publisher's word, of the recorded digest, read as a stranger's text."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from pydantic import Field

from fl_node.merging.encodings import name_of
from fl_node.records import ZSTD, UpdatePublished
from ledger_ui.contexts import Context
from ledger_ui.index.claims import bytes_in, privacy_in, traffic_in
from ledger_ui.questions.traffic import TrafficRow, part, traffic_rows
from ledger_ui.strange import json_of
from ledger_ui.text import storable

_MOST_CLASSES: Final = 100
_MOST_FACTS: Final = 40
_MOST_CANDIDATES: Final = 128
_MOST_DIGITS: Final = 60
_LONGEST: Final = 400
_BIGGEST: Final = 2**53
#: Metrics that a report of ours has, and whether each is a fraction.
_METRICS: Final = {
    "accuracy": True,
    "macro_f1": True,
    "precision": True,
    "recall": True,
    "auc": True,
    "dice": True,
    "loss": False,
    "samples": False,
}


class Metric(Context):
    """One number of a report."""

    name: str
    value: float
    fraction: bool = Field(description="from 0 to 1, told as a percentage")


class Said(Context):
    """One other thing that a report says, as text."""

    name: str
    value: str


class CandidateSaid(Context):
    """What became of one candidate, or of several peers, by the publisher's word."""

    who: str = Field(description="an update, a peer, or numbers and ranges of peers")
    outcome: str
    reason: str


class BytesSaid(Context):
    """The update's size, by its publisher's word."""

    update_bytes: int = Field(description="as published")
    plain_bytes: int | None = Field(description="as plain float32 weights, unencrypted; none: unsaid")
    part_ppm: int | None = Field(description="published for each plain byte, parts per million")
    encoding: str = Field(description="a stranger's text; empty: unsaid")
    zstd: bool | None = Field(description="compressed; none: unsaid")
    full: bool | None = Field(description="whole, rather than what changed; none: unsaid")


class PrivacySaid(Context):
    """Privacy spent so far, this update included, by its publisher's word."""

    mechanism: str = Field(description="a stranger's text, such as example or update")
    accountant: str = Field(description="a stranger's text")
    epsilon: float
    delta: float | None
    noise_multiplier: float | None
    clip_norm: float | None
    sample_rate: float | None
    steps: int | None = Field(description="of one training")
    trainings: int | None = Field(description="that were paid for")
    budget_epsilon: float | None
    scores: str = Field(description="how scores are told, by the report; a stranger's text")


class TrafficSaid(Context):
    """Bytes that have gone through the publisher so far, by its word."""

    sent_bytes: int
    received_bytes: int
    rows: list[TrafficRow] = Field(description="by counterpart and kind, the most first; sixty at most")
    cut: bool = Field(description="there are further ones")


class Reported(Context):
    """What is known of an update's report."""

    state: str = Field(
        description="ok; not-fetched; none (the update names none); gone (nobody gives it); malformed (no report); "
        "refused (too large); or mismatch (other bytes than recorded)"
    )
    detail: str = Field(description="why; may quote strangers")
    size_bytes: int | None
    fetched_s: float | None = Field(description="local time of the last try, seconds since 1970")
    differs: list[str] = Field(description="where it says something else than the ledger")
    metrics: list[Metric]
    metrics_withheld: bool = Field(description="it says that it withholds them, for privacy")
    confusion: list[list[int]] = Field(description="rows of samples of each class, columns of what they were taken for")
    confusion_left_out: bool = Field(
        description="there is one, but it is too large to show, or not a square of numbers"
    )
    training: list[Said]
    candidates: list[CandidateSaid]
    bytes: BytesSaid | None = Field(description="none: it does not say")
    privacy: PrivacySaid | None = Field(description="none: it does not say that privacy was spent")
    traffic: TrafficSaid | None = Field(description="none: it does not say")
    software: str


def reported_of(db: sqlite3.Connection, index: int, body: UpdatePublished) -> Reported:
    """The report of the update at an entry."""
    row = db.execute("SELECT status, body, tried_at, detail FROM reports WHERE idx = ?", (index,)).fetchone()
    if row is None:
        return _told("none" if not any(body.update.report) else "not-fetched")
    raw: bytes | None = row["body"]
    state = row["status"]
    if raw is not None and hashlib.sha256(raw).digest() != body.update.report:
        return _told("mismatch", "the bytes kept here are not those recorded", tried=row["tried_at"])
    table = None if raw is None or state != "ok" else _read(raw)
    if raw is None or table is None:
        state = "malformed" if state == "ok" else state
        return _told(state, row["detail"] or "", None if raw is None else len(raw), row["tried_at"])
    metrics = table.get("metrics")
    confusion, left_out = _confusion(metrics)
    return Reported(
        state="ok",
        detail="",
        size_bytes=len(raw),
        fetched_s=row["tried_at"],
        differs=_differs(table, body),
        metrics=_metrics(metrics),
        metrics_withheld=isinstance(metrics, dict) and metrics.get("withheld") is True,
        confusion=confusion,
        confusion_left_out=left_out,
        training=_training(table.get("training")),
        candidates=_candidates(table.get("candidates")),
        bytes=_bytes(table),
        privacy=_privacy(table),
        traffic=_traffic(table),
        software=_text(table.get("software", "")),
    )


def _told(state: str, detail: str = "", size: int | None = None, tried: float | None = None) -> Reported:
    return Reported(
        state=state,
        detail=storable(detail),
        size_bytes=size,
        fetched_s=tried,
        differs=[],
        metrics=[],
        metrics_withheld=False,
        confusion=[],
        confusion_left_out=False,
        training=[],
        candidates=[],
        bytes=None,
        privacy=None,
        traffic=None,
        software="",
    )


def _read(raw: bytes) -> dict[str, Any] | None:
    try:
        table = json_of(raw)
    except ValueError:
        return None
    return table if isinstance(table, dict) else None


def _differs(table: Mapping[str, Any], body: UpdatePublished) -> list[str]:
    """What the report says otherwise than its entry."""
    update = body.update
    recorded = {
        "update": str(body.ref),
        "round": update.round,
        "seen": update.seen,
        "base": update.base.hex(),
        "score_ppm": update.score_ppm,
        "base_score_ppm": update.base_score_ppm,
    }
    found = []
    for name, value in recorded.items():
        said = table.get(name)
        if type(said) is not type(value) or said != value:
            found.append(f"{name} is {_text(said)[:80]} in the report, {value} on the ledger")
    size = bytes_in(table)
    if size is not None and size.encoding:
        written = size.encoding + ("+zstd" if size.zstd else "")
        recorded_as = name_of(update.encoding if size.zstd is not None else update.encoding & ~ZSTD)
        if written != recorded_as:
            found.append(f"the encoding is {written} in the report, {recorded_as} on the ledger")
    return found


def _bytes(table: Mapping[str, Any]) -> BytesSaid | None:
    said = bytes_in(table)
    if said is None:
        return None
    return BytesSaid(
        update_bytes=said.update,
        plain_bytes=said.plain,
        part_ppm=part(said.update, said.plain),
        encoding=said.encoding,
        zstd=said.zstd,
        full=said.full,
    )


def _privacy(table: Mapping[str, Any]) -> PrivacySaid | None:
    said = privacy_in(table)
    return None if said is None else PrivacySaid(**{name: getattr(said, name) for name in PrivacySaid.model_fields})


def _traffic(table: Mapping[str, Any]) -> TrafficSaid | None:
    said = traffic_in(table)
    if said is None:
        return None
    rows, cut = traffic_rows(said)
    return TrafficSaid(sent_bytes=said.sent_bytes, received_bytes=said.received_bytes, rows=rows, cut=cut)


def _metrics(table: Any) -> list[Metric]:
    if not isinstance(table, dict):
        return []
    found = []
    for name, fraction in _METRICS.items():
        value = table.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if abs(value) <= _BIGGEST:  # which neither infinity nor NaN is
            found.append(Metric(name=name, value=float(value), fraction=fraction))
    return found


def _confusion(metrics: Any) -> tuple[list[list[int]], bool]:
    rows = metrics.get("confusion") if isinstance(metrics, dict) else None
    if not isinstance(rows, list) or not rows:
        return [], False
    if len(rows) > _MOST_CLASSES:
        return [], True
    for row in rows:
        if not isinstance(row, list) or len(row) != len(rows):
            return [], True
        if not all(type(one) is int and 0 <= one <= _BIGGEST for one in row):
            return [], True
    return rows, False


def _training(table: Any) -> list[Said]:
    if not isinstance(table, dict):
        return []
    return [Said(name=_text(name)[:60], value=_text(value)) for name, value in list(table.items())[:_MOST_FACTS]]


def _candidates(items: Any) -> list[CandidateSaid]:
    if not isinstance(items, list):
        return []
    found = []
    for item in items[:_MOST_CANDIDATES]:
        if not isinstance(item, dict):
            continue
        if "peers" in item:
            who = f"peers {_text(item['peers'])[:80]}"
        elif item.get("sequence") is not None:
            who = f"{_text(item.get('peer'))[:20]}#{_text(item['sequence'])[:20]}"
        else:
            who = f"peer {_text(item.get('peer'))[:20]}"
        found.append(
            CandidateSaid(who=who, outcome=_text(item.get("outcome"))[:40], reason=_text(item.get("reason", "")))
        )
    return found


def _text(value: Any) -> str:
    """Anything out of JSON, as a short text."""
    if isinstance(value, str):
        return storable(value[:_LONGEST])
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if value.bit_length() < 4 * _MOST_DIGITS else "a very large number"
    try:
        return storable(json.dumps(value, ensure_ascii=False)[:_LONGEST])
    except (ValueError, RecursionError):
        return "something that cannot be told"
