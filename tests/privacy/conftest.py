"""Specs with a mechanism of differential privacy, and small synthetic rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fl_node.learning.dataset import Dataset
from fl_node.spec import Spec, validated

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parent.parent / "node"))
sys.path.append(str(Path(__file__).parent.parent / "ledger"))
sys.path.append(str(Path(__file__).parent.parent / "learning"))


@pytest.fixture(scope="session", autouse=True)
def locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FL_NODE_LOCKS", str(tmp_path_factory.mktemp("locks")))
        yield


@pytest.fixture
def private_spec() -> Callable[..., Spec]:
    """``private_spec(model={...}, training={...}, privacy={...})``: rows of six features, three classes, DP-SGD."""

    def make(**tables: dict[str, Any]) -> Spec:
        tables["task"] = {"input_shape": (6,), "classes": 3} | tables.get("task", {})
        tables["privacy"] = {"mechanism": "example", "delta": 1e-3} | tables.get("privacy", {})
        return validated(Spec, tables, "test")

    return make


@pytest.fixture
def blobs() -> Callable[..., Dataset]:
    """``blobs(rows, width, classes, seed)``: :func:`made_rows.blobs`."""
    import made_rows

    return made_rows.blobs
