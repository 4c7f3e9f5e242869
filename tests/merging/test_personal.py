"""Layers kept personal: parted before publishing, joined before training, refused where the patterns do not fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import spec

from fl_node.errors import MalformedWeights, SpecError
from fl_node.merging.personal import check_personal, is_personal, joined, kept, published, shared_schema
from fl_node.merging.weights import schema_of

NAMES = ["body.0.weight", "body.0.bias", "head.weight", "head.bias", "norm.steps"]


def model(value):
    return {name: np.full(2, value, np.float32) for name in NAMES}


def keeping(*patterns):
    return spec(merging={"personal": patterns})


def test_parts_by_pattern():
    head = keeping("head.*")
    assert sorted(published(head, model(1))) == ["body.0.bias", "body.0.weight", "norm.steps"]
    assert sorted(kept(head, model(1))) == ["head.bias", "head.weight"]
    assert list(shared_schema(head, schema_of(model(1)))) == ["body.0.weight", "body.0.bias", "norm.steps"]


@pytest.mark.parametrize(
    ("pattern", "name", "personal"),
    [
        ("head.*", "head.weight", True),
        ("head", "head.weight", False),
        ("HEAD.*", "head.weight", False),
        ("*bias", "body.0.bias", True),
        ("body.?.bias", "body.10.bias", False),
        ("body.[!1].bias", "body.0.bias", True),
    ],
)
def test_patterns(pattern, name, personal):
    assert is_personal(keeping(pattern), name) is personal


def test_without_patterns_everything_is_shared():
    whole = model(1)
    assert published(keeping(), whole) == whole and kept(keeping(), whole) == {}
    assert joined(keeping(), whole, model(2)) == dict(sorted(whole.items()))
    assert shared_schema(keeping(), schema_of(whole)) == schema_of(whole)


@given(st.sets(st.sampled_from(NAMES), max_size=4))
def test_parting_and_joining_gives_the_model_back(personal):
    chosen = keeping(*personal)
    mine, others = model(1), model(2)
    base = joined(chosen, published(chosen, others), mine)
    assert set(base) == set(NAMES)
    assert all((base[name] == (1 if name in personal else 2)).all() for name in NAMES)
    assert {**published(chosen, mine), **kept(chosen, mine)} == mine


def test_patterns_that_do_not_fit_are_refused():
    with pytest.raises(SpecError, match=r"'tail.*' matches none.*body.0.bias"):
        check_personal(keeping("head.*", "tail.*"), NAMES)
    with pytest.raises(SpecError, match="matches every tensor"):
        shared_schema(keeping("*"), schema_of(model(1)))
    check_personal(keeping(), [])


def test_a_base_with_personal_tensors_and_a_model_without_them_are_refused():
    head = keeping("head.*")
    with pytest.raises(MalformedWeights, match=r"personal tensors head.bias, head.weight in a merged base"):
        joined(head, model(1), model(2))
    with pytest.raises(MalformedWeights, match=r"no tensor for merging.personal pattern 'head"):
        joined(head, published(head, model(1)), published(head, model(2)))
