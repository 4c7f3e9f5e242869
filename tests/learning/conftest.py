"""Specs by table, small synthetic rows, and the public data sets where this machine has them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_rows
import pytest
import torch

from fl_node.learning.dataset import Dataset
from fl_node.spec import Spec, validated

torch.set_num_threads(1)

MakeSpec = Callable[..., Spec]


@pytest.fixture
def make_spec() -> MakeSpec:
    """A spec from tables: ``make_spec(task={...}, model={...}, training={...})``."""

    def make(**tables: dict[str, Any]) -> Spec:
        return validated(Spec, tables, "test")

    return make


@pytest.fixture
def blobs() -> Callable[..., Dataset]:
    """``blobs(rows, width, classes, seed)``: :func:`made_rows.blobs`."""
    return made_rows.blobs


@pytest.fixture
def public_data() -> Callable[[str], Path]:
    """The folder that holds a public data set; the test is skipped, and says so, where there is none."""

    def find(name: str) -> Path:
        beside = Path(__file__).resolve().parents[3] / "shared" / "data"
        for folder in (Path(os.environ.get("FL_NODE_DATA_DIR") or beside), beside):
            if (folder / name).is_dir():
                return folder
        pytest.skip(f"no {name} folder in $FL_NODE_DATA_DIR or {beside}")

    return find
