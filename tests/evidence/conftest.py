from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "audit"))

from given import Given, given
from playing import Play
from signed_ledger import key

from fl_node.evidence.layout import ALL
from fl_node.evidence.write import export
from fl_node.ledger.checkpoint import at, sign


@pytest.fixture(scope="session", autouse=True)
def locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FL_NODE_LOCKS", str(tmp_path_factory.mktemp("locks")))
        yield


@pytest.fixture(scope="session")
def played() -> Given:
    """Five sites, three rounds, a late joiner who is retired, closing updates: 18 updates in 46 signed entries."""

    found = given(Play().whole())
    log = found.means().log
    found.checkpoints = [sign(at(log, 20), key("peer 1")), sign(at(log), key("peer 2"))]
    return found


@pytest.fixture(scope="session")
def pack(played: Given, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of it, with weights."""
    path = tmp_path_factory.mktemp("packs") / "pack.zip"
    made = export(played.means(), ALL, path, blobs=True)
    assert not made.missing
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The least federation there is, with a file of every kind."""
    found = given(Play(peers=1, rounds=1, encrypt=True).whole())
    found.checkpoints = [sign(at(found.means().log), key("peer 1"))]
    path = tmp_path_factory.mktemp("packs") / "small.zip"
    assert not export(found.means(), ALL, path, blobs=True, plain=True).missing
    return path
