"""A private federation in real processes on a real chain: killed between account and noise, started again, spent, and
its account lost."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from consortium import PASSWORD, Consortium, found
from offspring import Run

from fl_node.budget import FILE_NAME
from fl_node.chains import DevChain
from fl_node.content.cid import Cid
from fl_node.prefix import Prefix

pytestmark = pytest.mark.xdist_group("node-dp")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    privacy = {"mechanism": "example", "epsilon": 6.0, "delta": 1e-4, "encrypt": False}
    with DevChain.start("anvil") as chain:
        yield found(tmp_path_factory.mktemp("dp"), chain, 1, rounds={"planned": 3, "linger_s": 0.0}, privacy=privacy)


def command(made: Consortium, name: str, *argv: str) -> Run:
    state = made.states[0]
    words = [name, "--state", str(state), "--federation", str(made.file), *argv]
    run = Run(state / "commands", words, FL_NODE_PASSWORD=PASSWORD)
    run.wait()
    return run


def reports(made: Consortium) -> list[dict[str, object]]:
    own = Prefix(made.entries()).updates(1)
    return [json.loads(made.read(Cid("raw", entry.update.report))) for entry in own]


def test_the_life_of_a_budget(made: Consortium) -> None:
    state = made.states[0]
    killed = made.run(1, fault="die_before_noise", given=(2,))
    assert killed.wait() == -signal.SIGKILL
    (told,) = killed.events("privacy")
    assert told["trainings_left"] == 3 and told["trainings_planned"] == 3 and told["epsilon"] == 0.0
    spent = json.loads((state / FILE_NAME).read_text())["spent"]
    assert [(one["sequence"], one["attempt"]) for one in spent] == [(1, 1), (2, 1)]

    # The training that was never done counts: there is budget for one more, and round 3 trains nothing.
    again = made.run(1)
    assert again.wait() == 0, again.stderr
    spent = json.loads((state / FILE_NAME).read_text())["spent"]
    assert [(one["sequence"], one["attempt"]) for one in spent] == [(1, 1), (2, 1), (2, 2)]
    assert len(again.events("budget-spent")) == 1
    first, second, third, closing = reports(made)
    assert [bool(report["training"].get("untrained")) for report in (first, second, third)] == [False, False, True]  # type: ignore[attr-defined]
    assert third["training"]["why"] == "privacy budget spent" and closing["training"] is None  # type: ignore[index]
    assert first["privacy"]["epsilon"] == spent[0]["epsilon"]  # type: ignore[index]
    assert second["privacy"]["epsilon"] == closing["privacy"]["epsilon"] == spent[2]["epsilon"] <= 6.0  # type: ignore[index]
    assert all("loss" not in json.dumps(event) for event in again.events())

    shown = command(made, "privacy")
    assert shown.stdout.startswith("differential privacy of each row of this peer's (DP-SGD)\n")
    assert "of 6, at delta 0.0001" in shown.stdout and "left      0 rounds of training like the last" in shown.stdout
    table = json.loads(command(made, "privacy", "--json").stdout)
    assert table["epsilon"] == spent[2]["epsilon"] and table["trainings_left"] == 0 and table["untrained"] == [3]
    assert len(table["trainings"]) == 3 and table["assumed_spent"] is False
    doctor = command(made, "doctor").stdout
    assert "privacy budget: epsilon 5.99" in doctor and "in 3 trainings" in doctor

    words = ["audit", "--json", "--federation", str(made.file), "--content", str(state / "content")]
    audit = Run(state / "audits", words)
    assert audit.wait() in (0, 41), audit.stderr
    found = json.loads(audit.stdout)
    assert "failed" not in json.dumps(found["updates"]), audit.stdout

    # An account that knows less than the ledger, or nothing, is no account.
    kept = (state / FILE_NAME).read_bytes()
    for lost in (b"", None):
        (state / FILE_NAME).unlink()
        if lost is not None:
            (state / FILE_NAME).write_bytes(lost)
        refused = made.run(1, "--rounds", "6")
        assert refused.wait() == 31
        assert "fl-node privacy --assume-spent" in refused.stderr and "Traceback" not in refused.stderr
    (state / FILE_NAME).write_bytes(kept[:100])
    assert command(made, "privacy").process.exitcode == 31
    given_up = command(made, "privacy", "--assume-spent")
    assert given_up.process.exitcode == 0 and "given up" in given_up.stdout
    assert (state / FILE_NAME).with_suffix(".damaged").read_bytes() == kept[:100]

    on = made.run(1, "--rounds", "5")
    assert on.wait() == 0, on.stderr
    assert "the rest was given up" in on.events("privacy")[0]["text"]
    later = reports(made)[4:]
    budget = later[-1]["privacy"]["budget_epsilon"]  # type: ignore[index]
    assert {report["privacy"]["epsilon"] for report in later[1:]} == {budget}  # type: ignore[index]
    assert [bool((report["training"] or {}).get("untrained")) for report in later[:-1]] == [True] * len(later[:-1])  # type: ignore[attr-defined]
    made.replay().check()


def test_without_a_mechanism_there_is_nothing_to_show(made: Consortium, tmp_path: Path) -> None:
    plain = found(tmp_path, made.chain, 1)
    shown = command(plain, "privacy")
    assert shown.process.exitcode == 2 and "trains without differential privacy" in shown.stderr
