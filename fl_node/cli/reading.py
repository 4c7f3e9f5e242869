"""``fl-node status``, ``log``, ``show`` and ``peers``: the ledger, read by anybody."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import IntEnum, IntFlag
from typing import Any

from rich.table import Table

from fl_node.access import viewing
from fl_node.cli import sealed
from fl_node.cli.choices import in_words
from fl_node.cli.console import Out
from fl_node.cli.settings import settings_of
from fl_node.cli.text import safe
from fl_node.completeness.choices import candidates_of
from fl_node.config import NodeConfig
from fl_node.content.cid import Cid
from fl_node.content.names import cid_of_update
from fl_node.errors import ContentError, UsageError
from fl_node.prefix import PeerFacts, Prefix, UpdateEntry
from fl_node.records import Entry, UpdateObjected, UpdatePublished, UpdateRef, UpdatesAttested, rule_name
from fl_node.suggest import update_meant
from fl_node.times import utc

_NOTHING = "00" * 32
_LONGEST_NAME = 200


def status(arguments: argparse.Namespace) -> int:
    """Where the federation stands, and what this peer has done if the state folder says who it is."""
    config = settings_of(arguments)
    with viewing(config) as view:
        prefix, spec = view.prefix, view.federation.spec
        members = [facts for facts in prefix.peers() if facts.active]
        latest = {facts.number: prefix.latest(facts.number) for facts in members}
        told = {
            "name": spec.name,
            "contract": view.deployment.contract,
            "chain_id": view.deployment.chain_id,
            "entries": view.index.size,
            "root": "0x" + view.index.root().hex(),
            "block": view.index.head.block_number,
            "highest_round": prefix.highest_round,
            "planned_rounds": spec.rounds.planned,
            "members": len(members),
            "closed": sum(1 for entry in latest.values() if entry is not None and entry.final),
            "orphaned_entries": len(view.index.orphans()),
            "seconds_since_last_entry": _age(prefix),
            "this_peer": _this_peer(config, prefix),
        }
        if arguments.json:
            _print_json(told)
        else:
            _pairs({key.replace("_", " "): value for key, value in told.items()})
    return 0


def _this_peer(config: NodeConfig, prefix: Prefix) -> dict[str, Any] | None:
    """The member whose key is in the state folder; ``None`` without a key, or if it is no member."""
    address = account_of(config)
    facts = None if address is None else prefix.peer_of(address)
    if facts is None:
        return None
    last = prefix.latest(facts.number)
    return {
        "peer": facts.number,
        "site": facts.site,
        "state": _state(facts, last),
        "round": last.round if last else 0,
        "updates": prefix.sequence(facts.number),
    }


def account_of(config: NodeConfig) -> str | None:
    """The address of the configured key, which its file says without a password; ``None`` without a key."""
    try:
        return "0x" + str(json.loads(config.key_path.read_text())["address"]).removeprefix("0x")
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _state(facts: PeerFacts, last: UpdateEntry | None) -> str:
    return "retired" if not facts.active else "closed" if last and last.final else "active"


def log(arguments: argparse.Namespace) -> int:
    """The entries, one line each."""
    with viewing(settings_of(arguments)) as view:
        stop = view.index.size if arguments.stop is None else min(arguments.stop, view.index.size)
        if not 0 <= arguments.start <= stop:
            raise UsageError(f"got --from {arguments.start} --to {stop}; expected 0 <= from <= to <= {view.index.size}")
        for entry in view.index.entries(arguments.start, stop):
            if arguments.json:
                print(json.dumps(_entry_json(entry)))
            else:
                print(f"{entry.index:>6}  {utc(entry.time_s)}  {entry.kind:<16} {safe(_words(entry))}")
    return 0


def show(arguments: argparse.Namespace) -> int:
    """One update, with its parents and what others say of it."""
    with viewing(settings_of(arguments)) as view:
        update = find_update(view.prefix, arguments.update)
        spec = view.federation.spec
        written = sealed.told(view.prefix, update, spec.encoding.full_every)
        told = {
            "update": str(update.ref),
            "entry": update.index,
            "time": utc(update.time_s),
            "site": view.prefix.peer(update.ref.peer).site,
            "cid": str(cid_of_update(update.update)),
            "report_cid": str(Cid("raw", update.update.report)),
            **_plain(update.update),
            **written,
            "parents": [_plain(parent) for parent in update.parents],
            "candidates": candidates_of(spec, view.prefix, update),
            "merged_by": [str(child) for child in _children(view.prefix, update.ref)],
            "attestations": [_plain(said) for said in view.prefix.attestations(update.ref)],
            "objections": [_plain(word) for word in view.prefix.objections(update.ref)],
        }
        if arguments.json:
            _print_json(told)
        else:
            told["rule"] = rule_name(update.update.rule)
            told["left_out"] = in_words(told.pop("candidates"))
            told = {key: value for key, value in told.items() if key not in written}
            told |= sealed.in_words(update, written, wanted=spec.privacy.encrypt)
            _pairs(told)
            print("\nScores are the publisher's claims; attestations are what other peers measured.")
    return 0


def peers(arguments: argparse.Namespace) -> int:
    """The members."""
    with viewing(settings_of(arguments)) as view:
        rows: list[dict[str, Any]] = []
        for facts in view.prefix.peers():
            last = view.prefix.latest(facts.number)
            rows.append(
                {
                    "peer": facts.number,
                    "site": facts.site,
                    "account": facts.account,
                    "state": _state(facts, last),
                    "round": last.round if last else 0,
                    "updates": view.prefix.sequence(facts.number),
                    "score_ppm": last.update.score_ppm if last else None,
                    "endpoint": facts.announcement.endpoint if facts.announcement else "",
                }
            )
        if arguments.json:
            _print_json(rows)
            return 0
        table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
        for key in ("peer", "site", "account", "state", "round", "updates", "claimed", "endpoint"):
            table.add_column(key, no_wrap=True)
        for row in rows:
            score = "-" if row["score_ppm"] is None else f"{row['score_ppm'] / 10_000:.2f} %"
            account = row["account"] if arguments.wide else f"{row['account'][:6]}…{row['account'][-4:]}"
            cells = [row["peer"], row["site"], account, row["state"], row["round"], row["updates"], score]
            table.add_row(*(safe(str(cell)) for cell in [*cells, row["endpoint"]]))
        console = Out(markup=False)
        # A row that a narrow terminal wraps can still be copied; one cut into strips cannot.
        whole = console.measure(table, options=console.options.update(max_width=10_000)).maximum
        console.width = max(console.width, whole)
        console.print(table)
    return 0


def find_update(prefix: Prefix, text: str) -> UpdateEntry:
    """An update by name (``3#12``) or by the CID of its content.

    Raises:
        UsageError: neither, or none such on the ledger.
    """
    ref = UpdateRef.parse(text)
    if ref is not None:
        try:
            return prefix.update(ref)
        except LookupError as cause:
            raise UsageError(f"no update {text} on the ledger, which has {prefix.size} entries") from cause
    if len(text) > _LONGEST_NAME:
        raise UsageError(
            f"got {text[:20]}... of {len(text)} characters; expected an update such as 3#12, or the CID of its content"
        )
    if re.fullmatch("[0-9]+#[0-9]+", text):
        raise UsageError(f"no update {text} on the ledger, which has {prefix.size} entries")
    try:
        digest = Cid.parse(text).digest
    except (ContentError, UsageError) as cause:
        meant = update_meant(text) or f": {cause}"
        raise UsageError(f"{text!r} is neither an update such as 3#12 nor a CID{meant}") from cause
    for facts in prefix.peers():
        for update in prefix.updates(facts.number):
            if update.content == digest:
                return update
    raise UsageError(f"no update on the ledger has the content {text}")


def _children(prefix: Prefix, ref: UpdateRef) -> list[UpdateRef]:
    return [
        update.ref
        for facts in prefix.peers()
        for update in prefix.updates(facts.number)
        if any(parent.ref == ref and parent.share_ppm for parent in update.parents)
    ]


def _words(entry: Entry) -> str:
    match entry.body:
        case UpdatePublished(update=update) as body:
            merged = ", ".join(f"{parent.ref} {parent.share_ppm / 10_000:.1f}%" for parent in body.parents)
            return (
                f"{body.ref} round {update.round} claims {update.score_ppm / 10_000:.2f} % from {merged or 'genesis'} "
                f"({sealed.short_words(update)})"
            )
        case UpdateObjected() as body:
            return f"peer {body.peer} objects to {body.target}: {body.reason.name.lower().replace('_', ' ')}"
        case UpdatesAttested() as body:
            pairs = (f"{UpdateRef(i.peer, i.sequence)} {i.score_ppm / 10_000:.2f} %" for i in body.items)
            return f"peer {body.peer} attests {', '.join(pairs)}"
    told = {key: value for key, value in _plain(entry.body).items() if value not in ("", _NOTHING)}
    return ", ".join(f"{key}={value}" for key, value in told.items())


def _entry_json(entry: Entry) -> dict[str, Any]:
    return {
        "index": entry.index,
        "time_s": entry.time_s,
        "kind": entry.kind,
        "block": entry.block_number,
        "tx": "0x" + entry.tx_hash.hex(),
        "topics": ["0x" + topic.hex() for topic in entry.topics],
        "data": "0x" + entry.data.hex(),
        "body": _plain(entry.body),
    }


def _plain(record: Any) -> Any:
    """A record as JSON-ready values: digests in hex, enumerations by their number."""
    if is_dataclass(record) and not isinstance(record, type):
        return {key: _plain(value) for key, value in asdict(record).items()}
    if isinstance(record, bytes):
        return record.hex()
    if isinstance(record, IntFlag | IntEnum):
        return int(record)
    if isinstance(record, Mapping):
        return {key: _plain(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [_plain(item) for item in record]
    return record


def _pairs(told: Mapping[str, Any]) -> None:
    width = max(len(key) for key in told)
    for key, value in told.items():
        if isinstance(value, list):
            items = (", ".join(f"{k}={v}" for k, v in i.items()) if isinstance(i, dict) else str(i) for i in value)
            value = "; ".join(items)
        elif isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        elif value is None:
            value = "-"
        print(f"{key:<{width}}  {safe(str(value))}")


def _print_json(told: object) -> None:
    print(json.dumps(told, indent=1))


def _age(prefix: Prefix) -> int:
    return max(0, int(dt.datetime.now(dt.UTC).timestamp()) - prefix.time_s)
