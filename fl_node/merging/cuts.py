"""What is derived from the log for a synchronous round: up to where it looks, and up to where attestations count."""

from __future__ import annotations

from dataclasses import dataclass

from fl_node.records import UpdateRef


@dataclass(frozen=True, slots=True)
class SyncCut:
    """Where round ``round`` looks: at the first ``size`` entries; ``None`` while it must wait.

    ``previous`` is the round whose updates it merges: the one before; where everybody closed in that one, an earlier.

    ``present`` are that round's updates in the prefix that count and can be used, ``missing`` the peers that were
    expected in the round before and have none. ``deadline_time_s`` is the block time from which waiting is over;
    ``None`` before the first update of the round before. ``needed`` is how many of those there and the ``missing``
    complete the quorum.
    """

    round: int
    previous: int
    size: int | None
    deadline_time_s: int | None
    present: tuple[UpdateRef, ...]
    missing: tuple[int, ...]
    needed: int
    by_deadline: bool = False


@dataclass(frozen=True, slots=True)
class AttestedCut:
    """Up to where attestations count in round ``round``: at the first ``size`` entries; ``None`` while it must wait.

    ``waits_for``: peers that have not attested all that they were to. ``deadline_time_s``: the block time from which
    waiting for them is over.
    """

    round: int
    size: int | None
    deadline_time_s: int
    waits_for: tuple[int, ...]
    by_deadline: bool = False
