"""The interpreter's recursion limit, kept where it was.

py_ecc, which eth_account and web3 bring along, raises it to 100,000 when it is imported. The JSON parser recurses in C
and overruns its stack long before that: text of a stranger that is nested deeply would end the process instead of being
refused.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limit_kept() -> Iterator[None]:
    """Whatever is imported meanwhile, the limit is afterwards what it was before."""
    limit = sys.getrecursionlimit()
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
