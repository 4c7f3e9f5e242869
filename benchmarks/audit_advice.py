"""How far the audit's advice can be relied on: false alarms on honest federations, and what is found of what is not.

    .venv/bin/python -m benchmarks.audit_advice [--seeds 20] [--data-dir DIR] [--only scores,copies,speed]

- scores: federations in memory whose peers attest each other. Honest claims; the same with ten points added to every
  score of one peer; and with ten points added to its base scores, too. Points are test rows called right that were not;
  a claim cannot exceed 100 %, so fewer are added to a good model.
- copies: honest federations; and in each round the last publisher's update replaced by a copy of somebody else's, of
  the same round and of the round before: to the bit, with noise, scaled, with neurons in another order, and trained for
  one more epoch on the copier's rows. Noise is relative to what training changed.
- speed: a sketch against SHA-256 over the same bytes, and both checks over 50 peers and 100 rounds.

Cases on MNIST, Fashion-MNIST and credit-default are left out where the folder does not have them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks.observed import Observed, Seen, observe
from benchmarks.record import write_results
from fl_node.audit.forward import votes_of
from fl_node.audit.known import Known, Sketch
from fl_node.audit.originality import originality_findings
from fl_node.audit.score import score_finding
from fl_node.audit.sketch import projected, sketch_of
from fl_node.audit.verdicts import Result
from fl_node.learning.models import genesis
from fl_node.learning.training import Trainer
from fl_node.merging import weights
from fl_node.merging.weights import Tensors
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import (
    PPM,
    Attestation,
    Body,
    Entry,
    Flag,
    LedgerOpened,
    PeerAdmitted,
    Role,
    Update,
    UpdatePublished,
    UpdateRef,
    UpdatesAttested,
)
from fl_node.simulation import Settings
from fl_node.simulation.faults import Faults
from fl_node.spec import Spec

PARTS = ("scores", "copies", "speed")
ATTEST: Final = {"attestation.mode": "all"}
#: As many rows to measure on as to train on.
ROWS: Final = {"task.validation": 0.25, "task.test": 0.5}
NOISES: Final = (0.001, 0.01, 0.03, 0.1)


@dataclass(frozen=True, slots=True)
class Case:
    """Federations of ``peers``. ``seeds``: part of the seeds that are asked for."""

    name: str
    peers: int
    settings: Settings
    seeds: float = 1.0


def case(name: str, peers: int, seeds: float = 1.0, dataset: str = "digits", **given: Any) -> Case:
    return Case(name, peers, Settings(peers=(peers,), dataset=dataset, **{"rounds": 8, **given}), seeds)


SCORES: Final = (
    case("best-of, iid", 4, preset="best-of"),
    case("best-of, iid", 6, preset="best-of"),
    case("best-of, iid, half of the rows to test on", 4, preset="best-of", overrides=ROWS),
    case("robust, iid", 4, preset="robust"),
    case("robust, iid", 7, preset="robust"),
    case("robust, iid, half of the rows to test on", 4, preset="robust", overrides=ROWS),
    case("robust, sizes 1:2:...:10", 10, 0.5, preset="robust", partition="unequal"),
    case("fedavg, iid", 2, preset="fedavg", overrides=ATTEST),
    case("fedavg, iid, macro-F1", 6, 0.5, preset="fedavg", overrides={**ATTEST, "task.metric": "macro-f1"}),
    case("gossip, iid", 6, 0.5, preset="gossip", overrides=ATTEST),
    case("fedavg, Dirichlet(5)", 6, preset="fedavg", partition="dirichlet:5", overrides=ATTEST),
    case("fedavg, Dirichlet(1)", 10, 0.5, preset="fedavg", partition="dirichlet:1", overrides=ATTEST),
    case("fedavg, Dirichlet(0.5)", 6, preset="fedavg", partition="dirichlet:0.5", overrides=ATTEST),
    case("fedavg, Dirichlet(0.5)", 3, preset="fedavg", partition="dirichlet:0.5", overrides=ATTEST),
    case("fedavg, two classes each", 8, 0.5, preset="fedavg", partition="label-skew:2", overrides=ATTEST),
    case("robust, iid, MNIST", 6, 0.15, "mnist", preset="robust", rounds=4),
    case(
        "fedavg, Dirichlet(1), MNIST",
        6,
        0.15,
        "mnist",
        preset="fedavg",
        rounds=4,
        partition="dirichlet:1",
        overrides=ATTEST,
    ),
    case("fedavg, iid, AUC of credit default", 6, 0.25, "credit-default", preset="fedavg", rounds=4, overrides=ATTEST),
)

CNN: Final = {"model.hidden": (8, 16)}
COPIES: Final = (
    case("fedavg, iid", 4, preset="fedavg"),
    case("fedavg, iid", 6, preset="fedavg"),
    case("fedavg, Dirichlet(0.5)", 6, preset="fedavg", partition="dirichlet:0.5"),
    case("fedavg, Dirichlet(0.1)", 6, 0.5, preset="fedavg", partition="dirichlet:0.1"),
    case("fedavg, two classes each, some alike", 8, 0.5, preset="fedavg", partition="label-skew:2"),
    case("fedavg, one class each, two peers alike", 11, 0.5, preset="fedavg", partition="label-skew:1"),
    case("fedavg, training in every second round", 6, 0.5, preset="fedavg", overrides={"training.every": 2}),
    case("best-of, iid", 6, preset="best-of"),
    case("best-of, Dirichlet(0.5)", 6, 0.5, preset="best-of", partition="dirichlet:0.5"),
    case("robust, iid, dropouts and stragglers", 7, preset="robust", faults=Faults(dropout=0.2, stragglers=2)),
    case("gossip, iid, dropouts and churn", 8, preset="gossip", faults=Faults(dropout=0.2, churn=2)),
    case("gossip, Dirichlet(0.3)", 8, 0.5, preset="gossip", partition="dirichlet:0.3"),
    case("trust, Dirichlet(0.3)", 6, 0.5, preset="trust", partition="dirichlet:0.3"),
    case("ring", 5, preset="ring"),
    case("hybrid-rings", 7, 0.5, preset="hybrid-rings"),
    case("braintorrent, iid, mlp", 6, 0.5, preset="braintorrent", model="mlp"),
    case("fedavg, two classes each, some alike, mlp", 8, 0.5, preset="fedavg", model="mlp", partition="label-skew:2"),
    case("fedavg, iid, cnn", 5, 0.25, preset="fedavg", rounds=4, model="cnn", overrides=CNN),
    case("fedavg, iid, MNIST", 6, 0.15, "mnist", preset="fedavg", rounds=5),
    case(
        "fedavg, two classes each, two peers alike, MNIST",
        6,
        0.15,
        "mnist",
        preset="fedavg",
        rounds=4,
        partition="label-skew:2",
    ),
    case("fedavg, iid, MNIST, one batch of 10,000", 6, 0.15, "mnist", preset="fedavg", rounds=4, batch_size=10_000),
    case("fedavg, iid, mlp, Fashion-MNIST", 5, 0.1, "fashion-mnist", preset="fedavg", rounds=4, model="mlp"),
    case("fedavg, iid, mlp, credit default", 6, 0.1, "credit-default", preset="fedavg", rounds=4, model="mlp"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--data-dir", type=Path, default=Path(os.environ.get("FL_NODE_DATA_DIR", "../shared/data")))
    parser.add_argument("--only", default=",".join(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, object] = {}
    for part in options.only.split(","):
        if part == "speed":
            found |= speed()
            continue
        for one in SCORES if part == "scores" else COPIES:
            if one.settings.dataset != "digits" and not (options.data_dir / str(one.settings.dataset)).is_dir():
                print(f"left out, no data: {one.name}", file=sys.stderr)
                continue
            seeds = max(2, round(options.seeds * one.seeds))
            seen = [observe(one.settings, one.peers, seed, options.data_dir) for seed in range(seeds)]
            found |= scores(one, seen) if part == "scores" else copies(one, seen)
            print(f"{part}: {one.name}, {one.peers} peers", file=sys.stderr)
    command = " ".join([".venv/bin/python -m benchmarks.audit_advice", *sys.argv[1:]])
    write_results("audit-advice", command, found)


# ---- scores --------------------------------------------------------------------------------------------------------


def inflated(entry: UpdateEntry, points: float, *, base: bool) -> UpdateEntry:
    """The same claim with more test rows called right, as far as there are any."""
    update = entry.update
    rows = update.test_samples

    def more(ppm: int) -> int:
        return min(rows, -(-ppm * rows // PPM) + round(points / 100 * rows)) * PPM // rows

    claim = replace(update, score_ppm=more(update.score_ppm))
    return replace(entry, update=replace(claim, base_score_ppm=more(update.base_score_ppm)) if base else claim)


def scores(one: Case, federations: list[Observed]) -> dict[str, object]:
    """Of updates that were attested: how many claims are called outliers, or cannot be told."""
    tallies: dict[str, Counter[str]] = {what: Counter() for what in ("honest", "score +10", "score and base +10")}
    rows = []
    for seen in federations:
        for peer in sorted({entry.ref.peer for entry in seen.entries}):
            own = [entry for entry in seen.entries if entry.ref.peer == peer and not entry.final]
            rows += [entry.update.test_samples for entry in own]
            for what, tally in tallies.items():
                claimed = own if what == "honest" else [inflated(e, 10.0, base="base" in what) for e in own]
                judged(seen, own, claimed, tally)
    about = f"{one.name}, {one.peers} peers, {round(statistics.mean(rows))} test rows"
    return {f"scores, {about}: {what}": told(tally) for what, tally in tallies.items()}


def judged(seen: Observed, own: list[UpdateEntry], claimed: list[UpdateEntry], tally: Counter[str]) -> None:
    """One peer's updates, one after the other, on the log as it would be with these claims."""
    prefix = seen.prefix if claimed is own else with_claims(seen, claimed)
    for entry in claimed:
        if not seen.prefix.attestations(entry.ref):
            continue
        result = score_finding(seen.spec, prefix, prefix.update(entry.ref)).result
        for since in ("", " later") if entry.round >= 4 else ("",):
            tally["all" + since] += 1
            tally[result.value + since] += 1


def with_claims(seen: Observed, claimed: list[UpdateEntry]) -> Prefix:
    """The log with these claims in place of what was claimed."""
    instead = {entry.index: entry.update for entry in claimed}
    entries = []
    for fact in seen.prefix.facts():
        body = fact.body
        if fact.index in instead and isinstance(body, UpdatePublished):
            body = replace(body, update=instead[fact.index])
        entries.append(Entry(fact.index, fact.time_s, 0, bytes(32), bytes(32), (), b"", body))
    return Prefix(entries)


def told(tally: Counter[str]) -> str:
    count, later = tally["all"], tally["all later"]
    parts = [f"outlier {share(tally['outlier'], count)}", f"unknown {share(tally['unknown'], count)}"]
    if tally["failed"]:
        parts.append(f"failed {share(tally['failed'], count)}")
    if later:
        parts.append(f"from round 4 on outlier {share(tally['outlier later'], later)}")
    return f"{count} updates: " + ", ".join(parts)


def share(some: int, count: int) -> str:
    return f"{100 * some / count:.1f} %" if count else "-"


# ---- copies --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """Of one kind of copy: how many were made, called suspicious, and called so with the right original named."""

    made: int = 0
    found: int = 0
    named: int = 0


def copies(one: Case, federations: list[Observed]) -> dict[str, object]:
    """How many honest updates are suspicious, and how many copies of each kind are found."""
    honest: Counter[str] = Counter()
    made: dict[tuple[str, str], Tally] = {}
    for number, seen in enumerate(federations):
        known, trained = seen.known(), seen.trained()
        findings = originality_findings(seen.spec, seen.prefix, trained, known)
        honest.update(finding.result.value for finding in findings.values())
        for copier, whose, original in pairs_of(trained, number):
            for kind, model in copies_of(seen, seen.updates[original.ref], seen.updates[copier.ref], number):
                mine = Known(weights.digest(model), sketch_of(seen.spec, model), known[copier.ref].base)
                with_copy = {**known, copier.ref: mine}
                found = originality_findings(seen.spec, seen.prefix, [copier], with_copy)[copier.ref]
                tally = made.setdefault((whose, kind), Tally())
                tally.made += 1
                tally.found += found.result is Result.SUSPICIOUS
                tally.named += found.data.get("original") == str(original.ref)
    about = f"copies, {one.name}, {one.peers} peers"
    rows: dict[str, object] = {
        f"{about}: honest": f"{honest.total()} updates: suspicious {share(honest['suspicious'], honest.total())}, "
        f"unknown {share(honest['unknown'], honest.total())}"
    }
    for whose in ("same round", "round before"):
        told_kinds = [f"{kind} {found_share(tally)}" for (of, kind), tally in made.items() if of == whose]
        if told_kinds:
            count = next(tally.made for (of, _), tally in made.items() if of == whose)
            rows[f"{about}: {count} copies of the {whose}, found"] = ", ".join(told_kinds)
    return rows


def found_share(tally: Tally) -> str:
    wrong = tally.found - tally.named
    return share(tally.found, tally.made) + (f" ({wrong} with another named)" if wrong else "")


def pairs_of(trained: list[UpdateEntry], seed: int) -> Iterator[tuple[UpdateEntry, str, UpdateEntry]]:
    """In each round: the last publisher, and somebody whose update it copies."""
    draw = np.random.default_rng(seed)
    rounds: dict[int, list[UpdateEntry]] = {}
    for entry in sorted(trained, key=lambda entry: entry.index):
        rounds.setdefault(entry.round, []).append(entry)
    for number, entries in rounds.items():
        *others, copier = entries
        before = [entry for entry in rounds.get(number - 1, ()) if entry.ref.peer != copier.ref.peer]
        before = [entry for entry in before if entry.index < copier.index]
        for whose, candidates in (("same round", others), ("round before", before)):
            if candidates:
                yield copier, whose, candidates[int(draw.integers(len(candidates)))]


def copies_of(seen: Observed, original: Seen, copier: Seen, seed: int) -> Iterator[tuple[str, Tensors]]:
    """What a copier may publish, by kind."""
    draw = np.random.default_rng([seed, original.entry.index])
    change = {name: array.astype(float) - original.base[name] for name, array in original.model.items()}
    noise = {name: draw.standard_normal(array.shape) for name, array in change.items()}
    scale = length(change) / length(noise)
    yield "exact", original.model
    for part in NOISES:
        yield f"noise {part:g}", as_float32({name: original.model[name] + part * scale * noise[name] for name in noise})
    for factor in (0.5, 2.0):
        scaled = {name: copier.base[name] + factor * array for name, array in change.items()}
        yield f"change x {factor:g}", as_float32(scaled)
    if "hidden1.weight" in original.model:
        yield "neurons reordered", reordered(original.model, draw)
    once = seen.spec.model_copy(update={"training": seen.spec.training.model_copy(update={"epochs": 1})})
    trainer = Trainer(once, seen.splits[copier.entry.ref.peer - 1], copier.entry.ref.peer, "cpu")
    yield "trained on for an epoch", trainer.train(original.model, copier.entry.ref.sequence)[0]


def reordered(model: Tensors, draw: np.random.Generator) -> Tensors:
    """The same function with the first hidden layer's neurons in another order."""
    order = draw.permutation(len(model["hidden1.bias"]))
    after = "hidden2.weight" if "hidden2.weight" in model else "linear.weight"
    changed = {"hidden1.weight": model["hidden1.weight"][order], "hidden1.bias": model["hidden1.bias"][order]}
    return {**model, **changed, after: model[after][:, order]}


def length(tensors: Tensors) -> float:
    return float(np.sqrt(sum(float(np.square(array).sum()) for array in tensors.values())))


def as_float32(tensors: Tensors) -> Tensors:
    return {name: array.astype(np.float32) for name, array in tensors.items()}


# ---- speed ---------------------------------------------------------------------------------------------------------


def speed() -> dict[str, object]:
    """Of a sketch, of predictions, and of both checks over many updates."""
    model = {"weight": np.random.default_rng(0).standard_normal(25_000_000, dtype=np.float32)}
    projected(model)
    ratios, seconds = [], []
    for _ in range(7):
        began = time.perf_counter()
        projected(model)
        between = time.perf_counter()
        hashlib.sha256(model["weight"].data).digest()
        seconds.append(between - began)
        ratios.append((between - began) / (time.perf_counter() - between))
    tracemalloc.start()
    projected(model)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    found: dict[str, object] = {
        "speed, sketch of 25,000,000 float32": f"{statistics.median(seconds):.3f} s, "
        f"{statistics.median(ratios):.2f}x the time of SHA-256, {peak / 1e6:.1f} MB beside the weights"
    }
    for name, hidden in (("logistic", (1,)), ("mlp", (128,)), ("cnn", (16, 32)), ("cnn", (32, 64))):
        spec = Spec.model_validate(
            {"task": {"input_shape": (28, 28)}, "model": {"name": name, "hidden": hidden}, "training": {}}
        )
        start = genesis(spec)
        asked = votes_of(spec, start)
        began = time.perf_counter()
        votes_of(spec, start)
        took = time.perf_counter() - began
        about = name if name == "logistic" else f"{name} {hidden}"
        asking = "not asked, too large" if asked is None else f"{took:.3f} s, {len(asked)} inputs"
        found[f"speed, predictions of a {about} on 28 x 28"] = asking
    return found | many()


def many(peers: int = 50, rounds: int = 100) -> dict[str, object]:
    """Both checks over updates of made-up sketches, each attested by everybody."""
    spec = Spec.model_validate({"attestation": {"mode": "all"}})
    draw, log = np.random.default_rng(0), MadeUpLog(peers)
    known = {}
    for number in range(1, rounds + 1):
        base, common = draw.standard_normal(1024), draw.standard_normal(1024)
        for ref in log.round(number):
            vector = base + common + 0.3 * draw.standard_normal(1024)
            votes = draw.integers(0, 10, 1024).astype(np.int32)
            digest = hashlib.sha256(str(ref).encode()).digest()
            known[ref] = Known(digest, Sketch(vector, votes), Sketch(base, None))
    prefix = Prefix(log.entries)
    entries = [entry for peer in range(1, peers + 1) for entry in prefix.updates(peer)]
    began = time.perf_counter()
    originality_findings(spec, prefix, entries, known)
    between = time.perf_counter()
    for entry in entries:
        score_finding(spec, prefix, entry)
    ended = time.perf_counter()
    return {
        f"speed, {len(entries):,} updates of {peers} peers": f"originality {between - began:.1f} s, "
        f"score {ended - between:.1f} s"
    }


@dataclass(slots=True)
class MadeUpLog:
    """A log of peers that publish and attest in every round; nothing in it is of any meaning."""

    peers: int
    entries: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        nobody, zero = "0x" + "0" * 40, bytes(32)
        self.add(LedgerOpened(31337, nobody, zero, zero, zero, Flag(0), 0, nobody))
        for peer in range(1, self.peers + 1):
            self.add(PeerAdmitted(peer, f"0x{peer:040x}", f"site-{peer}", Role.ALL))

    def add(self, body: Body) -> None:
        self.entries.append(Entry(len(self.entries), 0, 0, bytes(32), bytes(32), (), b"", body))

    def round(self, number: int) -> list[UpdateRef]:
        """Everybody's update, and everybody's word on the others'."""
        zero, seen = bytes(32), len(self.entries)
        refs = [UpdateRef(peer, number) for peer in range(1, self.peers + 1)]
        for ref in refs:
            flags, scored = Flag(0), (900_000, 800_000, 100, 10)
            update = Update(zero, flags, zero, zero, zero, seen, zero, number, number, *scored, rule=1)
            self.add(UpdatePublished(ref.peer, update, ()))
        for peer in range(1, self.peers + 1):
            others = [ref for ref in refs if ref.peer != peer]
            items = tuple(Attestation(ref.peer, ref.sequence, 900_000, 800_000) for ref in others)
            self.add(UpdatesAttested(peer, zero, items))
        return refs


if __name__ == "__main__":
    main()
