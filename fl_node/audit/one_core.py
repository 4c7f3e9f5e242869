"""Matrix products on one core each: an audit works at several updates at once, and that is what fills the cores.

A product that several threads share waits for the last of them. Where there are more threads than cores, or other
programs, that takes ten to a hundred times as long as the product itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_users = 0
_limits: Any = None


@contextmanager
def one_core_each() -> Iterator[None]:
    """While anybody is in here, numpy's matrix products stay in the thread that asks for them; afterwards all is as it
    was before."""
    global _users, _limits
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with _lock:
        if not _users:
            _limits = threadpool_limits(1, "blas")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _limits.restore_original_limits()
