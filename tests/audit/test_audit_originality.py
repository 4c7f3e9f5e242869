"""Check 12: copies are found by digest, commitment and likeness; honest peers are left alone; limits are honest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from claim_logs import ClaimLog, spec_of

from benchmarks.audit_advice import copies_of
from benchmarks.observed import Observed, observe
from fl_node.audit import originality
from fl_node.audit.known import Known, Sketch
from fl_node.audit.likeness import Models, compare, limits
from fl_node.audit.originality import originality_findings
from fl_node.audit.sketch import sketch_of
from fl_node.audit.verdicts import Finding, Result
from fl_node.merging import weights
from fl_node.merging.weights import Tensors
from fl_node.prefix import UpdateEntry
from fl_node.records import UpdateRef
from fl_node.simulation import Settings


def federation(preset: str, peers: int, rounds: int = 3, **given: object) -> Observed:
    settings = Settings(preset=preset, peers=(peers,), rounds=rounds, dataset="digits", **given)  # type: ignore[arg-type]
    return observe(settings, peers, 0)


@pytest.fixture(scope="module")
def mlp() -> Observed:
    return federation("fedavg", 5, model="mlp")


@pytest.fixture(scope="module")
def mlp_known(mlp: Observed) -> dict[UpdateRef, Known]:
    return mlp.known()


def look(seen: Observed, known: dict[UpdateRef, Known], entries: Iterable[UpdateEntry]) -> dict[UpdateRef, Finding]:
    return originality_findings(seen.spec, seen.prefix, list(entries), known)


def of_round(seen: Observed, number: int) -> list[UpdateEntry]:
    """In the order of the log."""
    return sorted((entry for entry in seen.entries if entry.round == number), key=lambda entry: entry.index)


def as_published(seen: Observed, known: dict[UpdateRef, Known], entry: UpdateEntry, model: Tensors) -> Finding:
    """The finding on an update if it had had these weights."""
    mine = Known(weights.digest(model), sketch_of(seen.spec, model), known[entry.ref].base)
    return look(seen, {**known, entry.ref: mine}, [entry])[entry.ref]


# ---- honest peers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "peers", "given"),
    [
        ("fedavg", 4, {}),
        ("fedavg", 6, {"partition": "dirichlet:0.3"}),
        ("fedavg", 8, {"partition": "label-skew:2"}),  # two peers with the same classes
        ("fedavg", 11, {"partition": "label-skew:1", "rounds": 2}),
        ("best-of", 5, {}),
        ("gossip", 6, {}),
        ("ring", 5, {}),
        ("fedavg", 5, {"overrides": {"training.every": 2}}),
        ("fedavg", 5, {"model": "cnn", "overrides": {"model.hidden": (4, 8)}, "rounds": 2}),
    ],
)
def test_honest_peers_are_not_suspicious(preset: str, peers: int, given: dict[str, object]) -> None:
    seen = federation(preset, peers, **given)  # type: ignore[arg-type]
    found = look(seen, seen.known(), seen.entries)
    assert len(found) == len(seen.entries) and {one.result for one in found.values()} == {Result.OK}
    closing = [found[entry.ref].detail for entry in seen.entries if entry.final]
    assert closing and all("a closing update is its base" in text for text in closing)


def test_rounds_in_which_nobody_trains_are_their_base() -> None:
    seen = federation("fedavg", 4, overrides={"training.every": 2})
    second = of_round(seen, 2)
    known = seen.known()
    assert len({known[entry.ref].digest for entry in second}) == 1, "all of them publish the same weights"
    found = look(seen, known, second)
    assert all("a round in which nobody trains is its base" in one.detail for one in found.values())
    wrong = replace(known[second[0].ref], digest=bytes(32))
    assert look(seen, {**known, second[0].ref: wrong}, second[:1])[second[0].ref].result is Result.UNKNOWN


# ---- copies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("back", [0, 1], ids=["same round", "round before"])
def test_copies_are_found_and_the_original_is_named(
    mlp: Observed, mlp_known: dict[UpdateRef, Known], back: int
) -> None:
    copier = of_round(mlp, 2)[-1]
    original = next(entry for entry in of_round(mlp, 2 - back) if entry.ref.peer != copier.ref.peer)
    made = dict(copies_of(mlp, mlp.updates[original.ref], mlp.updates[copier.ref], 0))
    assert set(made) >= {"exact", "noise 0.001", "noise 0.1", "neurons reordered", "trained on for an epoch"}
    for kind in ("exact", "noise 0.001", "noise 0.01", "change x 0.5", "change x 2", "neurons reordered"):
        found = as_published(mlp, mlp_known, copier, made[kind])
        assert found.result is Result.SUSPICIOUS, (kind, found)
        assert found.data["original"] == str(original.ref) and found.data["original_entry"] == original.index
        assert f"{original.ref}, published before it at entry {original.index}" in found.detail
        signs = {sign["measure"] for sign in found.data.get("signs", ())}
        wanted = {"change x 2": "angle", "neurons reordered": "predictions", "noise 0.001": "distance", "exact": ""}
        assert wanted.get(kind, "distance" if "noise" in kind else "angle") in signs | {""}, (kind, signs)
    # What the page on advice says is not found.
    assert as_published(mlp, mlp_known, copier, made["trained on for an epoch"]).result is Result.OK


def test_it_is_the_later_one_that_is_suspicious(mlp: Observed, mlp_known: dict[UpdateRef, Known]) -> None:
    first, *_, last = of_round(mlp, 2)
    copied = {**mlp_known, last.ref: replace(mlp_known[first.ref], base=mlp_known[last.ref].base)}
    found = look(mlp, copied, mlp.entries)
    assert {ref for ref, one in found.items() if one.result is Result.SUSPICIOUS} == {last.ref}


def test_two_copies_do_not_pass_each_other_off_as_usual(mlp: Observed, mlp_known: dict[UpdateRef, Known]) -> None:
    first, *others = of_round(mlp, 2)
    known, draw = dict(mlp_known), np.random.default_rng(0)
    for entry in others[-2:]:
        model = {
            name: (array * (1 + 1e-5 * draw.standard_normal(array.shape))).astype(np.float32)
            for name, array in mlp.updates[first.ref].model.items()
        }
        known[entry.ref] = Known(weights.digest(model), sketch_of(mlp.spec, model), known[entry.ref].base)
    found = look(mlp, known, others)
    assert [entry.ref for entry in others if found[entry.ref].result is Result.SUSPICIOUS] == [
        entry.ref for entry in others[-2:]
    ]


def test_an_exact_copy_of_bytes_that_nobody_has_any_more(mlp: Observed, mlp_known: dict[UpdateRef, Known]) -> None:
    original, copier = of_round(mlp, 1)[0], of_round(mlp, 3)[-1]
    known = {ref: one for ref, one in mlp_known.items() if ref.sequence == 3}
    known[copier.ref] = replace(known[copier.ref], digest=mlp_known[original.ref].digest)
    found = look(mlp, known, [copier])[copier.ref]
    assert found.result is Result.SUSPICIOUS and found.data["original"] == str(original.ref)
    assert found.data["copy"] == "exact"
    own = UpdateRef(copier.ref.peer, 1)
    known[copier.ref] = replace(known[copier.ref], digest=mlp_known[own].digest)
    assert f"its weights are those of {own}, of its own site" in look(mlp, known, [copier])[copier.ref].detail


def test_commitments_are_looked_at_as_far_as_there_is_time(
    mlp: Observed, mlp_known: dict[UpdateRef, Known], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(originality, "_MOST_COMMITMENTS", 3)
    original, copier = of_round(mlp, 1)[0], of_round(mlp, 3)[-1]
    known = {copier.ref: replace(mlp_known[copier.ref], digest=mlp_known[original.ref].digest)}
    found = look(mlp, known, [copier])[copier.ref]
    assert found.result is Result.UNKNOWN and "not held against the commitments of 11 older updates" in found.detail


def test_ones_own_weights_again_are_noted(mlp: Observed, mlp_known: dict[UpdateRef, Known]) -> None:
    entry = of_round(mlp, 3)[-1]
    before = UpdateRef(entry.ref.peer, 1)
    found = look(mlp, {**mlp_known, entry.ref: replace(mlp_known[before], base=mlp_known[entry.ref].base)}, [entry])
    assert found[entry.ref].result is Result.OK and found[entry.ref].data["repeats"] == str(before)
    assert f"its weights are those of {before}, of its own site, again" in found[entry.ref].detail


def test_a_base_published_as_trained(mlp: Observed, mlp_known: dict[UpdateRef, Known]) -> None:
    entries = of_round(mlp, 2)
    lazy = entries[1]
    found = as_published(mlp, mlp_known, lazy, mlp.updates[lazy.ref].base)
    assert found.result is Result.SUSPICIOUS and "nothing was trained, while others trained" in found.detail
    idle = dict(mlp_known)
    for entry in entries:
        base = mlp.updates[entry.ref].base
        idle[entry.ref] = Known(entry.update.base, sketch_of(mlp.spec, base), mlp_known[entry.ref].base)
    # Where nobody moved, as at a learning rate of 0, all publish the same.
    assert {one.result for one in look(mlp, idle, entries).values()} == {Result.OK}


# ---- what cannot be known ------------------------------------------------------------------------------------------


def test_bytes_that_are_not_known(mlp: Observed, mlp_known: dict[UpdateRef, Known]) -> None:
    first, *others = of_round(mlp, 2)
    known = {ref: one for ref, one in mlp_known.items() if ref != first.ref}
    found = look(mlp, known, [first, *others])
    assert found[first.ref].result is Result.UNKNOWN and found[first.ref].detail == "its bytes are not known"
    for entry in others:
        assert found[entry.ref].result is Result.UNKNOWN
        assert f"it could be a copy of {first.ref}, whose bytes are not known" in found[entry.ref].detail


@pytest.mark.parametrize("peers", [2, 3])
def test_so_few_peers_that_no_pair_shows_how_alike_honest_ones_are(peers: int) -> None:
    seen = federation("fedavg", peers)
    found = Counter(one.result for one in look(seen, seen.known(), seen.trained()).values())
    # Of three, the two others give a pair in each round, and one from each update to the round before.
    assert found == ({Result.OK: 9} if peers == 3 else {Result.OK: 1, Result.UNKNOWN: 5})
    first = of_round(seen, 1)[0]
    assert "no other site had published anything before it" in look(seen, seen.known(), [first])[first.ref].detail


def test_peers_of_one_site_may_share_a_model() -> None:
    log = ClaimLog(5, sites=("a", "a", "b", "c", "d"))
    draw, known, refs = np.random.default_rng(0), {}, []
    base = Sketch(draw.standard_normal(1024), None)
    for peer in range(1, 6):
        refs.append(log.claim(peer, 0, 0, digest=bytes([peer] * 32)))
        vector = base.vector + draw.standard_normal(1024)
        known[refs[-1]] = Known(bytes([peer] * 32), Sketch(vector, None), base)
    known[refs[1]] = known[refs[0]]
    entries = [log.entry(ref) for ref in refs]
    found = originality_findings(spec_of(), log.prefix, entries, known)
    assert {one.result for one in found.values()} == {Result.OK}
    assert found[refs[1]].data["repeats"] == str(refs[0])
    # The same weights from another site are a copy, of whoever was first.
    known[refs[4]] = known[refs[0]]
    found = originality_findings(spec_of(), log.prefix, entries, known)
    assert found[refs[4]].data["original"] == str(refs[0]) and found[refs[4]].result is Result.SUSPICIOUS


def test_without_bases_models_themselves_are_compared(mlp: Observed, mlp_known: dict[UpdateRef, Known]) -> None:
    copier = of_round(mlp, 2)[-1]
    original = of_round(mlp, 2)[0]
    made = dict(copies_of(mlp, mlp.updates[original.ref], mlp.updates[copier.ref], 0))
    known = {**mlp_known, copier.ref: replace(mlp_known[copier.ref], base=None)}
    assert look(mlp, known, [copier])[copier.ref].result is Result.OK
    found = as_published(mlp, known, copier, made["noise 0.01"])
    assert found.result is Result.SUSPICIOUS and found.data["original"] == str(original.ref)


# ---- measures ------------------------------------------------------------------------------------------------------


def known_of(vector: np.ndarray, base: np.ndarray | None, votes: np.ndarray | None = None) -> Known:
    return Known(bytes(32), Sketch(vector, votes), None if base is None else Sketch(base, None))


def test_measures_are_what_their_formulas_say() -> None:
    draw = np.random.default_rng(1)
    bases, models = draw.standard_normal((2, 1024)), draw.standard_normal((2, 1024))
    votes = draw.integers(0, 5, (2, 1000)).astype(np.int32)
    a, b = (Models.of([known_of(models[i], bases[i], votes[i])]) for i in (0, 1))
    found = compare(a, b)
    da, db = models - bases
    shorter = min(float(da @ da), float(db @ db))
    assert found.distance[0, 0] == pytest.approx(float(np.square(models[0] - models[1]).sum()) / shorter)
    cosine = float(da @ db) / float(np.sqrt((da @ da) * (db @ db)))
    assert found.angle[0, 0] == pytest.approx(1 - cosine)
    assert found.predictions[0, 0] == (votes[0] != votes[1]).mean() and found.inputs == 1000


def test_measures_that_cannot_be_had_are_nan() -> None:
    draw = np.random.default_rng(2)
    vector, base = draw.standard_normal((2, 1024))
    one_class = np.zeros(1000, np.int32)
    alone = compare(Models.of([known_of(vector, None)]), Models.of([known_of(base, None)]))
    assert np.isnan(alone.distance[0, 0]) and np.isnan(alone.angle[0, 0]) and np.isnan(alone.predictions[0, 0])
    still = compare(Models.of([known_of(vector, vector)]), Models.of([known_of(base, vector)]))
    assert np.isfinite(still.distance[0, 0]) and np.isnan(still.angle[0, 0])
    dull = Models.of([known_of(vector, base, one_class)])
    assert np.isnan(compare(dull, dull).predictions[0, 0]), "two models that always say the same class"
    huge = Models.of([known_of(np.full(1024, np.inf), base)])
    assert not (compare(huge, huge).distance <= 1).any()


def test_limits_follow_the_honest_pairs() -> None:
    near, far = np.array([0.04, 0.05, 0.06, 0.07]), np.array([2.0, 2.1, 2.2, 2.3])
    votes = np.array([0.2, 0.3, 0.25, 0.2])
    alike, unlike = limits(near, near / 2, votes, 1024), limits(far, far / 2, votes, 1024)
    assert alike.alike and not unlike.alike
    assert alike.distance == pytest.approx(0.01) and alike.angle == pytest.approx(0.005)
    assert unlike.distance == 0.001 and unlike.angle == 0.0005
    wide = limits(near * 10, near * 5, votes, 1024)
    assert wide.alike and wide.distance == 0.02 and wide.angle == 0.01
    nan = np.full(4, np.nan)
    few = limits(near[:2], near[:2], votes[:2], 1024)
    assert few.distance is few.angle is few.predictions is None and few.pairs == 2
    assert limits(near, nan, nan, 0).predictions is None


def test_pairs_that_look_like_copies_do_not_lower_the_limit_if_they_are_few() -> None:
    pairs = np.array([1e-6, 0.4, 0.5, 0.6, 0.4, 0.5, 0.6, 0.7])
    assert limits(pairs, pairs / 2, pairs, 1024).distance == 0.02
    many = np.array([1e-6, 1e-6, 1e-6, 1e-6, 0.4, 0.5])
    assert limits(many, many / 2, many, 1024).distance == pytest.approx(1e-6 / 4)


def test_predictions_count_where_honest_pairs_differ_often_enough() -> None:
    there = np.full(6, 0.5)
    for rate, inputs, wanted in ((0.5, 1024, True), (0.05, 1024, True), (0.02, 1024, False), (0.5, 600, False)):
        found = limits(there, there, np.full(6, rate), inputs).predictions
        assert (found is not None) == wanted, (rate, inputs)
        assert found is None or 0 <= found < rate / 4
