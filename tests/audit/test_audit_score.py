"""Check 11: impossible claims fail, what nobody measured is unknown, what others do not bear out is advice."""

from __future__ import annotations

from collections import Counter

import pytest
from claim_logs import ClaimLog, Federation, changed, made_up, spec_of

from benchmarks.observed import observe
from fl_node.audit.score import right_answers, score_finding
from fl_node.audit.verdicts import Finding, Result
from fl_node.records import PPM, UpdateRef
from fl_node.simulation import Settings


def finding(log: ClaimLog, ref: UpdateRef, **tables: object) -> Finding:
    return score_finding(spec_of(**tables), log.prefix, log.entry(ref))


def results(made: Federation, peers: tuple[int, ...] = ()) -> Counter[Result]:
    prefix = made.log.prefix
    wanted = [ref for ref in made.refs if not peers or ref.peer in peers]
    return Counter(score_finding(made.spec, prefix, prefix.update(ref)).result for ref in wanted)


# ---- possible claims -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", range(1, 60))
def test_right_answers_are_found_for_every_number_of_rows(rows: int) -> None:
    possible = {k * PPM // rows: k for k in range(rows + 1)}
    assert {ppm: right_answers(ppm, rows) for ppm in possible} == possible
    beside = {ppm + off for ppm in possible for off in (-2, -1, 1, 2)} - possible.keys()
    assert all(right_answers(ppm, rows) is None for ppm in beside)


def test_right_answers_of_all_scores_of_a_few_rows() -> None:
    for rows in (3, 7):
        found = {ppm for ppm in range(PPM + 1) if right_answers(ppm, rows) is not None}
        assert found == {k * PPM // rows for k in range(rows + 1)}


def test_right_answers_of_more_rows_than_scores() -> None:
    rows = 3_333_333
    for ppm in (0, 1, 333_333, 499_999, 999_999, PPM):
        found = right_answers(ppm, rows)
        assert found is not None and found * PPM // rows == ppm and (not found or (found - 1) * PPM // rows < ppm)
    assert right_answers(PPM + 1, rows) is None and right_answers(1, 0) is None and right_answers(0, 0) == 0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"score_ppm": 1_000_001}, "the score 1,000,001 is out of bounds"),
        ({"base_score_ppm": 4_000_000_000}, "the base score 4,000,000,000 is out of bounds"),
        ({"test_samples": 0}, "measured on no test rows"),
        ({"score_ppm": 900_001}, "no number of right answers among 1,000 test rows gives a score of 90.0001 %"),
        ({"base_score_ppm": 800_500}, "gives a base score of 80.05 %; nearest: 80.00 % (800) or 80.10 % (801)"),
    ],
)
def test_impossible_claims_fail(values: dict[str, int], words: str) -> None:
    log = ClaimLog(2)
    ref = log.claim(1, 900_000, 800_000)
    log.attest(2, ref, 900_000, 800_000)
    entry = log.entry(ref)
    assert score_finding(spec_of(), log.prefix, entry).result is Result.OK
    found = score_finding(spec_of(), log.prefix, changed(entry, **values))
    assert found.result is Result.FAILED and words in found.detail and found.check == "score"


@pytest.mark.parametrize("metric", ["macro-f1", "auc"])
def test_of_other_metrics_the_bounds_are_all_that_is_known(metric: str) -> None:
    log = ClaimLog(2)
    ref = log.claim(1, 900_001, 800_500)
    log.attest(2, ref, 900_000, 800_000)
    assert finding(log, ref, task={"metric": metric}).result is Result.OK
    entry = changed(log.entry(ref), score_ppm=1_000_001)
    assert score_finding(spec_of(task={"metric": metric}), log.prefix, entry).result is Result.FAILED


def test_without_the_spec_only_bounds_are_checked() -> None:
    log = ClaimLog(1)
    entry = log.entry(log.claim(1, 900_001, 800_000))
    found = score_finding(None, log.prefix, entry)
    assert found.result is Result.UNKNOWN and "without the spec" in found.detail
    assert score_finding(None, log.prefix, changed(entry, score_ppm=1_000_001)).result is Result.FAILED


def test_the_same_weights_have_one_score() -> None:
    log = ClaimLog(2)
    lie = log.claim(1, 900_000, 800_000, final=True, untrained=True)
    true = log.claim(2, 800_000, 800_000, final=True, untrained=True)
    tie = log.claim(2, 801_000, 800_000, round=2, final=True, untrained=True)
    found = finding(log, lie)
    assert found.result is Result.FAILED
    assert "its weights are its base, and of the same weights on the same 1,000 test rows it claims two" in found.detail
    assert finding(log, true).result is finding(log, tie).result is Result.UNKNOWN
    assert "closing updates, which nobody merges" in finding(log, true).detail
    # A model published untrained, as if it had been trained.
    lazy = log.claim(1, 1_000_000, 800_000, round=2, untrained=True)
    assert finding(log, lazy).result is Result.FAILED


def test_personal_layers_may_change_the_score_of_the_same_shared_weights() -> None:
    log = ClaimLog(2)
    ref = log.claim(1, 900_000, 800_000, untrained=True)
    log.attest(2, ref, 850_000, 760_000)
    personal = {"personal": ("linear.bias",)}
    assert finding(log, ref).result is Result.FAILED
    assert finding(log, ref, merging=personal).result is not Result.FAILED
    second = log.claim(1, 900_000, 800_000, round=2, untrained=True)
    assert finding(log, second, merging=personal, training={"every": 2}).result is Result.FAILED


# ---- who measured it -----------------------------------------------------------------------------------------------


def test_what_nobody_else_measured_is_unknown() -> None:
    log = ClaimLog(3, sites=("north", "north", "south"))
    ref = log.claim(1, 900_000, 800_000)
    assert finding(log, ref).result is Result.UNKNOWN
    assert "a claim: 90.00 %" in finding(log, ref).detail
    assert "nobody but its publisher measured it" in finding(log, ref).detail
    assert "the spec asks nobody to" in finding(log, ref, attestation={"mode": "none"}).detail
    log.attest(2, ref, 900_000, 800_000)  # of the publisher's own site
    assert finding(log, ref).result is Result.UNKNOWN and finding(log, ref).data["attested"] == []
    said = log.attest(3, ref, 901_000, 799_000)
    found = finding(log, ref)
    assert found.result is Result.OK and "1 other site measured 90.10 %" in found.detail
    assert found.data["attested"] == [{"site": "south", "score_ppm": 901_000, "base_score_ppm": 799_000}]
    log.retire(3, said)  # and what it wrote from there on does not count
    assert finding(log, ref).result is Result.UNKNOWN


def test_a_site_has_one_voice_however_many_peers() -> None:
    log = ClaimLog(6, sites=("own", "many", "many", "many", "one", "two"))
    ref = log.claim(1, 900_000, 800_000)
    for peer, score in ((2, 100_000), (3, 120_000), (4, 150_000), (5, 895_000), (6, 905_000)):
        log.attest(peer, ref, score, score - 100_000)
    found = finding(log, ref)
    assert [said["score_ppm"] for said in found.data["attested"]] == [120_000, 895_000, 905_000]
    assert found.data["tests"]["score"]["median_ppm"] == 895_000 and found.result is Result.OK


# ---- advice --------------------------------------------------------------------------------------------------------


def test_a_score_inflated_by_ten_points_is_an_outlier() -> None:
    made = made_up(5, 3, 400, seed=1, liars=(2,))
    assert results(made, (2,)) == {Result.OUTLIER: 3}
    assert results(made, (1, 3, 4, 5)) == {Result.OK: 12}
    prefix = made.log.prefix
    found = score_finding(made.spec, prefix, prefix.update(UpdateRef(2, 3)))
    assert "a claim: " in found.detail and "4 other sites measured" in found.detail
    assert "the improvement on its base is claimed" in found.detail and "where chance gives" in found.detail
    numbers = found.data["tests"]["improvement"]
    assert numbers["far"] and numbers["gap_ppm"] > numbers["allowed_gap_ppm"] > 0 and found.data["data_alike"]


def test_inflating_the_base_as_well_is_seen_in_the_score_where_rows_are_many() -> None:
    made = made_up(5, 3, 2_000, seed=2, liars=(4,), base_too=True)
    assert results(made, (4,)) == {Result.OUTLIER: 3}
    assert results(made, (1, 2, 3, 5)) == {Result.OK: 12}


def test_few_rows_tell_over_rounds() -> None:
    made = made_up(6, 10, 50, seed=3, liars=(3,), points=10)
    prefix = made.log.prefix
    own = [score_finding(made.spec, prefix, prefix.update(UpdateRef(3, k))) for k in range(1, 11)]
    alone = [found for found in own if any(test["far"] for test in found.data["tests"].values())]
    assert own[-1].result is Result.OUTLIER and "over rounds" in own[-1].detail
    assert len(alone) < sum(found.result is Result.OUTLIER for found in own)


def test_honest_claims_are_hardly_ever_outliers() -> None:
    told: Counter[Result] = Counter()
    for seed in range(12):
        told += results(made_up(5, 6, 60, seed))
    assert told.total() == 360 and told[Result.FAILED] == told[Result.UNKNOWN] == 0
    assert told[Result.OUTLIER] <= 4


def test_one_who_measures_nonsense_neither_accuses_nor_hides_anybody() -> None:
    made = made_up(6, 3, 400, seed=4, liars=(2,), mistaken=(5,))
    assert results(made, (1, 3, 4)) == {Result.OK: 9}
    assert results(made, (2,))[Result.OUTLIER] >= 2


def test_where_data_differ_honest_claims_above_what_others_measure_are_no_outliers() -> None:
    told: Counter[Result] = Counter()
    for seed in range(6):
        told += results(made_up(7, 4, 100, seed, home=lambda draw: float(draw.uniform(0.05, 0.3))))
    assert told.total() == 168 and told[Result.OK] >= 166


def test_where_data_differ_and_few_publish_nothing_can_be_told() -> None:
    made = made_up(3, 4, 200, seed=5, home=lambda draw: float(draw.uniform(0.15, 0.3)))
    told = results(made)
    assert told[Result.OUTLIER] == 0 and told[Result.UNKNOWN] >= 6
    prefix = made.log.prefix
    words = [score_finding(made.spec, prefix, prefix.update(ref)).detail for ref in made.refs]
    assert any("data of the sites differ, and too few others publish to compare with" in text for text in words)


def test_a_claim_below_what_others_measure_is_no_outlier() -> None:
    made = made_up(5, 3, 400, seed=6, liars=(1,), points=-20)
    assert results(made) == {Result.OK: 15}


def test_the_log_may_grow_between_two_looks() -> None:
    log = ClaimLog(3)
    ref = log.claim(1, 900_000, 800_000)
    before = log.prefix
    assert score_finding(spec_of(), before, before.update(ref)).result is Result.UNKNOWN
    added = [log.attest(peer, ref, 700_000, 800_000) for peer in (2, 3)]
    after = before.extend(log.entries[added[0] :])
    assert score_finding(spec_of(), after, after.update(ref)).result is Result.OUTLIER
    assert score_finding(spec_of(), before, before.update(ref)).result is Result.UNKNOWN


@pytest.mark.parametrize(
    ("preset", "peers", "given"),
    [
        ("best-of", 4, {}),
        ("robust", 5, {"partition": "unequal"}),
        ("fedavg", 4, {"overrides": {"attestation.mode": "all", "training.every": 2}}),
        ("gossip", 5, {"overrides": {"attestation.mode": "all", "task.metric": "macro-f1"}}),
    ],
)
def test_honest_federations(preset: str, peers: int, given: dict[str, object]) -> None:
    settings = Settings(preset=preset, peers=(peers,), rounds=4, dataset="digits", **given)  # type: ignore[arg-type]
    seen = observe(settings, peers, 0)
    found = {entry.ref: score_finding(seen.spec, seen.prefix, entry) for entry in seen.entries}
    told = Counter(one.result for one in found.values())
    assert told[Result.FAILED] == 0 and told[Result.OUTLIER] <= 1 and told[Result.OK] >= 3 * peers
    closing = [found[entry.ref] for entry in seen.entries if entry.final]
    assert len(closing) == peers and {one.result for one in closing} == {Result.UNKNOWN}
