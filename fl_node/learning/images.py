"""MNIST and Fashion-MNIST: idx files from a folder, or a checksummed download.

LeCun, Cortes, Burges, http://yann.lecun.com/exdb/mnist/; Xiao, Rasul, Vollgraf 2017, https://arxiv.org/abs/1708.07747.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fl_node.causes import in_words
from fl_node.errors import DataError
from fl_node.learning.dataset import Dataset, Packed, checked, checked_labels
from fl_node.learning.download import Remote, cache_folder, downloaded
from fl_node.tables import TaskSpec

Part = Literal["train", "test", "all"]
_PIXEL: Final = np.float32(1 / 255)

_NAMES: Final[dict[str, tuple[str, str]]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_MIRRORS: Final = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion-mnist": ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
}
#: SHA-256 of each file as its authors publish it, gzipped. They, not the mirror, are what is trusted.
_SHA256: Final = {
    "mnist": {
        "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
}


def load_images(name: str, part: Part, task: TaskSpec, folder: Path | None) -> Dataset:
    """Images of 28 x 28 as float32 from 0 to 1: 60,000 to train, 10,000 to test, or both in this order.

    The idx files, gzipped or not, are looked for in ``folder/NAME`` and ``folder``. Without a folder they are taken
    from the cache, and downloaded into it if they are not there.

    Raises:
        DataError: a file is missing, damaged or no idx file; another number of images than labels; another image size.
    """
    packed, where = _read(name, part, task, folder)
    return checked(packed.features(), packed.labels, task, where)


def read_images(name: str, part: Part, task: TaskSpec, folder: Path | None) -> Packed:
    """As :func:`load_images`, the pixels still bytes. Their shape is checked by whoever unpacks them."""
    return _read(name, part, task, folder)[0]


def _read(name: str, part: Part, task: TaskSpec, folder: Path | None) -> tuple[Packed, str]:
    """The images, and the files they are in, for messages."""
    if part == "all":
        (train, here), (test, there) = (_read(name, which, task, folder) for which in ("train", "test"))
        if train.values.shape[1:] != test.values.shape[1:]:
            raise DataError(
                f"{here} holds images of {list(train.values.shape[1:])}, {there} of {list(test.values.shape[1:])}; "
                "expected one size: copy the files anew"
            )
        pixels, labels = np.concatenate([train.values, test.values]), np.concatenate([train.labels, test.labels])
        return Packed(pixels, labels, _PIXEL), f"{here} and {there}"
    image_path, label_path = (_located(name, file, folder) for file in _NAMES[part])
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"{image_path} and {label_path}: got arrays of {list(images.shape)} and {list(labels.shape)}; expected "
            "[n, height, width] and [n]"
        )
    return Packed(images, checked_labels(labels, task, str(label_path)), _PIXEL), str(image_path)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An idx file of unsigned bytes, gzipped or plain: magic 0, 0, 8, number of axes; big-endian sizes; the bytes.

    Raises:
        DataError: cannot be read, another magic, or another length than its header says.
    """
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as cause:
        raise DataError(f"{path}: cannot be read: {in_words(cause)}; copy the file anew") from cause
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or not 1 <= raw[3] <= 8:
        raise DataError(
            f"{path}: begins with {raw[:4].hex()}; expected 000008 and the number of axes: an idx file of bytes"
        )
    start = 4 + 4 * raw[3]
    shape = tuple(int(side) for side in np.frombuffer(raw[4:start].ljust(start - 4, b"\0"), dtype=">u4"))
    if len(raw) - start != math.prod(shape):
        raise DataError(
            f"{path}: the header says {list(shape)}, that is {math.prod(shape)} bytes, but {max(0, len(raw) - start)} "
            "follow; the file is cut short or damaged, copy it anew"
        )
    found: NDArray[Any] = np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)
    return found


def _check_name(name: str, file: str, path: Path) -> None:
    """Both data sets name their files alike, so the labels, which are small, are held against the other one's."""
    if "labels" not in file:
        return
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return  # whoever reads it says why
    for other, digests in _SHA256.items():
        if other != name and digests[file] == digest:
            raise DataError(f"{name}: {path} is of {other}; expected the files of {name}: name their folder")


def _located(name: str, file: str, folder: Path | None) -> Path:
    if folder is None:
        remote = Remote(tuple(f"{mirror}{file}.gz" for mirror in _MIRRORS[name]), _SHA256[name][file])
        return downloaded(remote, cache_folder() / name / f"{file}.gz")
    tried = [place / (file + suffix) for place in (folder / name, folder) for suffix in (".gz", "")]
    for path in tried:
        if path.is_file():
            _check_name(name, file, path)
            return path
    raise DataError(
        f"{name}: no {file}.gz or {file} in {folder / name} or {folder}; put the four idx files there, or give "
        "no folder to have them downloaded"
    )
