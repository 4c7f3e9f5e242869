"""What a report says of differential privacy and of its update's bytes, against spec, ledger and earlier reports.

That noise was drawn nobody can see from outside. What can be seen: whether the account that a publisher tells is one
that it can have.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from fl_node.audit.means import Means
from fl_node.audit.sealed import is_its_base
from fl_node.content.cid import Cid
from fl_node.errors import ContentError
from fl_node.merging.encodings import name_of
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import ZSTD, UpdateRef
from fl_node.tables import PrivacySpec

#: Two programs may round an epsilon in its last places otherwise.
_ROUNDING: Final = 1e-9
_SHOWN: Final = 40
_LARGEST: Final = 2**53


class Spent:
    """What publishers' reports say was spent, remembered over one audit.

    Args:
        most_bytes: of a report.
    """

    def __init__(self, means: Means, most_bytes: int) -> None:
        self._means, self._most = means, most_bytes
        self._told: dict[UpdateRef, float | None] = {}

    def by(self, entry: UpdateEntry, table: Mapping[str, Any]) -> float | None:
        """What a report says was spent up to its update; ``None``: nothing that can be read."""
        found = self._told[entry.ref] = epsilon_of(table)
        return found

    def before(self, entry: UpdateEntry) -> float | None:
        """What the publisher's report before said; ``None``: there is none, or it cannot be had or read."""
        if entry.ref.sequence < 2:
            return None
        ref = UpdateRef(entry.ref.peer, entry.ref.sequence - 1)
        if ref not in self._told:
            self._told[ref] = self._fetched(ref)
        return self._told[ref]

    def _fetched(self, ref: UpdateRef) -> float | None:
        with suppress(ContentError, LookupError, ValueError, RecursionError):
            cid = Cid("raw", self._means.prefix.update(ref).update.report)
            table = json.loads(bytes(self._means.blobs.hold(cid, self._most, ref).data).decode())
            return epsilon_of(table) if isinstance(table, dict) else None
        return None


def epsilon_of(table: Mapping[str, Any]) -> float | None:
    """The epsilon that a report says was spent; ``None`` where it says no number from 0."""
    told = table.get("privacy")
    epsilon = _number(told.get("epsilon")) if isinstance(told, dict) else None
    return epsilon if epsilon is not None and epsilon >= 0 else None


def untrue(privacy: PrivacySpec, table: Mapping[str, Any]) -> str | None:
    """Why what a report says of privacy cannot be; ``None`` where it may be, or where there is no mechanism."""
    if privacy.mechanism == "none":
        return None
    told = table.get("privacy")
    if not isinstance(told, dict):
        return f"the report says nothing of what was spent; the spec has privacy.mechanism = {privacy.mechanism!r}"
    expected: dict[str, object] = {
        "mechanism": privacy.mechanism,
        "delta": privacy.delta,
        "budget_epsilon": privacy.epsilon,
        "clip_norm": privacy.clip_norm,
        "scores": privacy.scores,
    }
    if privacy.noise_multiplier:
        expected["noise_multiplier"] = privacy.noise_multiplier
    for key, value in expected.items():
        got = told.get(key)
        if got != value or isinstance(got, bool):
            return f"the report says privacy.{key} = {str(got)[:_SHOWN]!r}, the spec {value!r}"
    noise, rate, steps = (_number(told.get(key)) for key in ("noise_multiplier", "sample_rate", "steps"))
    if noise is None or noise <= 0 or rate is None or not 0 < rate <= 1 or steps is None or steps < 0:
        return "the report's privacy names no noise above 0, no sample_rate above 0 up to 1, or no number of steps"
    spent = epsilon_of(table)
    if spent is None:
        return f"the report says that epsilon {str(told.get('epsilon'))[:_SHOWN]!r} was spent; expected a number from 0"
    if spent > privacy.epsilon * (1 + _ROUNDING):
        return f"the report says that epsilon {spent:.6g} was spent; the spec's budget is {privacy.epsilon:g}"
    return None


def doubtful(prefix: Prefix, entry: UpdateEntry, spent: float, before: float | None) -> str | None:
    """Why the account that a publisher tells is no good one: it was lost, or it leaves something out."""
    if before is None:
        return None
    if spent < before * (1 - _ROUNDING):
        return (
            f"the report says that epsilon {spent:.6g} was spent; the publisher's report before said {before:.6g}: "
            "what was spent stays spent"
        )
    if spent <= before and entry.update.train_samples and not is_its_base(prefix, entry):
        return f"its weights were trained, and epsilon {spent:.6g} was spent already before it"
    return None


def other_bytes(table: Mapping[str, Any], entry: UpdateEntry) -> str | None:
    """Why what a report says of its update's bytes is not what the ledger says; ``None`` where it says nothing."""
    told = table.get("bytes")
    if told is None:
        return None
    if not isinstance(told, dict):
        return "the report's bytes are no object"
    encoding = entry.update.encoding
    expected: dict[str, object] = {
        "encoding": name_of(encoding & ~ZSTD),
        "zstd": bool(encoding & ZSTD),
        "full": not entry.update.refers_to,
    }
    for key, value in expected.items():
        if key in told and (type(told[key]) is not type(value) or told[key] != value):
            return f"the report says bytes.{key} = {str(told[key])[:_SHOWN]!r}, the ledger {value!r}"
    for key in ("update", "plain"):
        if key in told and not (type(told[key]) is int and 0 <= told[key] <= _LARGEST):
            return f"the report says bytes.{key} = {str(told[key])[:_SHOWN]!r}, expected a whole number"
    return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _LARGEST:
        return None
    return float(value) if math.isfinite(value) else None
