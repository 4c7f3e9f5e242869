"""A long log for the explorer's benchmark, made as it is read: ``GrowingChain`` is a ledger whose entries decode like a
contract's and whose parents follow from the spec by the package's own rules.

Gossip among 50 peers of 40 sites: each merges its own update and five drawn ones, attests to about eleven others in
several entries, and publishes. Now and then one objects, withdraws, moves to another endpoint, or misses rounds; one
joins late, one is retired. The last rounds are closing updates.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fl_node.ledger import codec, tree
from fl_node.ledger.abi import address_bytes
from fl_node.ledger.memory import memory_account
from fl_node.ledger.protocol import LedgerIdentity, News, RawLog
from fl_node.merging.draws import draw_seed, in_order
from fl_node.merging.shares import largest_remainder
from fl_node.records import (
    PPM,
    Attestation,
    Body,
    Flag,
    LedgerHead,
    LedgerOpened,
    OwnerChanged,
    Parent,
    PeerAdmitted,
    PeerAnnounced,
    PeerRetired,
    Reason,
    Role,
    Rule,
    Update,
    UpdateObjected,
    UpdatePublished,
    UpdateRef,
    UpdatesAttested,
)
from fl_node.spec import Deployment, deployed_bytes, parse_federation

SPEC: Final = """\
format = 1
name = "fifty peers"

[task]
data = "digits"

[merging]
selection = "random-k"
k = 5
aggregation = "fedavg"

[attestation]
mode = "sample"
k = 11

[rounds]
planned = 2000

[privacy]
encrypt = false
"""
ADDRESS: Final = "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512"
DRAWN: Final = 5
STALE_AFTER: Final = 10
BEGAN_S: Final = 1_750_000_000
ROUND_S: Final = 60


def digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


@dataclass(slots=True)
class _Peer:
    """A member, and what its next update follows from."""

    number: int
    site: int
    seed: bytes
    active: bool = True
    sequence: int = 0
    epoch: int = 0
    away_until: int = 0
    latest: Update | None = None  # trained
    latest_at: int = 0
    withdrawn: bool = False
    heard: bool = False  # another site has attested the latest
    indices: list[int] = field(default_factory=list)  # of its last updates
    attested: dict[int, int] = field(default_factory=dict)  # by peer: the sequence last attested
    objected: set[UpdateRef] = field(default_factory=set)

    @property
    def ref(self) -> UpdateRef:
        assert self.latest is not None
        return UpdateRef(self.number, self.latest.sequence)


class GrowingChain:
    """A ledger that grows when told to; a :class:`fl_node.ledger.protocol.LedgerReader`.

    Args:
        peers, sites: how many.
        updates: how many the whole log has; the last ones are closing updates.
        seed: another one is another log.
    """

    def __init__(self, peers: int = 50, sites: int = 40, updates: int = 100_000, seed: int = 1) -> None:
        self.spec_bytes = SPEC.encode()
        spec_digest = parse_federation(self.spec_bytes).digest
        self.identity = LedgerIdentity(
            31337, ADDRESS, 1, spec_digest, digest("genesis"), digest("genesis weights"), Flag(0), 0
        )
        self._dice, self._members, self._sites, self._updates = random.Random(seed), peers, sites, updates
        self._frontier, self._time_s, self._block, self._round = tree.Frontier(), BEGAN_S, 0, 0
        self._head = LedgerHead(0, tree.EMPTY_ROOT, 0, bytes(32))
        self._recent: list[RawLog] = []
        self._lock = threading.Lock()
        self._peers: dict[int, _Peer] = {}
        self._story = self._tell()

    @property
    def size(self) -> int:
        return self._frontier.size

    def grow(self, entries: int) -> int:
        """About so many entries more, to the end of a peer's turn; how many they were. 0: the log is whole."""
        with self._lock:
            before = self.size
            while self.size - before < entries and next(self._story, False):
                pass
            self._head = LedgerHead(self.size, self._frontier.root, self._block, self._hash(self._block), self._round)
            return self.size - before

    def write_federation(self, folder: Path, rpc: str = "http://127.0.0.1:9") -> Path:
        """The deployed federation file."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "federation.toml"
        place = Deployment(chain_id=31337, contract=self.identity.address, first_block=1, rpc=rpc)
        file.write_bytes(deployed_bytes(self.spec_bytes, place))
        return file

    # ---- LedgerReader ------------------------------------------------------------------------------------------------

    def head(self, depth: int = 0, fresh: bool = False) -> LedgerHead:
        return self._head

    def news(self, known: tuple[int, bytes] | None, depth: int = 0) -> News | None:
        with self._lock:
            head = self._head
            if known is not None and known[1] == head.block_hash:
                return None
            after = 0 if known is None else known[0]
            if self._recent and self._recent[0].block_number <= after:  # nobody asks for what was taken
                self._recent = [log for log in self._recent if log.block_number > after]
            follows = known is None or known[1] == self._hash(known[0])
            return News(head, follows, list(self._recent))

    def block_hash(self, number: int) -> bytes | None:
        return self._hash(number) if 1 <= number <= self._head.block_number else None

    def logs(self, first_block: int, last_block: int) -> list[RawLog]:
        with self._lock:
            return [log for log in self._recent if first_block <= log.block_number <= last_block]

    def peer(self, number: int) -> Any:
        raise LookupError(number)

    def peers(self) -> Sequence[Any]:
        return ()

    def peer_of(self, account: str) -> None:
        return None

    def update(self, ref: UpdateRef) -> Any:
        raise LookupError(ref)

    def balance(self, account: str) -> int:
        return 0

    # ---- the story, a turn at a time ---------------------------------------------------------------------------------

    def _tell(self) -> Iterator[bool]:
        dice, known = self._dice, self.identity
        opened = LedgerOpened(
            *(known.chain_id, known.address, known.spec_digest, known.genesis_content, known.genesis_weights),
            *(Flag(0), 0, memory_account(0)),
        )
        self._say(opened, *(self._admission(number) for number in range(1, self._members)))
        yield True
        made, done = 0, False
        while not done:
            self._round += 1
            self._time_s = max(self._time_s + 1, BEGAN_S + self._round * ROUND_S)
            final = made + len(self._peers) >= self._updates
            for peer in dice.sample(list(self._peers.values()), len(self._peers)):
                if not final and (not peer.active or self._missing(peer)):
                    continue
                if not peer.active:
                    continue
                self._turn(peer, final)
                made += 1
                yield True
                if made == self._updates:
                    done = True
                    break
            done = done or final
            self._between_rounds()
            yield True

    def _between_rounds(self) -> None:
        if self._round == 300:
            self._say(self._admission(self._members))
        if self._round == 1500 and len(self._peers) > 2:
            gone = self._peers[self._members - 1]
            gone.active = False
            self._say(PeerRetired(gone.number, gone.indices[-1], "the site left the consortium"))
        if self._round in (100, 1000):
            self._say(OwnerChanged(memory_account(0), memory_account(90_000 + self._round)))
            self._unknown()

    def _missing(self, peer: _Peer) -> bool:
        if self._round < peer.away_until:
            return True
        if self._dice.random() < 0.001:
            peer.away_until = self._round + self._dice.randint(2, 30)
        return self._dice.random() < 0.005

    def _turn(self, peer: _Peer, final: bool) -> None:
        """What a peer writes in a round: where it is, objections, attestations, then its update."""
        dice = self._dice
        self._time_s += 1
        if not peer.epoch or dice.random() < 0.001:
            peer.epoch += 1
            where = f"https://peer-{peer.number}.site-{peer.site}.example:{8000 + peer.epoch}"
            self._say(PeerAnnounced(peer.number, peer.epoch, digest("k", peer.number, peer.epoch), digest("p"), where))
        others = [one for one in self._peers.values() if one.active and one.latest is not None and one is not peer]
        if others and dice.random() < 0.004:
            self._object(peer, dice.choice(others))
        if peer.latest is not None and not peer.withdrawn and dice.random() < 0.0005:
            peer.withdrawn = True
            self._say(UpdateObjected(peer.number, peer.ref, Reason.WITHDRAWN, digest("withdrawn", peer.ref)))
        seen, seen_root = self.size, self._frontier.root
        parents = self._parents(peer, seen)
        self._attest(peer, others)
        self._publish(peer, final, seen, seen_root, parents)

    def _object(self, peer: _Peer, other: _Peer) -> None:
        if not other.heard or other.ref in peer.objected:
            return  # unattested, a few such words would keep others from merging it
        peer.objected.add(other.ref)
        reason = self._dice.choice((Reason.UNAVAILABLE, Reason.UNAVAILABLE, Reason.MALFORMED, Reason.DIGEST_MISMATCH))
        self._say(UpdateObjected(peer.number, other.ref, reason, digest("evidence", other.ref)))

    def _attest(self, peer: _Peer, others: Sequence[_Peer]) -> None:
        fresh = [
            one for one in others if one.latest is not None and peer.attested.get(one.number) != one.latest.sequence
        ]
        wanted = self._dice.sample(fresh, min(11, len(fresh)))
        at = 0
        while at < len(wanted):
            many = 2 if self._dice.random() < 0.235 else 1
            items = []
            for one in sorted(wanted[at : at + many], key=lambda one: one.number):
                update = one.latest
                assert update is not None
                peer.attested[one.number] = update.sequence
                one.heard = one.heard or one.site != peer.site
                less = self._dice.randint(-2_000, 9_000)
                told = (max(0, min(PPM, value - less)) for value in (update.score_ppm, update.base_score_ppm))
                items.append(Attestation(one.number, update.sequence, *told))
            self._say(UpdatesAttested(peer.number, digest("evidence", peer.number, self.size), tuple(items)))
            at += many

    def _parents(self, peer: _Peer, seen: int) -> tuple[Parent, ...]:
        """Own update and five drawn ones, as ``random-k`` has it; shares by training samples."""
        stale_before = peer.indices[-STALE_AFTER - 1] if len(peer.indices) > STALE_AFTER else -1
        pool = {one.number: one for one in self._peers.values() if one.active and one.latest is not None}
        others = [number for number in pool if number != peer.number]
        order: Iterator[int] | list[int] = others
        if len(others) > DRAWN:
            order = in_order(draw_seed(self.identity.spec_digest, peer.seed, peer.sequence + 1), others)
        chosen: list[_Peer] = []
        for number in order:
            one = pool[number]
            if one.withdrawn or one.latest_at < stale_before or one.ref in peer.objected:
                continue
            chosen.append(one)
            if len(chosen) == DRAWN:
                break
        if peer.latest is not None and not peer.withdrawn:
            chosen.append(peer)
        chosen.sort(key=lambda one: one.number)
        updates = [one.latest for one in chosen if one.latest is not None]
        if not updates:
            return ()
        keys = [
            update.content + one.number.to_bytes(4, "big") + update.sequence.to_bytes(4, "big")
            for one, update in zip(chosen, updates, strict=True)
        ]
        shares = largest_remainder([update.train_samples for update in updates], keys)
        return tuple(
            Parent(one.number, update.sequence, update.content[:4], share)
            for one, update, share in zip(chosen, updates, shares, strict=True)
        )

    def _publish(self, peer: _Peer, final: bool, seen: int, seen_root: bytes, parents: tuple[Parent, ...]) -> None:
        dice, sequence = self._dice, peer.sequence + 1
        ref = (peer.number, sequence)
        progress = 1 - 0.75 * 0.998**self._round
        score = max(0, min(PPM, round(PPM * progress + dice.gauss(-500 * peer.number, 9_000))))
        base = max(0, score - dice.randint(-2_000, 15_000)) if parents else 100_000
        samples = 0 if final or dice.random() < 0.002 else 200 * peer.number + dice.randint(0, 20)
        update = Update(
            *(digest("content", ref), Flag.FINAL if final else Flag(0), digest("weights", ref), digest("base", ref)),
            *(digest("report", ref), seen, seen_root, sequence, self._round, score, base, samples),
            *(40 * peer.number, Rule.FEDAVG if parents else Rule.GENESIS),
        )
        peer.sequence = sequence
        peer.indices = [*peer.indices[-STALE_AFTER:], self.size]
        if not final:
            peer.latest, peer.latest_at, peer.withdrawn, peer.heard = update, self.size, False, False
        self._say(UpdatePublished(peer.number, update, parents))

    # ---- writing -----------------------------------------------------------------------------------------------------

    def _admission(self, number: int) -> Body:
        account = memory_account(number)
        site = (number - 1) % self._sites + 1
        self._peers[number] = _Peer(number, site, address_bytes(account))
        return PeerAdmitted(number, account, f"site-{site}" if site % 7 else f"Hôpital {site}", Role.ALL)

    def _say(self, *bodies: Body) -> None:
        """A block with these entries."""
        self._block += 1
        place = self._block, self._hash(self._block), digest("tx", self._block)
        for body in bodies:
            topics, data = codec.encode(self.size, self._time_s, body)
            self._frontier.append(tree.entry_leaf(topics, data))
            self._recent.append(RawLog(*place, topics, data))

    def _unknown(self) -> None:
        self._block += 1
        topics = digest("a later kind"), self.size.to_bytes(32, "big")
        data = self._time_s.to_bytes(32, "big") + b"\x01" * 40
        self._frontier.append(tree.entry_leaf(topics, data))
        self._recent.append(RawLog(self._block, self._hash(self._block), digest("tx", self._block), topics, data))

    def _hash(self, number: int) -> bytes:
        return digest("block", number)
