"""A member whose weights nobody can train on stops nobody."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from twins import Twins, small_spec

from fl_node.content.cid import Cid
from fl_node.merging import weights
from fl_node.records import Flag, Update

ZERO = bytes(32)


def test_others_go_on_from_where_they_can_and_say_so(tmp_path: Path) -> None:
    spec = small_spec(rounds={"planned": 2}, merging={"max_magnitude": 3e38})
    twins = Twins(tmp_path, spec, size=3)
    hostile = {name: np.full_like(array, 3e37) for name, array in twins.genesis.items()}
    ledger = twins.ledgers[3]
    identity, head = ledger.identity, ledger.head()
    cid = twins.stores[3].add(weights.encode(hostile))
    ledger.announce(1, ZERO, ZERO, "memory://3")
    commitment = weights.commitment(identity.chain_id, identity.address, 3, 1, weights.digest(hostile))
    ledger.publish(
        Update(cid.digest, Flag(0), commitment, ZERO, ZERO, head.size, head.root, 1, 1, 0, 0, 1000, 1, 0), ()
    )
    assert twins.run(1, 2) == {1: None, 2: None}
    for number in (1, 2):
        assert "diverged" in twins.kinds[number]
        mine = twins.replay().full.updates(number)
        assert [(update.round, update.final) for update in mine] == [(1, False), (2, False), (3, True)]
        report = json.loads(twins.read(Cid("raw", mine[0].update.report)))
        assert report["training"]["from"] == "genesis"
        sent = weights.decode(twins.read(Cid("raw", mine[1].content))).tensors
        assert all(np.abs(array).max() < 1e6 for array in sent.values())


def test_training_starts_from_the_base_where_it_can(tmp_path: Path) -> None:
    twins = Twins(tmp_path, small_spec(rounds={"planned": 1}), size=2)
    assert twins.run() == {1: None, 2: None}
    for number in (1, 2):
        report = json.loads(twins.read(Cid("raw", twins.replay().full.updates(number)[0].update.report)))
        assert report["training"]["from"] == "base"
