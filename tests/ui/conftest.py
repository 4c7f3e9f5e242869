"""Explorers over small federations, for reading: each is made once for all tests.

A test that writes to its ledger, or stops its follower, makes its own with :mod:`ui_logs`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ui_demo
import ui_logs
import ui_scribe
from ui_logs import Explored


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What explorers keep for their user lies here, not in the home of who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explored]:
    """Seven peers of six sites, four rounds and closing updates; see :func:`ui_logs.played`."""
    yield from ui_logs.closing(ui_logs.over(ui_logs.played(), tmp_path_factory.mktemp("world")))


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explored]:
    """A ledger that was opened, and nothing else."""
    yield from ui_logs.closing(ui_logs.over(ui_logs.founded([]), tmp_path_factory.mktemp("empty")))


@pytest.fixture(scope="session")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explored]:
    """One peer with two updates that nobody attests."""
    alone = ui_logs.founded(["clinic-a"])
    for number in (1, 2):
        alone.update(1, number)
    yield from ui_logs.closing(ui_logs.over(alone, tmp_path_factory.mktemp("lonely")))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explored]:
    """A contract that refuses nothing, and members that make use of it; see :func:`ui_scribe.hostile`."""
    yield from ui_logs.closing(ui_logs.explored(tmp_path_factory.mktemp("hostile"), ui_scribe.hostile()))


@pytest.fixture(scope="session")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explored]:
    """A federation whose chain has never answered: there is no log at all."""
    told = ui_scribe.Scribe(b"\0" * 32)
    yield from ui_logs.closing(ui_logs.explored(tmp_path_factory.mktemp("unseen"), told, look=False))


@pytest.fixture(scope="session")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ui_demo.Left]:
    """A finished demo of three peers, with its chain and its gateways; tests do not write to it."""
    yield from ui_demo.left(tmp_path_factory.mktemp("left"))
