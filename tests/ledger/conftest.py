from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from worlds import World, chain_world, memory_world

from fl_node.chains import ChainKind, DevChain
from fl_node.records import Role

MakeWorld = Callable[..., World]
THREE = (Role.ALL, Role.ALL, Role.ALL)


@pytest.fixture(scope="session", autouse=True)
def locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FL_NODE_LOCKS", str(tmp_path_factory.mktemp("locks")))
        yield


@pytest.fixture(scope="session")
def chains() -> Iterator[Callable[[ChainKind], DevChain]]:
    """Each kind of chain, started once and only if somebody asks."""
    running: dict[ChainKind, DevChain] = {}

    def get(kind: ChainKind) -> DevChain:
        if kind not in running:
            running[kind] = DevChain.start(kind)
        return running[kind]

    yield get
    for chain in running.values():
        chain.stop()


@pytest.fixture
def anvil(chains: Callable[[ChainKind], DevChain]) -> DevChain:
    return chains("anvil")


@pytest.fixture
def lone_anvil() -> Iterator[DevChain]:
    """An Anvil of the test's own, to reorganise, stop or starve."""
    with DevChain.start("anvil") as chain:
        yield chain


@pytest.fixture(params=["memory", "anvil", "ganache", "hardhat"])
def make_world(request: pytest.FixtureRequest, chains: Callable[[ChainKind], DevChain]) -> Iterator[MakeWorld]:
    """Fresh ledgers of one kind; each test that asks runs on all four."""
    made: list[World] = []

    def make(roles: Sequence[Role] = THREE, min_interval_s: int = 0) -> World:
        if request.param == "memory":
            made.append(memory_world(roles, min_interval_s))
        else:
            made.append(chain_world(chains(request.param), roles, min_interval_s))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world()
