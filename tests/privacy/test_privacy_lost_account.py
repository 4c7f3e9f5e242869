"""A lost, old or unknown account of the budget: `privacy`, `doctor` and `run` say the same of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from consortium import PASSWORD, Consortium, found, free_port
from offspring import Run

from fl_node.budget import FILE_NAME
from fl_node.chains import DevChain

pytestmark = pytest.mark.xdist_group("node-dp")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    privacy = {"mechanism": "update", "epsilon": 3.0, "delta": 1e-4, "encrypt": False}
    with DevChain.start("anvil") as chain:
        folder = tmp_path_factory.mktemp("lost")
        ours = found(folder, chain, 1, rounds={"planned": 2, "linger_s": 0.0}, privacy=privacy)
        run = ours.run(1)
        assert run.wait() == 0, run.stderr
        yield ours


def command(made: Consortium, name: str, *argv: object, state: Path | None = None) -> Run:
    state = state or made.states[0]
    words = [name, "--state", str(state), "--federation", str(made.file), *map(str, argv)]
    run = Run(made.folder / "commands", words, FL_NODE_PASSWORD=PASSWORD)
    run.wait()
    assert "Traceback" not in run.stderr
    return run


def budget(run: Run) -> dict[str, Any]:
    (finding,) = [one for one in json.loads(run.stdout) if one["name"] == "privacy budget"]
    return dict(finding)


@pytest.fixture
def account(made: Consortium) -> Iterator[Path]:
    """The account, as it was again after the test."""
    path = made.states[0] / FILE_NAME
    kept = path.read_bytes()
    yield path
    path.write_bytes(kept)


def test_a_whole_account(made: Consortium, account: Path) -> None:
    shown = command(made, "privacy")
    assert shown.process.exitcode == 0
    told = json.loads(command(made, "privacy", "--json").stdout)
    assert f"epsilon {told['epsilon']:.4g} of 3" in shown.stdout and f"{told['epsilon']:.4g}" != "3"
    assert "the index of the ledger agrees with that" in shown.stdout
    finding = budget(command(made, "doctor", "--json"))
    assert finding["result"] == "ok" and f"epsilon {told['epsilon']:.4g} of 3" in finding["message"]
    before = account.read_bytes()
    refused = command(made, "privacy", "--assume-spent")
    assert refused.process.exitcode == 2 and "is whole" in refused.stderr and "nothing undoes it" in refused.stderr
    assert account.read_bytes() == before


def test_all_commands_tell_epsilon_alike(made: Consortium) -> None:
    run = made.run(1)
    assert run.wait() == 0
    (event,) = run.events("privacy")
    assert f"epsilon {event['epsilon']:.4g} of 3 spent" in event["text"] and "more more" not in event["text"]
    assert event["text"].endswith("enough for 0 further rounds of training, planned are 2 in all")


@pytest.mark.parametrize("what", ["gone", "old"])
def test_a_lost_account_is_never_told_as_a_fresh_one(made: Consortium, account: Path, what: str) -> None:
    table = json.loads(account.read_text())
    account.unlink()
    if what == "old":
        account.write_text(json.dumps(table | {"spent": table["spent"][:1]}))
    shown = command(made, "privacy")
    assert shown.process.exitcode == 31 and "others of this peer besides" in shown.stderr and shown.stdout == ""
    assert ("there is no such file" in shown.stderr) == (what == "gone")
    doctor = command(made, "doctor", "--json")
    finding = budget(doctor)
    assert doctor.process.exitcode == 1 and finding["result"] == "failed"
    assert "the ledger has others of this peer besides" in finding["message"] and "--assume-spent" in finding["mend"]
    assert made.run(1).wait() == 31
    given_up = command(made, "privacy", "--assume-spent")
    assert given_up.process.exitcode == 0 and "given up" in given_up.stdout
    assert budget(command(made, "doctor", "--json"))["result"] == "ok"


def test_the_journal_alone_knows_as_well(made: Consortium, account: Path, tmp_path: Path) -> None:
    """A crash between training and publishing, and the account lost: what was drawn may yet be published."""
    for name in ("key.json", "node.toml", "recorded.json"):
        (tmp_path / name).write_bytes((made.states[0] / name).read_bytes())
    draft = json.loads((tmp_path / "recorded.json").read_text())
    (tmp_path / "recorded.json").write_text(json.dumps(draft | {"final": False, "round": 3, "sequence": 7}))
    aside = made.file.with_name(f"{made.file.name}.index.sqlite")
    kept = aside.read_bytes()
    aside.unlink()
    try:
        shown = command(made, "privacy", state=tmp_path)
        assert shown.process.exitcode == 31 and "besides: 7" in shown.stderr
    finally:
        aside.write_bytes(kept)


def test_where_nothing_is_at_hand_it_says_so(made: Consortium, tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("port = 0\n")
    shown = command(made, "privacy", state=tmp_path)
    assert shown.process.exitcode == 0
    assert f"there is no {FILE_NAME} in {tmp_path} yet" in shown.stdout and "no copy of the ledger" in shown.stdout
    told = json.loads(command(made, "privacy", "--json", state=tmp_path).stdout)
    assert "spent     unknown, out of 3" in shown.stdout and told["epsilon"] is None
    assert told["account_found"] is False and told["held_against"] == []
    refused = command(made, "privacy", "--assume-spent", state=tmp_path)
    assert refused.process.exitcode != 0 and not (tmp_path / FILE_NAME).exists()


def test_without_the_chain_nothing_is_certain(made: Consortium, account: Path) -> None:
    rpc = f"http://127.0.0.1:{free_port()}"
    finding = budget(command(made, "doctor", "--json", "--rpc", rpc))
    assert finding["result"] == "unknown" and "alone" in finding["message"]
    account.unlink()
    assert budget(command(made, "doctor", "--json", "--rpc", rpc))["result"] == "failed"
    account.write_text("{")
    assert command(made, "privacy", "--assume-spent", "--rpc", rpc).process.exitcode == 0


@pytest.mark.parametrize("name", ["privacy", "traffic"])
def test_what_is_no_state_folder(made: Consortium, tmp_path: Path, name: str) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "keyring.json").write_text("{}")
    for state, words in ((tmp_path / "nowhere", "there is no state folder"), (keys, "is no state folder")):
        argv = [name, "--state", str(state)] + (["--federation", str(made.file)] if name == "privacy" else [])
        run = Run(made.folder / "commands", argv)
        assert run.wait() == 2 and words in run.stderr and "--state" in run.stderr, run.stderr
        assert run.stdout == ""
