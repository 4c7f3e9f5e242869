"""Committed vectors that fix digests, shares and merges for ever, checked twice: against the package, and against a
second implementation below that shares nothing with it (no numpy, exact fractions).

A failure here means that peers of two versions would disagree: never regenerate, unless under another spec format.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fl_node.merging import weights
from fl_node.merging.halving import halving_sum
from fl_node.merging.merge import merge
from fl_node.merging.selection import draw_rank, draw_seed
from fl_node.merging.shares import largest_remainder

FOLDER = Path(__file__).parent / "vectors"
FORMATS = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "U8": "u1", "BOOL": "?"}
CODES = {"F32": "f", "F64": "d", "I64": "q", "U8": "B", "BOOL": "?"}


def load(name):
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))["cases"]


def case_id(case):
    return case["name"]


def arrays(model):
    return {
        name: np.frombuffer(bytes.fromhex(item["data"]), FORMATS[item["dtype"]]).reshape(item["shape"])
        for name, item in model.items()
    }


def numbers(item):
    raw = bytes.fromhex(item["data"])
    return list(struct.unpack(f"<{math.prod(item['shape'])}{CODES[item['dtype']]}", raw))


def plain_digest(model):
    total = hashlib.sha256()
    for name in sorted(model, key=lambda name: name.encode()):
        item = model[name]
        for text in (name, item["dtype"]):
            total.update(struct.pack("<Q", len(text.encode())) + text.encode())
        total.update(struct.pack("<Q", len(item["shape"])) + b"".join(struct.pack("<Q", n) for n in item["shape"]))
        values = [value + 0.0 if isinstance(value, float) else value for value in numbers(item)]
        total.update(struct.pack(f"<{len(values)}{CODES[item['dtype']]}", *values))
    return total.digest()


def plain_merge(models, shares, keys):
    order = [k for k in sorted(range(len(models)), key=lambda k: keys[k]) if shares[k]]
    heaviest = max(order, key=lambda k: shares[k])  # the first among equals
    merged = {}
    for name, item in models[0].items():
        if item["dtype"] not in ("F32", "F64"):
            merged[name] = models[heaviest][name]
            continue
        columns = [numbers(models[k][name]) for k in order]
        values = []
        for position in range(math.prod(item["shape"])):
            acc = 0.0
            for column, k in zip(columns, order, strict=True):
                product = Fraction(column[position]) * shares[k]
                product = product.numerator / product.denominator  # int / int rounds once, to nearest even
                total = Fraction(acc) + Fraction(product)
                acc = total.numerator / total.denominator
            mean = Fraction(acc) / 1_000_000
            values.append(mean.numerator / mean.denominator)
        data = struct.pack(f"<{len(values)}{CODES[item['dtype']]}", *values)
        merged[name] = {"dtype": item["dtype"], "shape": item["shape"], "data": data.hex()}
    return merged


@pytest.mark.parametrize("case", load("digest"), ids=case_id)
def test_digest_and_commitment_and_file(case):
    model, place = arrays(case["tensors"]), case["place"]
    want = bytes.fromhex(case["digest"])
    assert plain_digest(case["tensors"]) == want
    assert weights.digest(model) == want
    got = weights.commitment(place["chain_id"], place["contract"], place["peer"], place["sequence"], want)
    assert got.hex() == case["commitment"]
    file = b"".join(weights.encode(model, weights.origin(**place)))
    assert hashlib.sha256(file).hexdigest() == case["file_sha256"]


@pytest.mark.parametrize("case", load("merge"), ids=case_id)
def test_merge(case):
    keys = [bytes.fromhex(key) for key in case["order_keys"]]
    plain = plain_merge(case["models"], case["shares_ppm"], keys)
    assert plain_digest(plain).hex() == case["base_digest"]
    merged = merge([arrays(model) for model in case["models"]], case["shares_ppm"], keys)
    assert weights.digest(merged).hex() == case["base_digest"]
    for name, item in case["base"].items():
        assert merged[name].tobytes().hex() == item["data"]


@pytest.mark.parametrize("case", load("shares"), ids=case_id)
def test_shares(case):
    values = [Fraction(weight) for weight in case["weights"]]
    assert largest_remainder(values, [bytes.fromhex(key) for key in case["order_keys"]]) == case["shares_ppm"]


@pytest.mark.parametrize("case", load("draw"), ids=case_id)
def test_draw(case):
    seed = draw_seed(bytes.fromhex(case["spec_digest"]), bytes.fromhex(case["account"]), case["sequence"])
    assert seed.hex() == case["seed"]
    assert [draw_rank(seed, peer).hex() for peer in case["candidates"]] == case["ranks"]


@pytest.mark.parametrize("case", load("halving"), ids=case_id)
def test_halving(case):
    values = struct.unpack(f"<{len(case['terms']) // 16}d", bytes.fromhex(case["terms"]))
    assert struct.pack("<d", float(halving_sum(np.array(values)))).hex() == case["sum"]
