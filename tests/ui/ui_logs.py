"""Federations for tests of the explorer: played by the package's own rules in memory, and opened in an explorer."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from flask import Flask
from flask.testing import FlaskClient

from fl_node.journal import Draft
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.memory import MemoryChain, memory_account
from fl_node.ledger.protocol import LedgerReader
from fl_node.merging.selection import select
from fl_node.prefix import Prefix
from fl_node.records import (
    PPM,
    Attestation,
    Flag,
    LedgerHead,
    Member,
    Parent,
    Reason,
    Role,
    Rule,
    Update,
    UpdateRef,
)
from fl_node.report import compose_report
from fl_node.spec import Deployment, Spec, deployed_bytes, parse_federation
from ledger_ui import Options, create_app
from ledger_ui.federation import Shown, Source

ADDRESS: Final = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
NOWHERE: Final = "http://127.0.0.1:9"
BEGAN_S: Final = 1_750_000_000
#: What takes longer than that will not come.
SOON_S: Final = 20.0

SPEC: Final = """\
format = 1
name = "four clinics"

[task]
data = "digits"

[merging]
selection = "top-k"
k = 2
aggregation = "fedavg"
objection_quorum = 2

[attestation]
mode = "all"

[rounds]
planned = 4

[privacy]
encrypt = false
"""

#: Names of sites that try to be more than names; at most 32 bytes each.
HOSTILE: Final = (
    "<script>alert(1)</script>",
    '" onload="alert(1)',
    "=1+1",
    "@SUM(A1:A9)",
    "line\nbreak\x1b[2J\r",
    "\u202egnp.exe\u2028",
    "]]>--><!--\t",
    "../../etc/passwd?x=1#y%00",
    "{{ 7 * 7 }}{% raw %}",
    "W" * 32,
    "",
    "z\u0335\u0336\u0337\u0338\u0332\u0333\u033f\u0346",
)


def digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


# ---- a federation played by the rules --------------------------------------------------------------------------------


class _Clock:
    """Seconds that go by one at a time, so that a log is the same in every run."""

    def __init__(self) -> None:
        self.now = BEGAN_S

    def __call__(self) -> float:
        self.now += 1
        return float(self.now)


@dataclass
class World:
    """A federation under way in memory. ``blobs``: bytes of contents and reports by SHA-256."""

    chain: MemoryChain
    spec: Spec
    spec_bytes: bytes
    blobs: dict[bytes, bytes] = field(default_factory=dict)
    accounts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._log = LedgerIndex(":memory:", self.chain.ledger())

    @property
    def prefix(self) -> Prefix:
        self._log.sync()
        return Prefix(self._log.entries())

    def update(self, peer: int, number: int, *, final: bool = False, score: int = 0) -> UpdateRef:
        """The peer's update of a round, made as the spec has it from all of the log so far."""
        prefix = self.prefix
        chosen = select(self.spec, prefix, peer, number, now_s=prefix.time_s)
        sequence = prefix.sequence(peer) + 1
        ref = UpdateRef(peer, sequence)
        content = f"weights of {ref}".encode()
        self.blobs[hashlib.sha256(content).digest()] = content
        parents = self._shared([(entry.ref, entry.update.train_samples) for entry in chosen.candidates], prefix)
        head = self.chain.tip().head
        claimed = score or min(PPM, 500_000 + 60_000 * number + 7_000 * peer)
        base = claimed - 12_000 if parents else 100_000
        rule = Rule.FEDAVG if parents else Rule.GENESIS
        report = self._report(peer, sequence, number, final, head, parents, chosen.outcomes_after({}), claimed, base)
        update = Update(
            *(hashlib.sha256(content).digest(), Flag.FINAL if final else Flag(0), digest("weights", ref)),
            *(digest("base", ref), report, head.size, head.root, sequence, number, claimed, base),
            *(0 if final else 100 * peer, 40 + peer, rule),
        )
        self.ledger(peer).publish(update, parents)
        return ref

    def attest(self, peer: int, *refs: UpdateRef, less: int = 4_000) -> None:
        """The peer's scores: what was claimed, less something."""
        known = self.prefix
        found = [known.update(ref).update for ref in refs]
        items = [
            Attestation(ref.peer, ref.sequence, max(0, one.score_ppm - less), max(0, one.base_score_ppm - less))
            for ref, one in zip(refs, found, strict=True)
        ]
        self.ledger(peer).attest(digest("evidence", peer, refs), items)

    def ledger(self, peer: int) -> Any:
        return self.chain.ledger(self.accounts[peer - 1])

    def admit(self, site: str, roles: Role = Role.ALL) -> int:
        self.accounts.append(memory_account(len(self.accounts) + 1))
        self.chain.ledger().admit(self.accounts[-1], site, roles)
        return len(self.accounts)

    def _shared(self, weights: Sequence[tuple[UpdateRef, int]], prefix: Prefix) -> list[Parent]:
        total = sum(weight for _, weight in weights)
        shares = [weight * PPM // total for _, weight in weights] if total else []
        if shares:
            shares[0] += PPM - sum(shares)
        return [
            Parent(ref.peer, ref.sequence, prefix.update(ref).content[:4], share)
            for (ref, _), share in zip(weights, shares, strict=True)
        ]

    def _report(
        self,
        peer: int,
        sequence: int,
        number: int,
        final: bool,
        head: LedgerHead,
        parents: Sequence[Parent],
        outcomes: tuple[dict[str, Any], ...],
        score: int,
        base: int,
    ) -> bytes:
        draft = Draft(
            *(sequence, number, final, head.size, head.root, tuple(parents), outcomes, 1),
            base=digest("base", UpdateRef(peer, sequence)),
            train_samples=100 * peer,
            base_score_ppm=base,
        )
        raw = compose_report(peer, draft, _Found(score, 40 + peer))  # type: ignore[arg-type]
        self.blobs[hashlib.sha256(raw).digest()] = raw
        return hashlib.sha256(raw).digest()


@dataclass(frozen=True)
class _Found:
    score_ppm: int
    samples: int
    macro_f1: float = 0.5
    precision: float = 0.5
    recall: float = 0.5
    auc: float | None = None
    dice: float | None = None
    loss: float = 1.25
    confusion: tuple[tuple[int, ...], ...] = ((9, 1), (2, 8))

    @property
    def accuracy(self) -> float:
        return self.score_ppm / PPM


def founded(sites: Sequence[str], spec: str = SPEC) -> World:
    """A federation with these sites' peers, numbered from 1, that have written nothing yet."""
    federation = parse_federation(spec.encode())
    members = [Member(memory_account(number), site) for number, site in enumerate(sites, 1)]
    chain = MemoryChain(
        members,
        spec_digest=federation.digest,
        genesis_content=digest("genesis"),
        genesis_weights=digest("genesis weights"),
        clock=_Clock(),
        address=ADDRESS,
    )
    return World(chain, federation.spec, spec.encode(), accounts=[member.account for member in members])


def played() -> World:
    """Six peers of five sites and a newcomer, four rounds and closing updates. Peers 1 and 6 are of one site; peer 5
    withdraws an update and is retired, from before its last one; updates 2#2 and 3#2 meet objections; 4#1 stays
    unattested."""
    world = founded(["clinic-a", "clinic-b", "clinic-c", "clinic-d", "clinic-e", "clinic-a"])
    for peer in range(1, 7):
        world.ledger(peer).announce(1, digest("key", peer), digest("pin", peer), f"https://clinic-{peer}.example:8443")
    active = [1, 2, 3, 4, 5, 6]
    for number in range(1, 5):
        made = [world.update(peer, number) for peer in active if (peer, number) != (3, 3)]
        for peer in active:
            wanted = [ref for ref in made if ref.peer != peer and ref != UpdateRef(4, 1)]
            if peer != 6 or number > 1:
                world.attest(peer, *wanted, less=3_000 + 1_000 * peer)
        if number == 1:
            active.append(world.admit("clinic-new"))
        if number == 2:
            world.ledger(1).object(UpdateRef(2, 2), Reason.UNAVAILABLE)
            world.ledger(4).object(UpdateRef(3, 2), Reason.MALFORMED, digest("evidence"))
            world.ledger(1).object(UpdateRef(3, 2), Reason.MALFORMED)
            world.ledger(5).object(UpdateRef(5, 2), Reason.WITHDRAWN)
            world.ledger(2).announce(2, digest("key", 2, 2), digest("pin", 2), "https://moved.example:8443")
        if number == 3:
            last = world.prefix.latest(5)
            assert last is not None
            world.chain.ledger().retire(world.accounts[4], "left the consortium", last.index)
            active.remove(5)
    for peer in active:
        world.update(peer, 5, final=True)
    return world


# ---- a chain that holds whatever it is told --------------------------------------------------------------------------


def write_federation(folder: Path, reader: LedgerReader, spec_bytes: bytes, rpc: str = NOWHERE) -> Path:
    """The deployed federation file of a ledger."""
    known = reader.identity
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "federation.toml"
    place = Deployment(chain_id=known.chain_id, contract=known.address, first_block=known.first_block, rpc=rpc)
    file.write_bytes(deployed_bytes(spec_bytes, place))
    return file


@dataclass
class Explored:
    """An explorer over one ledger, whose follower looks only when told to."""

    app: Flask
    ledger: LedgerReader
    file: Path
    world: World | None = None

    @property
    def shown(self) -> Shown:
        found: Shown = next(iter(self.app.extensions["federations"].values()))
        return found

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()

    def get(self, path: str, **more: Any) -> Any:
        """A page of this federation, by what comes after its address: ``/updates.json``."""
        return self.client.get(f"/{self.shown.slug}{path}", **more)

    def json(self, path: str) -> Any:
        """A page's JSON; it must be there."""
        answer = self.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:400])
        return answer.get_json()

    def look(self) -> None:
        """Follow the chain to its head."""
        self.shown.follower.look()

    def stop(self) -> None:
        self.shown.stop()


def explored(
    folder: Path,
    reader: LedgerReader,
    spec_bytes: bytes = SPEC.encode(),
    *,
    world: World | None = None,
    look: bool = True,
    connect: Callable[[], LedgerReader] | None = None,
    **options: Any,
) -> Explored:
    """An explorer over a ledger, its index on disk in this folder and level with the log."""
    file = write_federation(folder, reader, spec_bytes)
    source = Source(file, connect=connect or (lambda: reader))
    chosen: dict[str, Any] = {"hosts": (), "harvest": False, **options}
    one = Explored(create_app(Options(sources=(source,), **chosen), start=False), reader, file, world)
    if look:
        one.look()
    return one


def over(world: World, folder: Path, **options: Any) -> Explored:
    """An explorer over a played federation."""
    return explored(folder, world.chain.ledger(), world.spec_bytes, world=world, **options)


def closing(one: Explored) -> Iterator[Explored]:
    """For fixtures: stop it in the end."""
    try:
        yield one
    finally:
        one.stop()


def until(what: Callable[[], Any], seconds: float = SOON_S) -> Any:
    """Wait for something to be true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"still {what()!r} after {seconds} s")
