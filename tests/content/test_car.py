"""CARs: written, read back, and refused when a stranger's."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_node.content import Cid, car
from fl_node.content.unixfs import CHUNK_BYTES, build
from fl_node.errors import ContentMalformed, ContentMismatch

LARGE = 2 * CHUNK_BYTES + 77


def written(data: bytes) -> bytes:
    dag = build(data)
    view = memoryview(data)

    def leaf(_: Cid, index: int) -> list[memoryview]:
        offset, length = dag.leaf_span(index)
        return [view[offset : offset + length]]

    out = b"".join(car.write(dag, leaf))
    assert len(out) == car.length(dag, dag.walk())
    return out


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, LARGE])
def test_a_car_reads_back(size: int) -> None:
    data = os.urandom(size)
    assert car.read(written(data), LARGE) == (build(data), data)


def test_a_block_that_repeats_is_written_once() -> None:
    data = bytes(4 * CHUNK_BYTES)
    assert len(written(data)) < 2 * CHUNK_BYTES
    assert car.read(written(data), len(data))[1] == data


def test_a_larger_file_than_expected_is_malformed() -> None:
    for size in (100, LARGE):
        with pytest.raises(ContentMalformed):
            car.read(written(os.urandom(size)), size - 1)


def test_foreign_missing_and_doubled_blocks_are_refused() -> None:
    data = os.urandom(LARGE)
    good = written(data)
    extra = car.section_head(Cid("raw", build(b"x").root.digest), 1) + b"x"
    last = car.section_head(Cid("raw", build(data).leaves[2]), 77) + data[-77:]
    assert good.endswith(last)
    for bad in (good + extra, good[: -len(last)], good + last, good[:-1], b"", good[:20], b"\x00" + good):
        with pytest.raises(ContentMismatch):
            car.read(bad, LARGE)


@given(st.data())
def test_one_altered_byte_is_noticed(data: st.DataObject) -> None:
    good = written(b"some bytes that matter" * 20)
    at = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ContentMismatch):
        car.read(bad, 10_000)
