"""Models, and models a little later, for tests of encodings."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from fl_node.tables import EncodingSpec

KINDS = ("f32", "f16", "int8-delta", "top-k-delta")
DTYPES = ["<f4", "<f4", "<f4", "<f8", "<i8", "<i2", "u1", "?"]


@st.composite
def pairs(draw):
    """A reference and a model of the same tensors: some as they were, some near, some far, some extreme."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    before, after = {}, {}
    for name in draw(st.lists(st.text("abé.0:", min_size=1, max_size=5), min_size=1, max_size=5, unique=True)):
        dtype = np.dtype(draw(st.sampled_from(DTYPES)))
        shape = draw(st.sampled_from([(), (1,), (0,), (7,), (3, 5), (2, 3, 4), (600,), (40, 50)]))
        if dtype.kind != "f":
            before[name] = random.integers(0, 2, shape).astype(dtype)
            after[name] = before[name] if draw(st.booleans()) else random.integers(0, 2, shape).astype(dtype)
            continue
        scale = 10.0 ** draw(st.sampled_from([-44, -39, -6, -2, 0, 2, 6, 37]))
        before[name] = np.asarray(random.normal(size=shape) * scale).astype(dtype)
        how = draw(st.sampled_from(["same", "near", "near", "some", "far", "zeros", "edges"]))
        far = np.asarray(np.clip(random.standard_t(2, size=shape) * scale, -3e38, 3e38)).astype(dtype)
        after[name] = {
            "same": before[name],
            "near": (before[name] + 0.01 * far).astype(dtype),
            "some": np.where(random.random(shape) < 0.02, far, before[name]).astype(dtype),
            "far": far,
            "zeros": (before[name] * -0.0).astype(dtype),
            "edges": np.asarray(random.choice([np.finfo("f4").max, -3.4e38, 1e-45, -1e-45, 0, 65519, 65520], shape)),
        }[how].astype(dtype)
        after[name] = np.where(np.isfinite(after[name]), after[name], 0).astype(dtype)
    return before, after


specs = st.builds(
    EncodingSpec,
    kind=st.sampled_from(KINDS),
    full=st.sampled_from(["f32", "f16", "int8"]),
    block=st.sampled_from([8, 64, 256, 65_536]),
    density=st.sampled_from([0.001, 0.01, 0.05, 0.3, 0.5]),
    error_feedback=st.booleans(),
    compress=st.sampled_from(["auto", "never"]),
)
