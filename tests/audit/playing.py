"""Federations played in memory by peers that do what real ones do, and by some that lie at one place.

Each update is selected, merged, trained, scored, committed to and reported as the package's own rules have it. A
:class:`Lie` replaces one step of one update; whoever plays after it plays honestly on top of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import small_nets
from signed_ledger import CHAIN_ID, SignedLedger, founders, key
from small_nets import Scored, Splits

from fl_node.attesting import coarsened
from fl_node.content.cid import Cid
from fl_node.content.memory import MemoryStore
from fl_node.decoding import Decoder
from fl_node.errors import ContentError, ContentMismatch, MalformedWeights, Unreadable
from fl_node.journal import Draft
from fl_node.key_keeping import GivenKeys
from fl_node.keys import Signer
from fl_node.ledger.deploy import Opening
from fl_node.merging import encodings, weights
from fl_node.merging.aggregation import Merge, aggregate
from fl_node.merging.attested import attestable
from fl_node.merging.outcomes import Failure
from fl_node.merging.selection import Selection, select
from fl_node.merging.weights import Array, Tensors
from fl_node.prefix import UpdateEntry
from fl_node.readers import readers_at, referred, sealed_for
from fl_node.records import Attestation, Flag, Parent, Reason, Update, UpdateRef
from fl_node.released import attested_step, released
from fl_node.report import compose_report
from fl_node.sealing import age
from fl_node.sealing.age import Identity
from fl_node.spec import Federation, Spec, parse_federation

Model = dict[str, Array]

SPEC = """\
format = 1
name = "four sites"

[task]
data = "digits"
input_shape = [{size}]
classes = 4
validation = 0.2
test = 0.25

[model]
name = "{model}"
hidden = [8]

[merging]
selection = "{selection}"
k = 2
aggregation = "{aggregation}"
objection_quorum = 3

[attestation]
mode = "{attesting}"
coarsen_ppm = 1000

[rounds]
planned = {rounds}
mode = "{mode}"
max_lag = {max_lag}

[privacy]
encrypt = {encrypt}
mechanism = "{mechanism}"
"""
ENCODING = """
[encoding]
kind = "{encoding}"
block = 8
density = 0.2
full_every = {full_every}
full = "{full}"
"""


@dataclass
class Lie:
    """What one update does otherwise. Each is given what an honest peer has there, and returns something else."""

    seen: Callable[[int], int] | None = None
    seen_root: Callable[[bytes], bytes] | None = None
    #: Who is merged and recorded, of those that the policy gives.
    chosen: Callable[[list[UpdateEntry]], list[UpdateEntry]] | None = None
    #: The base, from candidates, their models and the honest merge.
    base: Callable[[Sequence[UpdateEntry], Sequence[Tensors], Merge], Tensors] | None = None
    parents: Callable[[tuple[Parent, ...]], tuple[Parent, ...]] | None = None
    model: Callable[[Model], Tensors] | None = None
    #: Before it is encrypted, and after that.
    payload: Callable[[bytes], bytes] | None = None
    recipients: Callable[[list[bytes]], list[bytes]] | None = None
    blob: Callable[[bytes], bytes] | None = None
    scored: Callable[[Scored], Scored] | None = None
    draft: Callable[[Draft], Draft] | None = None
    report: Callable[[bytes], bytes] | None = None
    update: Callable[[Update], Update] | None = None
    signer: Signer | None = None
    data: Callable[[Update, tuple[Parent, ...]], bytes] | None = None


@dataclass
class Made:
    """Bytes to publish, the model that they hold, and what the ledger says of them besides."""

    blob: bytes
    model: Model
    changes: dict[str, Any]


@dataclass
class Play:
    """A federation under way. ``models`` and ``bases`` are what was published and started from, by update."""

    mode: str = "async"
    peers: int = 4
    rounds: int = 3
    seed: int = 1
    size: int = 6
    model: str = "logistic"
    selection: str = "all-latest"
    aggregation: str = "fedavg"
    attesting: str = "all"
    max_lag: int = 40
    salt: str = ""
    rows: tuple[int, int, int] = (80, 200, 250)
    encrypt: bool = False
    encoding: str = "f32"
    mechanism: str = "none"
    full_every: int = 10
    full: str = "int8"
    lies: dict[str, Lie] = field(default_factory=dict)
    genesis_weights: Callable[[bytes], bytes] = lambda digest: digest
    code: bytes | None = None

    def __post_init__(self) -> None:
        names = ("size", "model", "mechanism", "selection", "aggregation", "attesting", "rounds", "mode", "max_lag")
        text = SPEC.format(encrypt=str(self.encrypt).lower(), **{name: getattr(self, name) for name in names})
        if self.encoding != "f32":
            text += ENCODING.format(encoding=self.encoding, full_every=self.full_every, full=self.full)
        self.spec_bytes = text.encode()
        self.federation: Federation = parse_federation(self.spec_bytes)
        self.spec: Spec = self.federation.spec
        self.splits: list[Splits] = small_nets.deal(self.spec, self.peers + 1, self.seed, self.rows)
        self.genesis = small_nets.genesis(self.spec, self.seed)
        self.schema = weights.schema_of(self.genesis)
        self.stores = {number: MemoryStore() for number in range(1, self.peers + 2)}
        content = self.stores[1].add(weights.encode(self.genesis))
        self.stores[1].add(self.spec_bytes)
        self.models: dict[UpdateRef, Model] = {}
        self.bases: dict[UpdateRef, Tensors] = {}
        self.ledger = SignedLedger(key("owner"), self.salt)
        members = [(key(f"peer {n}"), f"site-{n}") for n in range(1, self.peers + 1)]
        self.ledger.open(
            Opening(
                *(self.federation.digest, content.digest, self.genesis_weights(weights.digest(self.genesis))),
                *(Flag(0), 0, key("owner").address, founders(members)),
            ),
            members,
            code=self.code,
        )
        self.identities: dict[int, Identity] = {}
        for number in range(1, self.peers + 1):
            self.announce(number)

    def whole(self) -> Play:
        """All planned rounds and the closing updates. A fifth member comes after round 1; it is retired at the end."""
        newcomer = 0
        for number in range(1, self.rounds + 1):
            for peer in range(1, self.peers + 1):
                self.turn(peer, number)
            if newcomer:
                self.turn(newcomer, number)
            if number == 1:
                newcomer = self.ledger.admit(key("newcomer"), "site-new")
                if self.encrypt:
                    self.announce(newcomer)
        for peer in range(1, self.peers + 1):
            self.turn(peer, self.rounds + 1, final=True)
        self.ledger.retire(newcomer, len(self.ledger.entries))
        return self

    def announce(self, peer: int) -> None:
        """Where a peer serves content; and a fresh key, where it takes one to read updates."""
        endpoint = f"memory://{peer}"
        if not self.encrypt:
            self.ledger.announce(peer, endpoint)
            return
        self.identities[peer] = Identity.generate()
        self.ledger.announce(peer, endpoint, self.identities[peer].public)

    # ---- one update ------------------------------------------------------------------------------------------------

    def turn(self, peer: int, number: int, *, final: bool = False, force: bool = False) -> UpdateRef:
        """One round of one peer, as :func:`fl_node.round.play_round` has it."""
        prefix = self.ledger.prefix
        ref = UpdateRef(peer, prefix.sequence(peer) + 1)
        lie = self.lies.get(str(ref), Lie())
        seen = len(self.ledger.entries) if lie.seen is None else lie.seen(len(self.ledger.entries))
        root = self.ledger.root(seen)
        chosen, candidates, failures = self._gathered(peer, number, seen)
        if lie.chosen is not None:
            candidates = lie.chosen(candidates)
        models = [self._read(entry, peer) for entry in candidates]
        merged = self._merged(peer, candidates, models, chosen)
        base = merged.tensors if lie.base is None else lie.base(candidates, models, merged)
        parents = merged.parents if lie.parents is None else lie.parents(merged.parents)
        self.bases[ref] = base
        self._attest(peer, number, seen, candidates)
        rows = self.splits[peer - 1]
        model = dict(base) if final else small_nets.train(base, rows.train, 1000 * peer + ref.sequence)
        if lie.model is not None:
            model = dict(lie.model(model))
        made = self._made(ref, model, lie, exact=final)
        model = self.models[ref] = made.model
        draft = Draft(
            *(ref.sequence, number, final, seen, root if lie.seen_root is None else lie.seen_root(root), parents),
            outcomes=chosen.outcomes_after(failures, merged.rejected),
            rule=merged.rule,
            base=weights.digest(base),
            weights=weights.digest(model),
            train_samples=0 if final else len(rows.train.classes),
            base_score_ppm=self._released(small_nets.score(self.spec, base, rows.test)).score_ppm,
        )
        self._publish(ref, draft, made, self._released(small_nets.score(self.spec, model, rows.test)), lie, force)
        return ref

    def _released(self, found: Scored) -> Scored:
        return replace(found, score_ppm=released(self.spec.privacy, found.score_ppm))

    def _account(self, draft: Draft) -> dict[str, Any] | None:
        """What a peer tells of its account: half an epsilon for each training."""
        asked = self.spec.privacy
        if asked.mechanism == "none":
            return None
        return {
            "mechanism": asked.mechanism,
            "delta": asked.delta,
            "budget_epsilon": asked.epsilon,
            "clip_norm": asked.clip_norm,
            "scores": asked.scores,
            "noise_multiplier": 1.1,
            "sample_rate": 0.1,
            "steps": 10,
            "epsilon": 0.5 * (draft.sequence - draft.final),
        }

    def _made(self, ref: UpdateRef, model: Model, lie: Lie, *, exact: bool) -> Made:
        """The bytes to publish, as :mod:`fl_node.publishing` makes them."""
        origin = weights.origin(CHAIN_ID, self.ledger.address, ref.peer, ref.sequence)
        changes: dict[str, Any] = {}
        if self.encoding == "f32":
            payload = b"".join(weights.encode(model, origin))
        else:
            spec = self.spec.encoding.model_copy(update={"kind": "f32"} if exact else {})
            before = None if exact else self._before(ref)
            reference = self.genesis if before is None else self.models[before]
            encoded = encodings.encode(spec, model, origin, reference=reference, delta=before is not None)
            payload, model = b"".join(map(bytes, encoded.buffers)), dict(encoded.decoded)
            changes = {"encoding": encoded.encoding, "refers_to": 0 if before is None else before.packed()}
        if lie.payload is not None:
            payload = lie.payload(payload)
        if self.encrypt:
            prefix = self.ledger.prefix
            recipients = list(readers_at(prefix).recipients)
            payload = bytes(age.seal(payload, recipients if lie.recipients is None else lie.recipients(recipients)))
            changes["sealed_at"] = prefix.size
        return Made(payload if lie.blob is None else lie.blob(payload), model, changes)

    def _before(self, ref: UpdateRef) -> UpdateRef | None:
        """The own update that a delta is taken from."""
        if ref.sequence < 2 or self.encoding not in ("int8-delta", "top-k-delta"):
            return None
        prefix, most = self.ledger.prefix, self.spec.encoding.full_every
        before = at = prefix.update(UpdateRef(ref.peer, ref.sequence - 1))
        links = 1
        while (earlier := referred(prefix, at)) is not None:
            links, at = links + 1, earlier
        readers = readers_at(prefix).keys if self.encrypt else {}
        if links >= most or not all(sealed_for(prefix, before, number, most) for number in readers):
            return None
        return before.ref

    def _publish(self, ref: UpdateRef, draft: Draft, made: Made, found: Scored, lie: Lie, force: bool) -> None:
        store, address = self.stores[ref.peer], self.ledger.address
        if lie.draft is not None:
            draft = lie.draft(draft)
        if lie.scored is not None:
            found = lie.scored(found)
        cid = store.add(made.blob)
        report = compose_report(ref.peer, draft, cast(Any, found), self._account(draft))
        report_cid = store.add(report if lie.report is None else lie.report(report))
        update = Update(
            *(cid.digest, (Flag.FINAL if draft.final else Flag(0)) | (Flag.ENCRYPTED if self.encrypt else Flag(0))),
            weights.commitment(CHAIN_ID, address, ref.peer, ref.sequence, draft.weights),
            *(draft.base, report_cid.digest, draft.seen, draft.seen_root, ref.sequence, draft.round),
            *(found.score_ppm, draft.base_score_ppm, draft.train_samples, found.samples, draft.rule),
            **made.changes,
        )
        if lie.update is not None:
            update = lie.update(update)
        data = None if lie.data is None else lie.data(update, draft.parents)
        self.ledger.publish(ref.peer, update, draft.parents, force=force, signer=lie.signer, data=data)

    def _gathered(
        self, peer: int, number: int, seen: int
    ) -> tuple[Selection, list[UpdateEntry], dict[UpdateRef, Failure]]:
        """Choose, read, object to what is of no use, and choose again."""
        failed: dict[UpdateRef, Failure] = {}
        while True:
            prefix = self.ledger.prefix
            chosen = select(self.spec, prefix, peer, number, seen=seen, now_s=self.ledger.time_s + 1, failed=failed)
            bad = {}
            for entry in chosen.candidates:
                trouble = self._trouble(entry, peer)
                if trouble is not None:
                    bad[entry.ref] = replace(trouble, reason=Reason.WITHDRAWN) if entry.ref.peer == peer else trouble
            if not bad:
                return chosen, list(chosen.candidates), failed
            for ref, why in bad.items():
                self.ledger.object(peer, ref, why.reason)
            failed |= bad

    def _read(self, entry: UpdateEntry, reader: int = 0) -> Tensors:
        """What a peer reads; ``reader`` 0: its publisher."""

        def bytes_of(one: UpdateEntry) -> bytes:
            return bytes(self.stores[one.ref.peer].get(Cid("raw", one.content), 1 << 20))

        opener = GivenKeys([self.identities[reader or entry.ref.peer]]) if self.encrypt else None
        decoder = Decoder(self.spec, self.schema, lambda: self.genesis, bytes_of, opener)
        return decoder.tensors(entry, self.ledger.prefix)

    def _trouble(self, entry: UpdateEntry, reader: int) -> Failure | None:
        try:
            self._read(entry, reader)
        except MalformedWeights as cause:
            return Failure(Reason.MALFORMED, str(cause))
        except ContentMismatch as cause:
            return Failure(Reason.DIGEST_MISMATCH, str(cause))
        except (ContentError, Unreadable) as cause:
            return Failure(Reason.UNAVAILABLE, str(cause))
        return None

    def _merged(
        self, peer: int, candidates: Sequence[UpdateEntry], models: Sequence[Tensors], chosen: Selection
    ) -> Merge:
        standing = {entry.ref: chosen._choice.standing(entry) for entry in candidates if chosen._choice is not None}
        return aggregate(self.spec, candidates, models, lambda: self.genesis, standing=standing)

    def _attest(self, peer: int, number: int, seen: int, candidates: Sequence[UpdateEntry]) -> None:
        """What was merged, scored on this peer's validation rows."""
        if self.attesting == "none":
            return
        prefix, now_s = self.ledger.prefix, self.ledger.time_s + 1
        wanted = attestable(self.spec, prefix, peer, number, seen=seen, now_s=now_s, candidates=candidates)
        items = []
        for entry in wanted:
            base = self.bases[entry.ref]
            items.append(
                Attestation(*_pair(entry.ref), *(self.measured(peer, m) for m in (self._read(entry, peer), base)))
            )
        if items:
            self.ledger.attest(peer, items)

    def measured(self, peer: int, model: Tensors) -> int:
        """What a peer tells of a model: the score on its validation rows, coarsened."""
        found = small_nets.score(self.spec, model, self.splits[peer - 1].validation)
        return coarsened(found.score_ppm, attested_step(self.spec.attestation, self.spec.privacy))

    # ---- questions -------------------------------------------------------------------------------------------------

    def update(self, ref: str) -> UpdateEntry:
        found = UpdateRef.parse(ref)
        assert found is not None
        return self.ledger.prefix.update(found)

    def blob(self, cid: Cid) -> bytes:
        return next(bytes(store.get(cid, 1 << 20)) for store in self.stores.values() if store.has(cid))


def _pair(ref: UpdateRef) -> tuple[int, int]:
    return ref.peer, ref.sequence


def with_update(**changes: Any) -> Lie:
    """An update some of whose fields are other ones."""
    return Lie(update=lambda update: replace(update, **changes))
