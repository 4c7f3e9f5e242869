"""Encodings in a federation file: what does not go together is explained, and the defaults are what they should be."""

from __future__ import annotations

import pytest

from fl_node.errors import SpecError
from fl_node.spec import parse_federation
from fl_node.tables import EncodingSpec


def parsed(text):
    return parse_federation(text.encode()).spec


@pytest.mark.parametrize("kind", ["int8-delta", "top-k-delta"])
def test_deltas_that_never_are_any(kind):
    with pytest.raises(SpecError, match="full_every = 1: every update would be a full one"):
        parsed(f'[encoding]\nkind = "{kind}"\nfull_every = 1')


def test_deltas_of_what_nobody_keeps():
    with pytest.raises(SpecError, match=r"retention_rounds = 5.*expected retention_rounds of at least 10"):
        parsed('[encoding]\nkind = "int8-delta"\n[content]\nretention_rounds = 5')
    parsed('[encoding]\nkind = "int8-delta"\nfull_every = 5\n[content]\nretention_rounds = 5')


def test_full_kinds_do_not_mind():
    for kind in ("f32", "f16"):
        parsed(f'[encoding]\nkind = "{kind}"\nfull_every = 1\n[content]\nretention_rounds = 1')


LINES = ["density = 0.0", "density = 0.6", "block = 7", 'full = "i8"', 'kind = "int4"']


@pytest.mark.parametrize("line", LINES)
def test_bounds(line):
    with pytest.raises(SpecError, match=rf"encoding.*{line.split()[0]}"):
        parsed(f"[encoding]\n{line}")


def test_nobody_gets_an_encoding_without_asking():
    assert EncodingSpec().kind == "f32"
