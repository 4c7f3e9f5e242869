"""`fl-node demo` as a person starts it: every setting, its result, and that it leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from demos import Demo, replay_of, run

from fl_node.ledger.log_store import LogStore
from fl_node.records import UpdatePublished

SMALL = ("--peers", 3, "--rounds", 2)


def test_the_result(start: Any, tmp_path: Path) -> None:
    out, state = tmp_path / "result.json", tmp_path / "kept"
    demo = start("--peers", 4, "--rounds", 3, "--json", out, "--state", state)
    code, shown, err = demo.ends()
    assert code == 0, err
    demo.leaves_nothing()
    result = json.loads(out.read_text())
    assert result["updates"] == 4 * 4 and result["failures"] == []
    assert len(result["accuracy"]["federated"]) == len(result["accuracy"]["alone"]) == 4
    assert min(result["accuracy"]["federated"]) > 0.85 and result["accuracy"]["pooled"] > 0.85
    assert {"total", "train", "record", "fetch"} <= result["seconds"].keys()
    assert result["bytes"]["published"] > 0 and result["bytes"]["fetched"] > 0
    assert result["federation_file"] == str(state / "federation.toml")
    for words in ("site-d", "all data in one place", result["root"], result["contract"]):
        assert words in shown
    replay_of(state, result)


@pytest.mark.parametrize("chain", ["ganache", "hardhat"])
def test_other_chains(start: Any, tmp_path: Path, chain: str) -> None:
    kept = ("--state", tmp_path / "kept")
    result = run(start, *SMALL, "--chain", chain, "--no-baselines", *kept)
    assert result["updates"] == 9
    assert result["accuracy"]["alone"] == [] and result["accuracy"]["pooled"] is None
    if chain == "ganache":
        replay_of(tmp_path / "kept", result)


@pytest.mark.parametrize(
    "argv",
    [
        ("--mode", "sync", "--partition", "label-skew"),
        ("--model", "mlp", "--partition", "unequal"),
        ("--model", "cnn", "--partition", "dirichlet:0.5", "--mode", "sync"),
        ("--peers", 1),
        ("--rounds", 1, "--epochs", 2, "--batch-size", 32, "--learning-rate", "0.3", "--seed", 7),
    ],
    ids=lambda argv: " ".join(map(str, argv)),
)
def test_settings(start: Any, tmp_path: Path, argv: tuple[str, ...]) -> None:
    result = run(start, *SMALL, "--no-baselines", "--state", tmp_path / "kept", *argv)
    assert all(accuracy is not None for accuracy in result["accuracy"]["federated"])
    replay_of(tmp_path / "kept", result)


def test_updates_keep_their_distance(start: Any, tmp_path: Path) -> None:
    result = run(start, *SMALL, "--no-baselines", "--state", tmp_path / "kept", "--interval", 2)
    assert result["failures"] == []
    with closing(LogStore(tmp_path / "kept" / "federation.sqlite")) as log:
        entries = list(log.entries(kinds=["UpdatePublished"]))
    times: dict[int, list[int]] = {1: [], 2: [], 3: []}
    for entry in entries:
        assert isinstance(entry.body, UpdatePublished)
        times[entry.body.peer].append(entry.time_s)
    assert all(len(mine) == 3 and later - one >= 2 for mine in times.values() for one, later in pairwise(mine))


def test_masks_are_learned_and_told_as_dice(start: Any) -> None:
    result = run(start, "--peers", 2, "--rounds", 2, "--dataset", "digits-canvas", "--no-baselines")
    assert result["measure"] == "Dice" and result["failures"] == []
    assert min(result["accuracy"]["federated"]) > 0.7


def test_the_same_seed_gives_the_same_models(start: Any) -> None:
    once, again = (run(start, *SMALL, "--mode", "sync", "--no-baselines", "--seed", 3) for _ in range(2))
    assert once["accuracy"] == again["accuracy"]


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("--peers", 0), 2, "--peers 0"),
        (("--partition", "label-skew:11"), 2, "label-skew:11"),
        (("--model", "json:no_such_factory"), 3, "no_such_factory"),
        (("--json", "/no/such/folder/x.json"), 2, "/no/such/folder"),
        (("--dataset", "credit-default", "--data-dir", "/no/such/folder"), 4, "/no/such/folder"),
        (("--state", "/dev/null/x"), 23, "/dev/null/x"),
    ],
)
def test_bad_settings(start: Any, argv: tuple[object, ...], code: int, words: str) -> None:
    demo = start(*SMALL, *argv)
    got, _, err = demo.ends()
    assert (got, words in err) == (code, True), err
    assert "Traceback" not in err and "defect" not in err
    demo.leaves_nothing()


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("--peers", 65), 2, "--peers 65: expected"),
        (("--rounds", 0), 2, "--rounds 0: expected"),
        (("--epochs", 0), 2, "--epochs 0: expected"),
        (("--batch-size", 0), 2, "--batch-size 0: expected"),
        (("--batch-size", 10**30), 2, "expected a whole number from 1 to 2147483648"),
        (("--learning-rate", "-1"), 2, "--learning-rate -1.0: expected"),
        (("--learning-rate", "0"), 2, "--learning-rate 0.0: expected"),
        (("--learning-rate", "nan"), 2, "--learning-rate nan: expected"),
        (("--learning-rate", "inf"), 2, "--learning-rate inf: expected"),
        (("--seed", -1), 2, "--seed -1: expected"),
        (("--interval", -1), 2, "--interval -1: expected"),
        (("--dataset", "nonsense"), 2, "nonsense"),
        (("--dataset", "digits-canvas", "--model", "cnn"), 2, "a segmentation task: expected unet or module:factory"),
        (("--model", "unet"), 2, "a classification task"),
        (("--partition", "by-mood"), 2, "by-mood"),
        (("--partition", "dirichlet:-1"), 2, "dirichlet"),
        (("--model", "perceptron"), 3, "perceptron: expected one of"),
        (("--model", "no_such_module:factory"), 3, "no_such_module"),
        (("--state", __file__), 23, f"{__file__} is no folder"),
    ],
)
def test_settings_refused_before_a_chain_is_started(
    start: Any, argv: tuple[object, ...], code: int, words: str
) -> None:
    demo = start(*argv)
    got, _, err = demo.ends()
    assert (got, words in err) == (code, True), err
    assert len(err.splitlines()) == 1 and err.startswith("fl-node: ")
    demo.leaves_nothing()


def test_a_folder_that_holds_a_demo_is_left_alone(start: Any, tmp_path: Path) -> None:
    (tmp_path / "federation.toml").write_text("mine")
    demo = start(*SMALL, "--state", tmp_path)
    code, _, err = demo.ends()
    assert code == 2 and str(tmp_path) in err
    assert (tmp_path / "federation.toml").read_text() == "mine"
    demo.leaves_nothing()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("moment", ["chain ", "contract ", "round 2"])
def test_interrupted_it_leaves_nothing(start: Any, number: int, moment: str) -> None:
    demo = start("--peers", 3, "--rounds", 500)
    demo.until_says(moment)
    if number == signal.SIGINT:
        os.killpg(demo.process.pid, number)  # as a terminal does: to everybody
    else:
        demo.process.send_signal(number)
    code, _, err = demo.ends(30)
    assert code == 130 and "Traceback" not in err, err
    demo.leaves_nothing()


@pytest.mark.parametrize("pause_s", [0.25, 0.5, 0.9, 1.4])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_interrupted_while_it_loads(start: Any, pause_s: float, number: int) -> None:
    """At whatever moment, twice: one line, and nothing is left."""
    demo = start("--peers", 3, "--rounds", 500)
    while b"fl_node" not in (Path("/proc") / str(demo.process.pid) / "cmdline").read_bytes():
        time.sleep(0.01)
    time.sleep(pause_s)
    for _ in range(2):
        os.killpg(demo.process.pid, number)
    code, _, err = demo.ends(30)
    if number == signal.SIGTERM and code == -signal.SIGTERM:
        assert err == ""  # It came before the demo had begun, on a busy machine.
    else:
        assert code == 130 and err.endswith("fl-node: interrupted\n") and "Traceback" not in err, err
    demo.leaves_nothing()


def test_killed_it_leaves_nothing(start: Any) -> None:
    demo = start("--peers", 3, "--rounds", 500)
    demo.until_says("round 2")
    assert len(demo.relatives()) > 4
    demo.process.kill()
    demo.leaves_nothing()


def peers_of(demo: Demo, state: Path) -> dict[str, int]:
    """The pid of each peer, from its lock."""
    return {path.parent.name: int(path.read_text()) for path in state.glob("site-*/key.lock") if path.read_text()}


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_peer_that_is_killed_is_named_and_the_others_go_on(start: Any, tmp_path: Path, mode: str) -> None:
    out, state = tmp_path / "result.json", tmp_path / "kept"
    rounds = 30 if mode == "async" else 5
    demo = start("--peers", 3, "--rounds", rounds, "--mode", mode, "--state", state, "--json", out, "--no-baselines")
    demo.until_says("site-b: round 2")
    os.kill(peers_of(demo, state)["site-b"], signal.SIGKILL)
    code, _, err = demo.ends()
    assert code == 1 and "site-b" in err and "-9" in err, err
    result = json.loads(out.read_text())
    assert [accuracy is None for accuracy in result["accuracy"]["federated"]] == [False, True, False]
    assert len(result["failures"]) == 1 and "site-b" in result["failures"][0]
    demo.leaves_nothing()


def test_a_chain_that_dies_ends_the_demo(start: Any) -> None:
    demo = start("--peers", 2, "--rounds", 500)
    demo.until_says("round 2")
    (anvil,) = [pid for pid, line in demo.relatives().items() if "anvil" in line]
    os.kill(anvil, signal.SIGKILL)
    code, _, err = demo.ends(120)
    assert code == 1 or code == 11, err
    assert "does not answer" in err and "Traceback" not in err
    demo.leaves_nothing()
