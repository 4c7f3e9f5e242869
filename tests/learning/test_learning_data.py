"""Data sets: what is read, and what is refused with which words."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_node.errors import DataError
from fl_node.learning.credit import CATEGORIES, SCALES
from fl_node.learning.data import load
from fl_node.learning.dataset import Dataset
from fl_node.tables import TaskSpec

DIGITS = TaskSpec()
PAIR = TaskSpec(data="csv", input_shape=(2,), classes=3, label="kind")


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    found = load("digits", DIGITS)
    assert found.features.dtype == np.float32 and found.labels.dtype == np.int64
    assert np.array_equal(found.features, (images / 16).astype(np.float32))
    assert np.array_equal(found.labels, labels)


@pytest.mark.parametrize("shape", [(64,), (8, 8), (1, 8, 8)])
def test_digits_take_the_task_s_shape(shape: tuple[int, ...]) -> None:
    assert load("digits", TaskSpec(input_shape=shape)).features.shape == (1797, *shape)


def test_digits_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"\[8, 8\].*task.input_shape is \[28, 28\]"):
        load("digits", TaskSpec(input_shape=(28, 28)))


def test_a_shape_of_equal_size_but_other_sides_is_refused() -> None:
    with pytest.raises(DataError, match=r"\[8, 8\].*\[4, 16\]"):
        load("digits", TaskSpec(input_shape=(4, 16)))


def test_parts_are_disjoint_complete_and_fixed() -> None:
    train, test, whole = (load("digits", DIGITS, part=part) for part in ("train", "test", "all"))  # type: ignore[arg-type]
    assert (len(train), len(test), len(whole)) == (1438, 359, 1797)
    assert int(train.labels.sum() + test.labels.sum()) == int(whole.labels.sum())
    assert np.array_equal(test.features, load("digits", DIGITS, part="test").features)
    assert test.labels[:12].tolist() == [0, 2, 8, 5, 5, 6, 5, 7, 2, 5, 8, 0]  # pins the shuffle


def test_reading_data_needs_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys; from fl_node.learning.data import load; from fl_node.learning.splits import split; "
        "import fl_node.learning.partition, fl_node.learning.metrics; from fl_node.tables import TaskSpec; "
        "t = TaskSpec(); split(load('digits', t), t); "
        "assert not {'torch', 'sklearn', 'scipy'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_unknown_source_lists_what_there_is() -> None:
    with pytest.raises(DataError, match=r"'digit'.*digits, digits-canvas, mnist"):
        load("digit", DIGITS)


# ---- npz and callables ------------------------------------------------------------------------------------------


def test_npz_round_trip(tmp_path: Path, blobs: Callable[..., Dataset]) -> None:
    rows = blobs(30)
    rows.save(tmp_path / "rows.npz")
    found = load(f"npz:{tmp_path / 'rows.npz'}", TaskSpec(input_shape=(6,), classes=3))
    assert np.array_equal(found.features, rows.features) and np.array_equal(found.labels, rows.labels)


def test_relative_paths_start_in_the_data_folder(tmp_path: Path, blobs: Callable[..., Dataset]) -> None:
    blobs(30).save(tmp_path / "rows.npz")
    assert len(load("npz:rows.npz", TaskSpec(input_shape=(6,), classes=3), tmp_path)) == 30


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("unpickled",))


def test_npz_is_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "bad.npz", x=np.array([_Trap()], dtype=object), y=np.zeros(1))
    with pytest.raises(DataError, match=r"bad.npz"):
        load("npz:bad.npz", TaskSpec(input_shape=(1,), classes=2))
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": np.zeros(3)}, r"holds the arrays \['a'\]; expected x and y"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(2)}, "3 samples but 2 labels"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0)}, "no rows"),
        ({"x": np.zeros((2, 5)), "y": np.zeros(2)}, r"\[5\].*\[2\]"),
        ({"x": np.zeros((2, 2)), "y": np.array([0, 3])}, "label of sample 1 .* is 3; expected .* 0 to 2"),
        ({"x": np.zeros((2, 2)), "y": np.array([0, -1])}, "is -1"),
        ({"x": np.zeros((2, 2)), "y": np.array([0, 0.5])}, "is 0.5"),
        ({"x": np.zeros((2, 2)), "y": np.array([0, np.nan])}, "is nan"),
        ({"x": np.array([[0, 0], [0, np.nan]]), "y": np.zeros(2)}, "sample 1 .* not a finite"),
        ({"x": np.array([[0, 0], [0, 1e300]]), "y": np.zeros(2)}, "sample 1 .* not a finite"),
        ({"x": np.array([["a", "b"]]), "y": np.zeros(1)}, "expected numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_npz_faults(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    np.savez(tmp_path / "rows.npz", **arrays)
    with pytest.raises(DataError, match=words):
        load(f"npz:{tmp_path / 'rows.npz'}", PAIR)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x93NUMPY"])
def test_a_damaged_npz_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"rows.npz"):
        load(f"npz:{tmp_path / 'rows.npz'}", PAIR)


def test_a_missing_npz_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows.npz.*No such file"):
        load(f"npz:{tmp_path / 'rows.npz'}", PAIR)


def test_callable_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_rows.py").write_text(
        "def good():\n    return [[1.0, 2.0], [3.0, 4.0]], [0, 2]\n"
        "def bad():\n    raise RuntimeError('no database')\n"
        "thing = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = load("own_rows:good", PAIR)
    assert found.features.tolist() == [[1, 2], [3, 4]] and found.labels.tolist() == [0, 2]
    with pytest.raises(DataError, match="RuntimeError: no database"):
        load("own_rows:bad", PAIR)
    with pytest.raises(DataError, match="is a int; expected something to call"):
        load("own_rows:thing", PAIR)
    with pytest.raises(DataError, match="cannot be imported"):
        load("own_rows:missing", PAIR)


# ---- CSV --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_csv(tmp_path: Path, packed: bool) -> None:
    text = b'\xef\xbb\xbfa,"kind",b\r\n1,0,2.5\r\n-3,2,"1e3"\r\n'
    path = tmp_path / "rows.csv"
    path.write_bytes(gzip.compress(text) if packed else text)
    found = load(f"csv:{path}", PAIR)
    assert found.features.tolist() == [[1, 2.5], [-3, 1000]] and found.labels.tolist() == [0, 2]


@pytest.mark.filterwarnings("error")
def test_a_number_beyond_float32_is_told_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,kind,b\n1,0,2\n1,0,1e39\n")
    with pytest.raises(DataError, match=r"sample 1 \(from 0\) holds a value that is not a finite float32"):
        load(f"csv:{path}", PAIR)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,kindd,b\n1,0,2\n", "no column 'kind'; did you mean 'kindd'"),
        ("a,kind\n1,0\n", r"1 feature columns \(a\), but task.input_shape \[2\] holds 2"),
        ("a,kind,b\n1,0,2\n1,0,two\n", "line 3, column 'b': got 'two'"),
        ("a,kind,b\n1,0,2\n,0,2\n", "line 3, column 'a': got ''"),
        ("a,kind,b\n1,0,2\n1,0,nan\n", "line 3, column 'b': got 'nan'"),
        ("a,kind,b\n1,0,2\n1,0,inf\n", "line 3, column 'b': got 'inf'"),
        ("a,kind,b\n1,0,2\n1,0\n", "line 3: 2 cells, expected 3"),
        ("a,kind,b\n1,0,2,9\n", "line 2: 4 cells, expected 3"),
        ("a,kind,b\n1,5,2\n", "label of sample 0 .* is 5.0; expected .* 0 to 2"),
        ("a,kind,b\n", "no rows"),
        ("", "first line is empty"),
        ("a,kind,a\n1,0,2\n", "'a' come more than once"),
    ],
)
def test_csv_faults(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        load(f"csv:{path}", PAIR)
    assert str(path) in str(caught.value)


def test_csv_without_a_label_in_the_spec(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,kind\n1,0\n")
    with pytest.raises(DataError, match=r"task.label is empty"):
        load("csv:rows.csv", TaskSpec(input_shape=(1,)), tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x1f\x8bnot gzip"])
def test_csv_that_is_no_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(DataError, match="expected a CSV file"):
        load("csv:rows.csv", PAIR, tmp_path)


# ---- credit-default ---------------------------------------------------------------------------------------------

CREDIT = TaskSpec(data="credit-default", input_shape=(33,), classes=2)
COLUMNS = ["ID", *SCALES, *CATEGORIES, "default.payment.next.month"]


def _credit_file(folder: Path, columns: list[str], rows: list[list[float]]) -> None:
    lines = [",".join(columns), *(",".join(f"{cell:g}" for cell in row) for row in rows)]
    (folder / "default-of-credit-card-clients.csv").write_text("\n".join(lines) + "\n")


def test_credit_is_scaled_and_one_hot(tmp_path: Path) -> None:
    means = [mean for mean, _ in SCALES.values()]
    above = [mean + deviation for mean, deviation in SCALES.values()]
    _credit_file(tmp_path, COLUMNS, [[1, *means, 2, 0, 3, 1], [2, *above, 1, 6, 0, 0]])
    found = load("credit-default", CREDIT, tmp_path)
    assert np.allclose(found.features[:, :20], [[0] * 20, [1] * 20], atol=1e-3)
    assert found.features[0, 20:].tolist() == [0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert found.features[1, 20:].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0]
    assert found.labels.tolist() == [1, 0]


def test_credit_missing_column_and_unknown_code(tmp_path: Path) -> None:
    row = [1.0, *(mean for mean, _ in SCALES.values()), 2, 0, 3, 1]
    _credit_file(tmp_path, [name.replace("PAY_AMT3", "PAY_AMT_3") for name in COLUMNS], [row])
    with pytest.raises(DataError, match="no column 'PAY_AMT3'; did you mean 'PAY_AMT_3'"):
        load("credit-default", CREDIT, tmp_path)
    row[22] = 7
    _credit_file(tmp_path, COLUMNS, [row])
    with pytest.raises(DataError, match="column 'EDUCATION': code 7; expected one of 0, 1"):
        load("credit-default", CREDIT, tmp_path)


def test_credit_without_a_file_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"10\.24432/C55S3H.*FL_NODE_DATA_DIR"):
        load("credit-default", CREDIT, tmp_path)


def test_credit_public_file_fits_its_constants(public_data: Callable[[str], Path]) -> None:
    found = load("credit-default", CREDIT, public_data("credit-default"))
    assert found.features.shape == (30_000, 33) and int(found.labels.sum()) == 6_636
    assert np.abs(found.features[:, :20].mean(axis=0)).max() < 0.001
    assert np.abs(found.features[:, :20].std(axis=0) - 1).max() < 0.001
    assert (found.features[:, 20:].sum(axis=1) == 3).all()
