"""What leaves the peers: who can read it, how many bytes it is, and how much privacy it has cost."""

from __future__ import annotations

import sqlite3
from typing import Final

from pydantic import Field

from fl_node.merging.encodings import name_of
from fl_node.spec import Spec
from ledger_ui.contexts import Context
from ledger_ui.questions.spent import Mechanism, PeerSpent, everybody, mechanism_of
from ledger_ui.questions.traffic import Volume, traffic_totals, volume

_LISTED: Final = 12


class EncodingCount(Context):
    """How many updates are written in one way."""

    encoding: str
    encrypted: bool
    updates: int


class Exposure(Context):
    """That of a whole federation."""

    encrypt: bool = Field(description="the spec asks for encryption")
    words: str
    loud: str = Field(description="what everybody must know; empty: nothing")
    encrypted: int = Field(description="updates that are flagged as encrypted")
    clear: int = Field(description="updates in the clear")
    encodings: list[EncodingCount] = Field(description="the most used first; twelve at most")
    volume: Volume
    sent_bytes: int = Field(description="by the last word of each peer that has said something, so far")
    received_bytes: int
    traffic_peers: int = Field(description="peers that have said something of that")
    privacy: Mechanism
    spent: list[PeerSpent] = Field(description="active peers that say what they spent, the most first; 200 at most")


def exposure(db: sqlite3.Connection, spec: Spec) -> Exposure:
    """As the index has it."""
    counts = db.execute("SELECT encoding, encrypted, updates FROM encodings ORDER BY updates DESC, encoding").fetchall()
    encrypted = sum(row[2] for row in counts if row[1])
    clear = sum(row[2] for row in counts if not row[1])
    known = dict(db.execute("SELECT key, value FROM ui_state WHERE key LIKE 'told_%'").fetchall())
    of = int(known.get("told_update_bytes_of") or 0)
    sent, received, peers = traffic_totals(db)
    return Exposure(
        encrypt=spec.privacy.encrypt,
        words=_words(spec),
        loud=_loud(spec, clear),
        encrypted=encrypted,
        clear=clear,
        encodings=[
            EncodingCount(encoding=name_of(row[0]), encrypted=bool(row[1]), updates=row[2]) for row in counts[:_LISTED]
        ],
        volume=volume(of, int(known.get("told_update_bytes") or 0), int(known.get("told_plain_bytes") or 0)),
        sent_bytes=sent,
        received_bytes=received,
        traffic_peers=peers,
        privacy=mechanism_of(spec.privacy),
        spent=everybody(db, spec.privacy),
    )


def _words(spec: Spec) -> str:
    if not spec.privacy.encrypt:
        return "Updates are published in the clear."
    rotate = spec.privacy.rotate_every
    keys = f"a fresh key every {rotate:,} rounds" if rotate else "one key for good"
    return f"Updates are encrypted for the members and auditors of their moment. Each peer has {keys}."


def _loud(spec: Spec, clear: int) -> str:
    if not spec.privacy.encrypt:
        return (
            "The weights of this federation are public: its spec has them published in the clear, so that anybody who "
            "can reach a peer, or a copy on IPFS, can read them, and what they tell of the rows behind them."
        )
    if clear:
        updates = "update is" if clear == 1 else "updates are"
        return f"The spec asks for encryption, yet {clear:,} {updates} in the clear: anybody can read the weights."
    return ""
