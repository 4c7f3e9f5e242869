"""kill -9 at every step of a round, in real processes on a real chain: nothing finished is lost, nothing twice."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from consortium import Consortium, configure, found, free_port

from fl_node.chains import DevChain
from fl_node.content.blockstore import Blockstore
from fl_node.content.gateway import Gateway
from fl_node.records import PeerAnnounced

pytestmark = pytest.mark.xdist_group("node-kill")

# Where it dies, and which sequences have been trained when all is done. ``before``: just before the step.
STEPS = {
    "merge": [1, 2],
    "publish_weights": [1, 2, 2],
    "train": [1, 2],
    "publish_report": [1, 2],
    "evaluate": [1, 2],
    "outbox": [1, 2],
    "broadcast": [1, 2],
    "receipt": [1, 2],
    "record": [1, 2],
    "finish": [1, 2],
    "announced": [1, 2],
}
BEFORE = {"merge": [1, 2], "train": [1, 2], "broadcast": [1, 2], "finish": [1, 2]}
CASES = [(step, True) for step in STEPS] + [(step, False) for step in BEFORE]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """One peer for each case; the last one has been through all its rounds and serves what it made."""
    with DevChain.start("anvil") as chain:
        made = found(tmp_path_factory.mktemp("kill"), chain, len(CASES) + 1, rounds={"linger_s": 0.0})
        port = free_port()
        last = made.states[-1]
        configure(last, made.file, port=port)
        made.announce_keys()
        assert made.run(len(CASES) + 1).wait() == 0
        with Gateway(Blockstore(last / "content"), port=port):
            yield made


@pytest.mark.parametrize(("step", "after"), CASES, ids=[f"{'after' if a else 'before'}-{s}" for s, a in CASES])
def test_killed_at_a_step_and_started_again(federation: Consortium, step: str, after: bool) -> None:
    peer = 1 + CASES.index((step, after))
    killed = federation.run(peer, fault="die", given=(step, 2, after))
    assert killed.wait() == -signal.SIGKILL
    again = federation.run(peer)
    assert again.wait() == 0, again.stderr
    assert again.events("ended")[0]["closed"]
    replay = federation.replay()
    mine = replay.check([peer])
    assert [(update.round, update.final) for update in mine] == [(1, False), (2, False), (3, True)]
    assert [parent.peer for parent in mine[1].parents] == [peer, len(CASES) + 1]
    assert federation.trainings(peer) == (STEPS if after else BEFORE)[step]
    said = [entry.body for entry in replay.entries if isinstance(entry.body, PeerAnnounced) and entry.body.peer == peer]
    assert [body.epoch for body in said] == list(range(1, len(said) + 1))


def test_killed_again_and_again(federation: Consortium, tmp_path: Path) -> None:
    made = found(tmp_path, federation.chain, 1, rounds={"planned": 3, "linger_s": 0.0})
    for step, sequence in (("publish_weights", 1), ("broadcast", 1), ("train", 2), ("outbox", 3)):
        assert made.run(1, fault="die", given=(step, sequence)).wait() == -signal.SIGKILL
    assert made.run(1, fault="die", given=("receipt", 4)).wait() == -signal.SIGKILL
    assert made.run(1).wait() == 0
    assert [update.round for update in made.replay().check()] == [1, 2, 3, 4]
    assert made.trainings(1) == [1, 1, 2, 3]
