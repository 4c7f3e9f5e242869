"""Logs of claims and attestations, as peers with rows of some kind would write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fl_node.merging import weights
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import (
    PPM,
    Attestation,
    Body,
    Entry,
    Flag,
    LedgerOpened,
    PeerAdmitted,
    PeerRetired,
    Role,
    Update,
    UpdatePublished,
    UpdateRef,
    UpdatesAttested,
)
from fl_node.spec import Spec

CHAIN, LEDGER = 31337, "0x" + "ab" * 20


def spec_of(**tables: Any) -> Spec:
    """Accuracy, everybody attests, validation rows half as many as test rows."""
    return Spec.model_validate({"attestation": {"mode": "all", "coarsen_ppm": 1_000}, **tables})


@dataclass
class ClaimLog:
    """Entries by hand. ``sites``: of peers 1, 2, ...; by default each its own."""

    peers: int = 0
    sites: Sequence[str] = ()
    entries: list[Entry] = field(default_factory=list)
    sequences: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        zero = bytes(32)
        self.add(LedgerOpened(CHAIN, LEDGER, zero, zero, zero, Flag(0), 0, LEDGER))
        for peer in range(1, self.peers + 1):
            site = self.sites[peer - 1] if self.sites else f"site-{peer}"
            self.add(PeerAdmitted(peer, f"0x{peer:040x}", site, Role.ALL))

    def add(self, body: Body) -> int:
        self.entries.append(Entry(len(self.entries), 1_000, 0, bytes(32), bytes(32), (), b"", body))
        return len(self.entries) - 1

    def claim(
        self,
        peer: int,
        score: int,
        base: int,
        rows: int = 1_000,
        round: int = 1,
        *,
        final: bool = False,
        untrained: bool = False,
        digest: bytes = b"m" * 32,
        base_digest: bytes = b"b" * 32,
    ) -> UpdateRef:
        """An update. ``untrained``: its weights are committed to as those of its base."""
        sequence = self.sequences[peer] = self.sequences.get(peer, 0) + 1
        committed = base_digest if untrained else digest
        zero = bytes(32)
        update = Update(
            content=zero,
            flags=Flag.FINAL if final else Flag(0),
            weights=weights.commitment(CHAIN, LEDGER, peer, sequence, committed),
            base=base_digest,
            report=zero,
            seen=len(self.entries),
            seen_root=zero,
            sequence=sequence,
            round=round,
            score_ppm=score,
            base_score_ppm=base,
            train_samples=rows,
            test_samples=rows,
            rule=1,
        )
        self.add(UpdatePublished(peer, update, ()))
        return UpdateRef(peer, sequence)

    def attest(self, peer: int, ref: UpdateRef, score: int, base: int) -> int:
        return self.add(UpdatesAttested(peer, bytes(32), (Attestation(ref.peer, ref.sequence, score, base),)))

    def retire(self, peer: int, from_index: int) -> None:
        self.add(PeerRetired(peer, from_index, "left"))

    @property
    def prefix(self) -> Prefix:
        return Prefix(self.entries)

    def entry(self, ref: UpdateRef) -> UpdateEntry:
        return self.prefix.update(ref)


@dataclass(frozen=True)
class Federation:
    """What made-up peers claimed and attested."""

    spec: Spec
    log: ClaimLog
    refs: tuple[UpdateRef, ...]


def made_up(
    peers: int,
    rounds: int,
    rows: int,
    seed: int,
    *,
    liars: Sequence[int] = (),
    points: float = 10.0,
    base_too: bool = False,
    home: Callable[[np.random.Generator], float] | None = None,
    mistaken: Sequence[int] = (),
) -> Federation:
    """Federations whose models are right on a row with a probability that rises from 0.7 to 0.85; a round changes a
    twentieth of all predictions. A peer's rows are the same in all rounds.

    Args:
        rows: a peer's test rows; it has half as many validation rows.
        liars: peers that claim so many points more; with ``base_too`` of their bases, too.
        home: by how much a model is better on its publisher's rows than on others', drawn once for a peer.
        mistaken: peers that measure 0 whatever they look at.
    """
    draw = np.random.default_rng(seed)
    spec, log, refs = spec_of(), ClaimLog(peers), []
    hard = {peer: (draw.random(rows), draw.random(rows // 2)) for peer in range(1, peers + 1)}
    better = {peer: home(draw) if home else 0.0 for peer in hard}

    def share(part: np.ndarray, chance: float) -> float:
        """Rows below the chance are right, but for a twentieth that is anybody's guess."""
        luck = draw.random(len(part))
        right = np.where(luck < 0.05, draw.random(len(part)) < chance, part < chance)
        return float(right.mean())

    def ppm(part: float, count: int, more: float = 0.0) -> int:
        return min(count, round(part * count) + round(more / 100 * count)) * PPM // count

    for number in range(1, rounds + 1):
        base, score = (0.7 + 0.15 * (1 - 0.6 ** (number - back)) for back in (1, 0))
        these = []
        for peer, (test, _) in hard.items():
            more = points if peer in liars else 0.0
            claimed = ppm(share(test, min(1.0, score + better[peer])), rows, more)
            before = ppm(share(test, min(1.0, base + better[peer] * 0.9)), rows, more if base_too else 0.0)
            these.append(log.claim(peer, claimed, before, rows, number, digest=bytes([number, peer] * 16)))
        for peer, (_, validation) in hard.items():
            for ref in these:
                if ref.peer != peer:
                    said = [round(share(validation, chance) * 1_000) * 1_000 for chance in (score, base)]
                    log.attest(peer, ref, *([0, 0] if peer in mistaken else said))
        refs += these
    return Federation(spec, log, tuple(refs))


def changed(entry: UpdateEntry, **values: Any) -> UpdateEntry:
    """The same update with other values on the ledger."""
    return replace(entry, update=replace(entry.update, **values))
