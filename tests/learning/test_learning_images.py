"""idx files and the checksummed download."""

from __future__ import annotations

import gzip
import hashlib
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fl_node.errors import DataError
from fl_node.learning import images
from fl_node.learning.data import load
from fl_node.learning.download import Remote, downloaded
from fl_node.learning.images import read_idx
from fl_node.tables import TaskSpec

TASK = TaskSpec(data="mnist", input_shape=(28, 28))


def idx(array: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


def folder_of(place: Path, rows: int = 5, side: int = 28, packed: bool = True, labels: int | None = None) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for stem in ("train", "t10k"):
        pixels = random.integers(0, 256, (rows, side, side))
        for name, array in (
            ("images-idx3", pixels),
            ("labels-idx1", np.arange(rows if labels is None else labels) % 10),
        ):
            raw = idx(array)
            path = place / f"{stem}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(raw, mtime=0) if packed else raw)
    return place


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("below", ["", "mnist"])
def test_idx_folder(tmp_path: Path, packed: bool, below: str) -> None:
    place = folder_of(tmp_path / below, packed=packed)
    found = load("mnist", TASK, tmp_path, part="train")
    suffix = ".gz" if packed else ""
    pixels = read_idx(place / f"train-images-idx3-ubyte{suffix}")
    assert np.allclose(found.features, pixels / 255, atol=1e-7)
    assert found.features.max() <= 1.0 and found.labels.tolist() == [0, 1, 2, 3, 4]
    assert len(load("mnist", TASK, tmp_path, part="all")) == 10


def test_folder_by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path / "fashion-mnist")
    monkeypatch.setenv("FL_NODE_DATA_DIR", str(tmp_path))
    assert len(load("fashion-mnist", TASK, part="test")) == 5


def test_the_other_data_set_under_the_same_file_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path)
    file = "train-labels-idx1-ubyte"
    digests = {file: hashlib.sha256((folder / f"{file}.gz").read_bytes()).hexdigest()}
    monkeypatch.setitem(images._SHA256, "fashion-mnist", images._SHA256["fashion-mnist"] | digests)
    with pytest.raises(DataError, match=r"mnist: .*train-labels-idx1-ubyte.gz is of fashion-mnist"):
        load("mnist", TASK, folder, "train")
    assert len(load("fashion-mnist", TASK, folder, "train")) == len(load("mnist", TASK, folder, "test")) == 5


def test_another_image_size(tmp_path: Path) -> None:
    folder_of(tmp_path, side=32)
    with pytest.raises(DataError, match=r"train-images.*\[32, 32\].*\[28, 28\]"):
        load("mnist", TASK, tmp_path, part="train")
    with pytest.raises(DataError, match=r"train-images.* and .*t10k-images.*\[32, 32\].*\[28, 28\]"):
        load("mnist", TASK, tmp_path)


def test_more_labels_than_images(tmp_path: Path) -> None:
    folder_of(tmp_path, labels=6)
    with pytest.raises(DataError, match=r"\[5, 28, 28\] and \[6\]"):
        load("mnist", TASK, tmp_path, part="train")


def test_a_missing_file_is_named_and_nothing_is_downloaded(tmp_path: Path) -> None:
    (folder_of(tmp_path) / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"no train-labels-idx1-ubyte.gz"):
        load("mnist", TASK, tmp_path, part="train")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "expected 000008"),
        (b"\x00\x00\x0d\x01" + bytes(8), "begins with 00000d01"),
        (b"\x00\x00\x08\x02\x00\x00", "cut short"),
        (idx(np.zeros((3, 4)))[:-1], r"\[3, 4\], that is 12 bytes, but 11 follow"),
        (idx(np.zeros((3, 4))) + b"x", "but 13 follow"),
        (b"\x00\x00\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff", "but 0 follow"),
        (gzip.compress(idx(np.zeros(4)), mtime=0)[:-9], "cannot be read"),
    ],
)
def test_idx_faults(tmp_path: Path, raw: bytes, words: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=words):
        read_idx(path)


# ---- download -----------------------------------------------------------------------------------------------------


class _Mirror(ThreadingHTTPServer):
    files: dict[str, bytes]
    asked: list[str]


class _Handler(BaseHTTPRequestHandler):
    server: _Mirror

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + (10 if "short" in self.path else 0)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def mirror() -> Iterator[_Mirror]:
    server = _Mirror(("127.0.0.1", 0), _Handler)
    server.files, server.asked = {}, []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _url(server: _Mirror, path: str) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def test_download_tries_mirrors_checks_and_caches(mirror: _Mirror, tmp_path: Path) -> None:
    body = b"data" * 1000
    digest = hashlib.sha256(body).hexdigest()
    mirror.files = {"/altered": b"Data" * 1000, "/short": body[:-10], "/good": body}
    remote = Remote(tuple(_url(mirror, path) for path in ("/missing", "/altered", "/short", "/good")), digest)
    path = tmp_path / "cache" / "file.gz"
    assert downloaded(remote, path) == path and path.read_bytes() == body
    assert mirror.asked == ["/missing", "/altered", "/short", "/good"]
    downloaded(remote, path)
    assert len(mirror.asked) == 4, "the cached file is used"
    path.write_bytes(b"damaged")
    assert downloaded(remote, path).read_bytes() == body, "a damaged one is fetched anew"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.gz"], "nothing unfinished stays"


def test_download_failure_names_every_mirror(mirror: _Mirror, tmp_path: Path) -> None:
    mirror.files = {"/altered": b"x"}
    remote = Remote((_url(mirror, "/altered"), _url(mirror, "/gone"), "file:///etc/passwd"), "0" * 64)
    with pytest.raises(DataError, match=r"got 1 bytes of SHA-256.*404.*expected an http.*--data-dir") as caught:
        downloaded(remote, tmp_path / "file.gz")
    assert "/altered" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_data_set_by_download(mirror: _Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder_of(tmp_path / "made")
    mirror.files = {f"/{path.name}": path.read_bytes() for path in place.iterdir()}
    digests = {path.name[:-3]: hashlib.sha256(path.read_bytes()).hexdigest() for path in place.iterdir()}
    monkeypatch.setitem(images._MIRRORS, "mnist", (_url(mirror, "/"),))
    monkeypatch.setitem(images._SHA256, "mnist", digests)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FL_NODE_DATA_DIR", raising=False)
    assert len(load("mnist", TASK, part="train")) == 5
    assert len(mirror.asked) == 2
    mirror.files.clear()
    assert len(load("mnist", TASK, part="train")) == 5, "from the cache, offline"


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_digests_are_those_of_the_published_files(name: str, public_data: Callable[[str], Path]) -> None:
    folder = public_data(name) / name
    for file, digest in images._SHA256[name].items():
        assert hashlib.sha256((folder / f"{file}.gz").read_bytes()).hexdigest() == digest, file


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_published_test_images(name: str, public_data: Callable[[str], Path]) -> None:
    found = load(name, TASK, public_data(name), part="test")
    assert found.features.shape == (10_000, 28, 28) and found.features.max() == 1.0
    assert np.bincount(found.labels).min() >= 892
