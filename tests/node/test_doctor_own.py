"""What keeps a peer from starting on its own machine is found by `doctor` beforehand, and what is loud is loud."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from consortium import PASSWORD, Consortium, configure, found
from offspring import Run

from fl_node.chains import DevChain

pytestmark = pytest.mark.xdist_group("doctor-own")

#: Told in the names of other files, so that no other test of this process imports it.
MIXING = """
import torch
class Centred(torch.nn.Module):
    def forward(self, x):
        return x - x.mean(0)
def net(input_shape, classes):
    return torch.nn.Sequential(torch.nn.Linear(input_shape[0], 8), Centred(), torch.nn.Linear(8, classes))
"""


@pytest.fixture(scope="module")
def chain() -> Iterator[DevChain]:
    with DevChain.start("anvil") as running:
        yield running


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, chain: DevChain) -> Consortium:
    """A federation that encrypts, whose only peer has played: it has keys."""
    ours = found(tmp_path_factory.mktemp("own"), chain, 1, rounds={"planned": 1, "linger_s": 0.0})
    run = ours.run(1)
    assert run.wait() == 0, run.stderr
    return ours


def doctor(made: Consortium, *argv: object, password: bool = False) -> tuple[int, dict[str, dict[str, str]]]:
    state = made.states[0]
    environment = {"FL_NODE_PASSWORD": PASSWORD} if password else {}
    run = Run(state / "commands", ["doctor", "--json", "--state", str(state), *map(str, argv)], **environment)
    code = run.wait()
    assert "Traceback" not in run.stderr and "defect" not in run.stderr, run.stderr
    return code, {item["name"]: item for item in json.loads(run.stdout)}


def refused(made: Consortium, name: str, words: str, code: int, *argv: str, password: bool = False) -> None:
    """`doctor` fails in one finding with these words, and `run` ends with this code and the same words."""
    told, findings = doctor(made, *argv, password=password)
    assert told == 1 and findings[name]["result"] == "failed" and findings[name]["mend"]
    assert words in findings[name]["message"], findings[name]
    assert {item["name"] for item in findings.values() if item["result"] == "failed"} == {name}
    run = made.run(1, *argv)
    assert run.wait() == code and words in run.stderr
    last = run.events()[-1]
    assert last["kind"] == "ended" and last["exit_code"] == code and words in last["text"] and not last["closed"]


def test_all_is_well(made: Consortium) -> None:
    code, findings = doctor(made)
    assert code == 0 and {item["result"] for item in findings.values()} == {"ok"}
    assert "1 key known" in findings["keys and vault"]["message"]
    assert "rows to train on" in findings["rows and model"]["message"]
    assert "contract has the same root" in findings["log"]["message"]
    code, findings = doctor(made, password=True)
    assert code == 0 and findings["password"]["result"] == "ok"
    assert "1 private key open" in findings["keys and vault"]["message"]


def test_keys_that_others_may_read(made: Consortium) -> None:
    (key,) = (made.states[0] / "keys").glob("age1*.age")
    key.chmod(0o644)
    try:
        refused(made, "keys and vault", "mode 644", 28)
    finally:
        key.chmod(0o600)
    for folder in ("keys", "vault"):
        (made.states[0] / folder).chmod(0o755)
        try:
            refused(made, "keys and vault", f"{folder} has mode 755", 28)
        finally:
            (made.states[0] / folder).chmod(0o700)


def test_damaged_keys(made: Consortium) -> None:
    (key,) = (made.states[0] / "keys").glob("age1*.age")
    for path, password in ((made.states[0] / "keys" / "keyring.json", False), (key, True)):
        kept = path.read_bytes()
        path.write_bytes(b"junk")
        try:
            refused(made, "keys and vault", path.name, 28, password=password)
        finally:
            path.write_bytes(kept)


def test_another_password(made: Consortium, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("another")
    refused(made, "password", "does not open", 5, "--password-file", str(tmp_path / "password"))


def test_rows_that_are_not_there(made: Consortium) -> None:
    refused(made, "rows and model", "nofile.csv", 4, "--data", "csv:nofile.csv")
    configure(made.states[0], made.file, data="csv:nofile.csv")
    try:
        refused(made, "rows and model", "nofile.csv", 4)
    finally:
        configure(made.states[0], made.file)


@pytest.mark.parametrize(
    ("privacy", "words"),
    [
        ({"mechanism": "example", "delta": 0.01}, "expected below 1 / "),
        ({"mechanism": "update", "epsilon": 1e-9}, "would need noise of more than 10,000"),
        ({"mechanism": "update", "epsilon": 1.0, "noise_multiplier": 1e-3}, "one round of training alone spends"),
    ],
)
def test_a_budget_that_these_rows_do_not_allow(
    chain: DevChain, tmp_path: Path, privacy: dict[str, object], words: str
) -> None:
    refused(found(tmp_path, chain, 1, privacy=privacy), "rows and model", words, 3)


def test_a_model_that_mixes_rows(chain: DevChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mixing_rows.py").write_text(MIXING)
    ours = found(tmp_path / "x", chain, 1, model={"name": "mixing_rows:net"}, privacy={"mechanism": "example"})
    refused(ours, "rows and model", "mixing_rows:net", 3, "--allow-code", "mixing_rows:net")
    refused(ours, "rows and model", "--allow-code mixing_rows:net", 3)


def test_what_is_in_the_clear_or_does_nothing_is_a_warning(chain: DevChain, tmp_path: Path) -> None:
    tables = {"privacy": {"encrypt": False}, "encoding": {"kind": "f16", "density": 0.1}}
    ours = found(tmp_path, chain, 1, rounds={"planned": 1, "linger_s": 0.0}, **tables)
    code, findings = doctor(ours)
    assert code == 0 and "keys and vault" not in findings
    assert findings["encryption"]["result"] == findings["keys of the spec"]["result"] == "warning"
    assert "everybody who can reach" in findings["encryption"]["message"]
    assert "density = 0.1" in findings["keys of the spec"]["message"]
    state = ours.states[0]
    shown = Run(state / "commands", ["doctor", "--state", str(state)])
    assert shown.wait() == 0 and "warning  encryption: privacy.encrypt = false" in shown.stdout
    run = ours.run(1)
    assert run.wait() == 0
    (event,) = run.events("in-the-clear")
    assert event["text"].startswith("WARNING: privacy.encrypt = false") and "for ever" in event["text"]
    assert run.events()[-1]["kind"] == "ended" and run.events()[-1]["exit_code"] == 0


@pytest.mark.parametrize(
    ("argv", "code"), [(("--port", "70000"), 3), (("--federation", "absent.toml"), 3), (("--state", "/dev/null/x"), 23)]
)
def test_a_run_that_cannot_start_ends_with_ended(made: Consortium, argv: tuple[str, ...], code: int) -> None:
    run = made.run(1, "--federation", str(made.file), *argv)
    assert run.wait() == code
    (event,) = run.events()
    assert event["kind"] == "ended" and event["exit_code"] == code and event["closed"] is False
    assert event["text"] in run.stderr
