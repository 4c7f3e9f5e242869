"""A federation with everything that keeps updates private: keys, encryption, deltas, differential privacy; and what its
reports say, written by hand."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ui_logs import Explored, digest, explored
from ui_scribe import Scribe

from fl_node.records import PPM, ZERO32, ZSTD, Encoding, Flag, PeerAnnounced, Role, UpdateRef
from fl_node.spec import parse_federation
from ledger_ui.index.fold import bump
from ledger_ui.index.reports import Got, Reports, Wanted

SPEC: Final = """\
format = 1
name = "sealed clinics"

[task]
data = "digits"

[rounds]
planned = 4

[encoding]
kind = "int8-delta"

[privacy]
mechanism = "example"
epsilon = 8.0
delta = 1e-5
scores = "coarse"
"""
SITES: Final = ("north", "south", "west", "east", "hollow", "echo")
#: What a report of ours says of traffic.
TRAFFIC: Final = {
    "sent_bytes": 900_000,
    "received_bytes": 1_200_000,
    "sent": [{"peer": 2, "kind": "update", "bytes": 600_000}, {"peer": None, "kind": "log", "bytes": 300_000}],
    "received": [{"peer": 2, "kind": "update", "bytes": 1_000_000}, {"peer": 3, "kind": "update", "bytes": 200_000}],
}


def key(*parts: object) -> bytes:
    """Something that is a public key."""
    return digest("key", *parts)[:31] + b"\x11"


@dataclass
class Private:
    """A log under way, and the reports of its updates by entry."""

    told: Scribe
    spec: str
    reports: dict[int, tuple[UpdateRef, bytes]] = field(default_factory=dict)

    def announce(self, peer: int, epoch: int, recipient: bytes) -> int:
        endpoint = f"https://site-{peer}.example:8443"
        return self.told.say(PeerAnnounced(peer, epoch, recipient, digest("pin", peer), endpoint))

    def publish(
        self,
        peer: int,
        number: int,
        *,
        encrypted: bool = True,
        report: dict[str, Any] | bytes | None = None,
        **more: Any,
    ) -> int:
        """The peer's update of a round, sealed for everybody who has a key by now."""
        parents = [(other, number - 1, PPM // 2) for other in (1, 2)] if number > 1 else []
        values: dict[str, Any] = {
            "flags": Flag.ENCRYPTED if encrypted else Flag(0),
            "sealed_at": self.told.size if encrypted else 0,
            "encoding": Encoding.INT8_DELTA | ZSTD if number > 1 else Encoding.SAFETENSORS,
            "refers_to": UpdateRef(peer, number - 1).packed() if number > 1 else 0,
            "score_ppm": 600_000 + 40_000 * number,
            "base_score_ppm": 590_000,
            **more,
        }
        body = b"" if report is None else report if isinstance(report, bytes) else json.dumps(report).encode()
        values.setdefault("report", hashlib.sha256(body).digest())
        index = self.told.publish(peer, number, number, *parents, **values)
        if report is not None:
            self.reports[index] = (UpdateRef(peer, number), body)
        return index

    def explorer(self, folder: Path, **options: Any) -> Explored:
        """An explorer that has all of the reports."""
        one = explored(folder, self.told, self.spec.encode(), **options)
        self.fetched(one)
        return one

    def fetched(self, one: Explored) -> None:
        """As if the peers had given their reports."""
        got = [
            Got(Wanted(index, ref, hashlib.sha256(body).digest(), 0), "ok", "", body)
            for index, (ref, body) in self.reports.items()
        ]
        Reports(one.shown.store).keep(got)
        with one.shown.store.writing() as db:
            bump(db)


def begun(spec: str = SPEC) -> Private:
    """Seven members: ``hollow`` announces a key of small order, ``echo`` the key of peer 1, ``east`` none; the auditor
    may only read."""
    one = Private(Scribe(parse_federation(spec.encode()).digest), spec)
    for site in SITES:
        one.told.admit(site)
    one.told.admit("auditor", Role.READ)
    for peer in (1, 2, 3, 7):
        one.announce(peer, 1, key(peer))
    one.announce(4, 1, ZERO32)
    one.announce(5, 1, (1).to_bytes(32, "little"))
    one.announce(6, 1, key(1))
    return one


def report(peer: int, number: int, **more: Any) -> dict[str, Any]:
    """What a report says beyond what it says anyway."""
    return {
        "update": f"{peer}#{number}",
        "round": number,
        "metrics": {"samples": 50, "withheld": True},
        "bytes": {
            "update": 12_000 if number > 1 else 40_000,
            "plain": 40_000,
            "encoding": "int8-delta" if number > 1 else "f32",
            "zstd": number > 1,
            "full": number == 1,
        },
        "privacy": {
            "mechanism": "example",
            "accountant": "rdp",
            "epsilon": 2.5 * number**0.5 + peer / 10,
            "delta": 1e-5,
            "noise_multiplier": 1.1,
            "clip_norm": 1.0,
            "sample_rate": 0.1,
            "steps": 100,
            "trainings": number,
            "budget_epsilon": 8.0,
            "scores": "coarse",
        },
        "traffic": TRAFFIC,
        "software": "fl-node 1",
        **more,
    }


def played(spec: str = SPEC) -> Private:
    """Four rounds of three peers. Peer 2 changes its key after round 2; 3#2 is in the clear; peer 3 overspends in the
    end."""
    one = begun(spec)
    for number in range(1, 5):
        for peer in (1, 2, 3):
            told = report(peer, number)
            if (peer, number) == (3, 4):
                told["privacy"]["epsilon"] = 9.5
            one.publish(peer, number, encrypted=(peer, number) != (3, 2), report=told)
        if number == 2:
            one.announce(2, 2, key(2, "new"))
    return one
