"""Replays a ledger as a stranger would: every update's selection, shares, base and commitment, from log and bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fl_node.content.cid import Cid
from fl_node.decoding import Decoder, Opening
from fl_node.merging import weights
from fl_node.merging.aggregation import Merge, aggregate
from fl_node.merging.personal import published
from fl_node.merging.selection import Selection, select
from fl_node.merging.trust import check_row, recorded_trust
from fl_node.merging.weights import Tensors
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import Entry, Flag, Rule, UpdatePublished, UpdateRef, UpdatesAttested
from fl_node.spec import Spec

Read = Callable[[Cid], bytes]


def root_of(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 by its definition, recursive; no code of the package."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    left = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + root_of(leaves[:left]) + root_of(leaves[left:])).digest()


def leaf_of(entry: Entry) -> bytes:
    return hashlib.sha256(b"\x00" + b"".join(entry.topics) + entry.data).digest()


def cid_of(entry: UpdateEntry) -> Cid:
    return Cid("dag-pb" if entry.update.flags & Flag.DAG_PB else "raw", entry.content)


class Replay:
    """Checks updates of one log. ``read`` gives bytes by CID, from wherever."""

    def __init__(
        self, spec: Spec, entries: Sequence[Entry], genesis: Tensors, read: Read, opener: Opening | None = None
    ) -> None:
        self.spec, self.entries, self.read = spec, entries, read
        self.genesis = published(spec, genesis)
        self.full = Prefix(entries)
        schema = weights.schema_of(self.genesis)
        self.decoder = Decoder(spec, schema, lambda: self.genesis, lambda entry: read(cid_of(entry)), opener)
        self.leaves = [leaf_of(entry) for entry in entries]

    def check(self, peers: Sequence[int] | None = None) -> list[UpdateEntry]:
        """Every update (of these peers). Returns them; fails where one does not follow from the log."""
        checked = []
        for entry in self.entries:
            if isinstance(entry.body, UpdatePublished) and (peers is None or entry.body.peer in peers):
                update = self.full.update(entry.body.ref)
                self.check_update(update)
                checked.append(update)
        for peer in {update.ref.peer for update in checked}:
            mine = [update.ref.sequence for update in checked if update.ref.peer == peer]
            assert mine == list(range(1, len(mine) + 1)), f"sequences of peer {peer}: {mine}"
            rounds = [update.round for update in checked if update.ref.peer == peer]
            assert rounds == sorted(set(rounds)), f"rounds of peer {peer}: {rounds}"
        return checked

    def check_update(self, update: UpdateEntry) -> None:
        facts = update.update
        assert facts.seen_root == root_of(self.leaves[: facts.seen]), f"{update.ref}: seenRoot is not of its prefix"
        before = self.full.upto(update.index)
        chosen = select(self.spec, before, update.ref.peer, update.round, seen=facts.seen, now_s=update.time_s)
        recorded = {parent.ref for parent in update.parents}
        allowed = {entry.ref: entry for entry in chosen.candidates}
        assert set(allowed) - chosen.excusable <= recorded <= set(allowed), (
            f"{update.ref}: merged {sorted(map(str, recorded))}, the rules give {sorted(map(str, allowed))}"
        )
        candidates = [entry for entry in chosen.candidates if entry.ref in recorded]
        merged = self.merged(update, chosen, candidates)
        assert merged.parents == update.parents and merged.rule == facts.rule, f"{update.ref}: shares"
        assert weights.digest(merged.tensors) == facts.base, f"{update.ref}: base"
        if facts.rule == Rule.TRUST:
            faults = check_row(self.spec, recorded_trust(before, update.ref.peer), update.parents)
            assert not faults, f"{update.ref}: {faults}"
        own = self.tensors(update)
        if update.final or (update.round - 1) % self.spec.training.every:
            assert weights.digest(own) == facts.base, f"{update.ref}: an untrained update is its base"
        self.check_report(update, chosen.outcomes_after({}, merged.rejected))

    def base_of(self, update: UpdateEntry) -> Tensors:
        """The recorded base, from its parents' bytes."""
        before, facts = self.full.upto(update.index), update.update
        chosen = select(self.spec, before, update.ref.peer, update.round, seen=facts.seen, now_s=update.time_s)
        base = self.merged(update, chosen, [before.update(parent.ref) for parent in update.parents]).tensors
        assert weights.digest(base) == facts.base
        return base

    def merged(self, update: UpdateEntry, chosen: Selection, candidates: Sequence[UpdateEntry]) -> Merge:
        return aggregate(
            self.spec,
            candidates,
            [self.tensors(entry) for entry in candidates],
            lambda: self.genesis,
            standing=chosen.standing,
            centre=lambda: self.centre(self.full.upto(update.index), update.ref.peer),
            row={parent.peer: parent.share_ppm for parent in update.parents},
        )

    def centre(self, before: Prefix, peer: int) -> Tensors:
        """What a peer clips around: its latest trained update, unless it withdrew that."""
        latest = before.trained(peer)
        if latest is None or any(word.peer == peer for word in before.objections(latest.ref)):
            return self.genesis
        return self.tensors(latest)

    def check_attestations(self) -> dict[tuple[int, UpdateRef], tuple[int, int]]:
        """All attestations, each told coarsely and once; by who said it and of what."""
        step = self.spec.attestation.coarsen_ppm
        found: dict[tuple[int, UpdateRef], tuple[int, int]] = {}
        for entry in self.entries:
            if isinstance(entry.body, UpdatesAttested):
                assert entry.body.evidence == bytes(32) and len(entry.body.items) <= 64
                for item in entry.body.items:
                    key = entry.body.peer, UpdateRef(item.peer, item.sequence)
                    assert key not in found and item.peer != entry.body.peer
                    assert item.score_ppm % step == item.base_score_ppm % step == 0
                    found[key] = item.score_ppm, item.base_score_ppm
        return found

    def tensors(self, entry: UpdateEntry) -> Tensors:
        found = self.decoder.tensors(entry, self.full)
        opened = self.full.opened
        commitment = weights.commitment(
            opened.chain_id, opened.ledger, entry.ref.peer, entry.ref.sequence, weights.digest(found)
        )
        assert commitment == entry.update.weights, f"{entry.ref}: commitment"
        return found

    def check_report(self, update: UpdateEntry, outcomes: Sequence[Mapping[str, Any]]) -> None:
        raw = self.read(Cid("raw", update.update.report))
        assert hashlib.sha256(raw).digest() == update.update.report
        report = json.loads(raw)
        assert report["update"] == str(update.ref) and report["round"] == update.round
        assert report["seen"] == update.update.seen and report["base"] == update.update.base.hex()
        assert report["score_ppm"] == update.update.score_ppm
        said = [(item["peer"], item["sequence"], item["outcome"]) for item in report["candidates"]]
        replayed = [(item["peer"], item["sequence"], item["outcome"]) for item in outcomes]
        excused = {(item["peer"], item["sequence"]) for item in report["candidates"] if item["outcome"] != "merged"}
        assert [item for item in said if item[:2] not in excused] == [
            item for item in replayed if item[:2] not in excused
        ], f"{update.ref}: the report says {said}, the rules give {replayed}"
