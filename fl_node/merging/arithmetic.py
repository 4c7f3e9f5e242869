"""What every rule of this room computes with: IEEE 754 double precision, checked where it is used.

Flush-to-zero and the rounding mode are registers of a thread, and libraries set them; so each thread that merges checks
for itself.
"""

from __future__ import annotations

import numpy as np

from fl_node.errors import FlNodeError


def self_test() -> None:
    """Check that this thread's arithmetic is IEEE 754: subnormals kept, round half to even, nothing fused.

    Takes microseconds. Run at start-up and in every merging thread.

    Raises:
        FlNodeError: naming what is wrong and how to mend it.
    """
    tiny = np.array([5e-324, 2.0**-1050, -5e-324])
    least = np.array([2.0**-149, 2.0**-140], np.float32)
    kept = (
        (tiny + 0.0).tolist() == tiny.tolist()
        and (tiny * 3.0)[0] == 1.5e-323
        and float((np.array([2.0**-1022]) / 4.0)[0]) == 2.0**-1024
        and (least + np.float32(0)).tolist() == [2.0**-149, 2.0**-140]
        and least.astype(np.float64).tolist() == [2.0**-149, 2.0**-140]
        and np.array([2.0**-149, 2.0**-140]).astype(np.float32).view(np.uint32).tolist() == [1, 512]
    )
    if not kept:
        raise FlNodeError(
            "this process flushes subnormal numbers to zero, so its merges would differ from everybody else's; "
            "do not call torch.set_flush_denormal(True), and load no library built with -ffast-math"
        )
    one = np.array([1.0, -1.0])
    half_ulp = np.array([2.0**-53, -(2.0**-53)])
    exact = (one + half_ulp).tolist() == [1.0, -1.0]
    exact = exact and (one + half_ulp * 3.0).tolist() == [1.0 + 2.0**-51, -1.0 - 2.0**-51]
    exact = exact and np.array([1.0 + 2.0**-24, 1.0 + 3 * 2.0**-24]).astype(np.float32).tolist() == [1.0, 1 + 2.0**-22]
    square = np.array([1.0 + 2.0**-27])
    product = np.multiply(square, square)
    exact = exact and float(np.subtract(product, 1.0 + 2.0**-26)[0]) == 0.0
    if not exact:
        raise FlNodeError(
            "this process does not round to the nearest double (got another rounding mode, extended precision or "
            "fused operations); merges need IEEE 754 defaults"
        )
