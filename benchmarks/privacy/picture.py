"""The picture of docs/leakage.md: rows, and what comes back of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.privacy.inversion_cases import InversionCase, drawn
from benchmarks.privacy.likeness import matched

COLUMNS = 8
SEED = 0
_EDGE = 2
_GREYS = 16


def draw(path: Path, data_dir: Path) -> None:
    """Write a PNG of grey images: in each line eight draws of rows, and of each the picture of its first row."""
    from matplotlib import pyplot
    from PIL import Image

    lines = [(label, _line(case, data_dir)) for label, case in _cases()]
    truth = [drawn(1, 1, SEED, trial, data_dir)[0][0].features[0, 0] for trial in range(COLUMNS)]
    lines.insert(0, ("the row", truth))
    figure, axes = pyplot.subplots(len(lines), 1, figsize=(6.4, 0.62 * len(lines)), dpi=100)
    for axis, (label, images) in zip(axes, lines, strict=True):
        edged = [np.pad(image, ((0, 0), (0, _EDGE)), constant_values=1.0) for image in images]
        axis.imshow(np.hstack(edged), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_axis_off()
        axis.text(-6, 14, label, ha="right", va="center", fontsize=8)
    figure.subplots_adjust(left=0.34, right=0.995, top=0.99, bottom=0.01, hspace=0.06)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn_png = io.BytesIO()
    figure.savefig(drawn_png, metadata={"Software": None})
    pyplot.close(figure)
    # Noise does not shrink; in sixteen greys it takes a quarter of the bytes.
    greys = Image.open(drawn_png).convert("L").quantize(_GREYS, dither=Image.Dither.NONE)
    greys.save(path, "PNG", optimize=True)


def _cases() -> list[tuple[str, InversionCase]]:
    return [
        ("logistic, 1 row", InversionCase("", "logistic", 1, 1)),
        ("logistic, 8 rows", InversionCase("", "logistic", 8, 8)),
        ("logistic, 1 row, merge of 10", InversionCase("", "logistic", 1, 1, peers=10)),
        ("logistic, 1 row, epsilon 8", InversionCase("", "logistic", 1, 1, epsilon=8.0)),
        ("cnn, 1 row", InversionCase("", "cnn", 1, 1)),
        ("cnn, 8 rows", InversionCase("", "cnn", 8, 8)),
        ("cnn, 1 row, epsilon 8", InversionCase("", "cnn", 1, 1, epsilon=8.0)),
    ]


def _line(case: InversionCase, data_dir: Path) -> list[NDArray[Any]]:
    """Of each trial what is matched with the first peer's first row; black where nothing is."""
    found = []
    for trial in range(COLUMNS):
        made = case.pictures(SEED, trial, data_dir)
        held, _ = drawn(case.peers, case.rows, SEED, trial, data_dir)
        truth = np.concatenate([rows.features[:, 0] for rows in held])
        at = {column: row for row, column in matched(made, truth)}.get(0)
        found.append(np.zeros_like(truth[0]) if at is None else made[at])
    return found
