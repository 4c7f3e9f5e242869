"""The public report of an update: what a ledger entry has no room for, as canonical JSON in the content store.

Its SHA-256 is on the ledger. It holds metrics and reasons, never data.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fl_node import __version__
from fl_node.journal import Draft
from fl_node.records import UpdateRef

if TYPE_CHECKING:
    from fl_node.learning.metrics import Evaluation

FORMAT = 1


def compose_report(
    peer: int,
    draft: Draft,
    found: Evaluation,
    privacy: dict[str, Any] | None = None,
    traffic: dict[str, Any] | None = None,
) -> bytes:
    """The report's bytes: keys sorted, no white space, UTF-8, so that equal content gives equal bytes.

    Args:
        peer: number of the publisher.
        found: of the update, its score as it is released.
        privacy: what was spent so far, under a mechanism of differential privacy. No accountant counts what metrics and
            losses tell of the rows that they are of, so then the report has none.
        traffic: bytes that went between this peer and others so far, by its own count.
    """
    table: dict[str, Any] = {
        "format": FORMAT,
        "update": str(UpdateRef(peer, draft.sequence)),
        "round": draft.round,
        "final": draft.final,
        "seen": draft.seen,
        "base": draft.base.hex(),
        "claims": "scores and metrics are the publisher's word, measured on its own test split",
        "score_ppm": found.score_ppm,
        "base_score_ppm": draft.base_score_ppm,
        "metrics": _metrics(found) if privacy is None else {"samples": found.samples, "withheld": True},
        "privacy": privacy,
        "training": draft.training,
        "bytes": draft.sizes,
        "traffic": traffic,
        "candidates": list(draft.outcomes),
        "software": f"fl-node {__version__}",
    }
    return json.dumps(table, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _metrics(found: Evaluation) -> dict[str, Any]:
    return {
        "accuracy": found.accuracy,
        "macro_f1": found.macro_f1,
        "precision": found.precision,
        "recall": found.recall,
        "auc": found.auc,
        "dice": found.dice,
        "loss": found.loss,
        "samples": found.samples,
        "confusion": [list(row) for row in found.confusion],
    }
