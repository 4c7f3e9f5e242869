"""Trust, personal layers and attestations in real processes on a real chain, one of them killed as it attests."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from consortium import CLEAR, found

from fl_node.__main__ import main
from fl_node.chains import DevChain
from fl_node.merging import weights
from fl_node.models import load_model
from fl_node.own_layers import OwnLayers
from fl_node.records import Reason, Rule, UpdateObjected, UpdateRef

pytestmark = pytest.mark.xdist_group("node-kill")


def test_killed_as_it_attests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with DevChain.start("anvil") as chain:
        made = found(
            tmp_path,
            chain,
            2,
            model={"name": "mlp", "hidden": [16]},
            merging={
                "selection": "top-k",
                "k": 1,
                "scores": "attested",
                "aggregation": "trust",
                "personal": ["linear.*"],
            },
            attestation={"mode": "all"},
            rounds={"mode": "sync", "planned": 2, "linger_s": 20.0},
            privacy=CLEAR,
        )
        other = made.run(2)
        assert made.run(1, fault="die", given=("attested", 0)).wait() == -signal.SIGKILL
        again = made.run(1)
        assert again.wait() == 0, again.stderr
        assert other.wait() == 0, other.stderr
        replay = made.replay()
        updates = replay.check()
        assert [update.update.rule for update in updates] == [Rule.GENESIS] * 2 + [Rule.TRUST] * 4
        said = replay.check_attestations()
        # While peer 1 was dead, nobody served its first update: then peer 2 objected to it instead.
        words = [entry.body for entry in replay.entries if isinstance(entry.body, UpdateObjected)]
        spoken = {(word.peer, word.target) for word in words} | said.keys()
        assert {(word.peer, word.target, word.reason) for word in words} <= {(2, UpdateRef(1, 1), Reason.UNAVAILABLE)}
        assert {(peer, ref.peer, ref.sequence) for peer, ref in spoken} == {(1, 2, 1), (2, 1, 1), (1, 2, 2), (2, 1, 2)}

        # A model from elsewhere is whole: with the genesis' personal tensors, or this peer's own.
        spec, final = made.federation.spec, replay.full.updates(1)[-1]
        genesis = weights.decode((tmp_path / "federation.genesis.safetensors").read_bytes()).tensors
        shutil.copytree(made.states[0] / "content", tmp_path / "elsewhere" / "content")
        out = tmp_path / "model.safetensors"
        argv = ["model", "--federation", str(made.file), "--at", str(final.ref), "--out", str(out)]
        for state, source in ((made.states[0], "own"), (tmp_path / "elsewhere", "genesis")):
            assert main([*argv, "--state", str(state), "--force"]) == 0
            assert source in capsys.readouterr().out
            whole = weights.decode(out.read_bytes()).tensors
            opened = replay.full.opened
            layers = OwnLayers(spec, lambda: genesis, state, f"{opened.chain_id}/{opened.ledger}")
            assert layers.newest(99) == (3 if source == "own" else 0)
            expected = layers.join(replay.tensors(final), 99)
            assert weights.digest(whole) == weights.digest(expected) and set(whole) == set(genesis)
        module = load_model(made.file, str(final.ref), state=made.states[0])
        found_bias = module.state_dict()["linear.bias"].numpy()
        own = OwnLayers(spec, lambda: genesis, made.states[0], f"{opened.chain_id}/{opened.ledger}")
        assert np.array_equal(found_bias, own.join(replay.tensors(final), 3)["linear.bias"])
