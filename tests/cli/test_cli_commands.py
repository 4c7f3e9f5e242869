"""Every command, as text and as JSON, on the folder that a finished demo left, with its chain started again."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from consortium import free_port
from left_by_demo import Finished
from offspring import Run

from fl_node.chains import FUNDERS, call, set_balance
from fl_node.content.gateway import Gateway
from fl_node.content.memory import MemoryStore
from fl_node.keys import load, store
from fl_node.merging import weights
from fl_node.models import load_model
from fl_node.sealing.age import Identity
from fl_node.sealing.identities import identity_file

pytestmark = pytest.mark.xdist_group("cli")


def test_status(finished: Finished) -> None:
    told = finished.json("status", "--state", finished.state("b"))
    assert told["root"] == finished.result["root"] and told["entries"] == finished.result["entries"]
    assert (told["members"], told["closed"], told["highest_round"]) == (3, 3, 3)
    assert told["this_peer"] == {"peer": 2, "site": "site-b", "state": "closed", "round": 3, "updates": 3}
    assert finished.json("status", "--federation", finished.file, "--state", "nowhere")["this_peer"] is None
    text = finished.command("status", "--federation", finished.file).stdout
    assert finished.result["root"] in text


def test_log(finished: Finished) -> None:
    text = finished.command("log", "--state", finished.state("a")).stdout.splitlines()
    assert len(text) == finished.result["entries"]
    assert "LedgerOpened" in text[0] and "UpdatePublished" in text[-1]
    lines = finished.command("log", "--state", finished.state("a"), "--json").stdout.splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(finished.result["entries"]))
    part = finished.command("log", "--state", finished.state("a"), "--from", "2", "--to", "4").stdout.splitlines()
    assert part == text[2:4]
    finished.command("log", "--state", finished.state("a"), "--from", "5", "--to", "4", code=2)


def test_log_into_a_reader_that_stops(finished: Finished) -> None:
    line = f"{sys.executable} -m fl_node log --state {finished.state('a')} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert "LedgerOpened" in done.stdout and done.stdout.endswith("\n0\n")
    assert done.stderr == ""


def test_show(finished: Finished) -> None:
    told = finished.json("show", "2#2", "--state", finished.state("a"))
    assert told["update"] == "2#2" and told["site"] == "site-b"
    assert [parent["peer"] for parent in told["parents"]] == [1, 2, 3]
    assert sum(parent["share_ppm"] for parent in told["parents"]) == 1_000_000
    assert told["merged_by"] == ["1#3", "2#3", "3#3"]
    assert [(item["peer"], item["outcome"]) for item in told["candidates"]] == [
        (1, "merged"),
        (2, "merged"),
        (3, "merged"),
    ]
    assert finished.json("show", told["cid"], "--state", finished.state("a")) == told
    text = finished.command("show", "2#2", "--state", finished.state("a")).stdout
    assert told["cid"] in text and "claims" in text
    assert re.search(r"^left_out +nobody$", text, re.M) and re.search(r"^rule +fedavg$", text, re.M)


@pytest.mark.parametrize(
    "name", ["2#9", "9#1", "2#", "nonsense", "2-2", f"1#{10**20}", "bafkqaaa", "Qm" + "a" * 44, "2#2x"]
)
def test_show_what_is_not_there(finished: Finished, name: str) -> None:
    for command in (("show",), ("share", "--to", "1"), ("lineage",)):
        run = finished.command(*command, name, "--state", finished.state("a"), code=2)
        assert name in run.stderr
        assert "no update" in run.stderr or "such as 3#12" in run.stderr
        assert "did you mean 2#2?" in run.stderr or name != "2-2"


HUGE = "9" * 5000


@pytest.mark.parametrize(
    "argv",
    [
        ("show", f"{HUGE}#1"),
        ("show", f"1#{HUGE}"),
        ("show", HUGE),
        ("show", "\u0663#\u0661"),
        ("model", "--out", "nowhere/x", "--at", f"{HUGE}#1"),
        ("log", "--from", HUGE),
        ("log", "--from", "9" * 18),
        ("log", "--to", HUGE),
        ("log", "--from", "-1"),
        ("retire", FUNDERS[4][0], "--reason", "x", "--from-index", HUGE),
    ],
    ids=lambda argv: " ".join(word[:8] for word in argv),
)
def test_numbers_beyond_any_ledger(finished: Finished, argv: tuple[str, ...]) -> None:
    run = finished.command(*argv, "--federation", finished.file, code=2)
    assert "expected" in run.stderr and len(run.stderr) < 1000


def test_peers(finished: Finished) -> None:
    rows = finished.json("peers", "--state", finished.state("a"))
    assert [row["site"] for row in rows] == ["site-a", "site-b", "site-c"]
    assert {row["state"] for row in rows} == {"closed"} and {row["updates"] for row in rows} == {3}
    text = finished.command("peers", "--state", finished.state("a"), COLUMNS="200").stdout
    assert all(row["endpoint"] in text and row["account"][:6] + "…" in text for row in rows)
    narrow = finished.command("peers", "--state", finished.state("a"), COLUMNS="80").stdout.splitlines()
    assert len(narrow) == 4 and max(map(len, narrow)) <= 80
    assert all(line.split()[-1] == row["endpoint"] for line, row in zip(narrow[1:], rows, strict=True))
    wide = finished.command("peers", "--wide", "--state", finished.state("a"), COLUMNS="80").stdout.splitlines()
    assert len(wide) == 4
    assert all(row["account"] in line and row["endpoint"] in line for line, row in zip(wide[1:], rows, strict=True))


#: A demo encrypts: its peers' keys are in their state folders, behind their password.
OPEN = {"FL_NODE_PASSWORD": "demo"}


@pytest.mark.parametrize("at", ["final", "latest", "2#1"])
def test_model(finished: Finished, tmp_path: Path, at: str) -> None:
    out = tmp_path / "model.safetensors"
    told = finished.json("model", "--state", finished.state("b"), "--at", at, "--out", out, **OPEN)
    assert told["bytes"] == out.stat().st_size and told["final"] == (at != "2#1")
    # What is in the content network is another file, which strangers cannot read; nor can they read this one here.
    assert told["encrypted"] and finished.json("cid", out)["cid"] != told["cid"]
    assert out.stat().st_mode & 0o077 == 0
    tensors = weights.decode(out.read_bytes()).tensors
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float32)}
    again = finished.command("model", "--state", finished.state("b"), "--at", at, "--out", out, code=2, **OPEN)
    assert "--force" in again.stderr
    text = finished.command("model", "--state", finished.state("b"), "--at", at, "--out", out, "--force", **OPEN).stdout
    assert "verified" in text and "claims" in text


def test_model_replaces_files_and_nothing_else(finished: Finished, tmp_path: Path) -> None:
    pipe, kept, link = tmp_path / "pipe", tmp_path / "kept", tmp_path / "link"
    os.mkfifo(pipe)
    for out in (pipe, tmp_path):
        run = finished.command("model", "--state", finished.state("b"), "--out", out, "--force", code=2, **OPEN)
        assert "no regular file" in run.stderr
    assert pipe.is_fifo()
    kept.write_text("old")
    link.symlink_to(kept)
    finished.command("model", "--state", finished.state("b"), "--out", link, "--force", **OPEN)
    assert link.is_symlink() and len(weights.decode(kept.read_bytes()).tensors) > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "link", "pipe"]


def test_model_opens_with_the_safetensors_library(finished: Finished, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    out = tmp_path / "model.safetensors"
    finished.command("model", "--state", finished.state("b"), "--out", out, **OPEN)
    ours = weights.decode(out.read_bytes()).tensors
    theirs = load_file(out)
    assert sorted(ours) == sorted(theirs)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_model_that_nobody_has_or_that_is_not_there(finished: Finished, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    run = finished.command("model", "--federation", finished.file, "--state", "nowhere", "--out", out, code=21, **OPEN)
    assert "cannot be reached" in run.stderr and not out.exists()
    finished.command("model", "--state", finished.state("b"), "--at", "7#1", "--out", out, code=2, **OPEN)
    finished.command("model", "--state", finished.state("b"), "--at", "best", "--out", out, code=2, **OPEN)
    nowhere = tmp_path / "no" / "such" / "file"
    # No password is asked for.
    run = finished.command("model", "--state", finished.state("b"), "--out", nowhere, code=2)
    assert f"cannot write {nowhere}: there is no folder {nowhere.parent}; name another" in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_model_in_python(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("FL_NODE_PASSWORD", "demo")
    model = load_model(finished.file, state=finished.state("c"))
    assert not model.training
    with np.load(finished.folder / "test.npz") as arrays:
        features, labels = sorted((arrays[name] for name in arrays), key=lambda array: -array.ndim)
    with torch.inference_mode():
        found = model(torch.from_numpy(features.astype(np.float32))).argmax(1).numpy()
    assert float((found == labels).mean()) == pytest.approx(finished.result["accuracy"]["federated"][2])


def test_model_needs_a_key(finished: Finished, tmp_path: Path) -> None:
    """The content folder of one, and keys of another: a peer's own in a file, a stranger's, none."""
    out, mine, strange = (tmp_path / name for name in ("model.safetensors", "mine.key", "strange.key"))
    ours, content = tmp_path / "no-key", finished.state("b") / "content"
    ours.mkdir()
    (ours / "content").symlink_to(content)
    asked = ("model", "--federation", finished.file, "--state", ours, "--out", out)
    run = finished.command(*asked, code=27)
    assert "--identity" in run.stderr and "keys export" in run.stderr and not out.exists()
    strange.write_bytes(identity_file([(Identity.generate(), "a stranger's")]))
    strange.chmod(0o600)
    assert "--identity" in finished.command(*asked, "--identity", strange, code=27).stderr
    finished.command("keys", "export", "--state", finished.state("a"), "--output", mine, FL_NODE_PASSWORD="demo")
    finished.command(*asked, "--identity", strange, "--identity", mine)
    assert weights.decode(out.read_bytes()).tensors
    model = load_model(finished.file, state=ours, identity=mine)
    assert sum(parameter.numel() for parameter in model.parameters()) > 0
    mine.chmod(0o644)
    run = finished.command(*asked, "--force", "--identity", mine, code=28)
    assert "chmod 600" in run.stderr and "SECRET" not in run.stderr


def test_cid(finished: Finished, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    known = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    assert finished.command("cid", empty).stdout == known + "\n"
    assert finished.json("cid", empty) == {"cid": known, "bytes": 0, "file": str(empty)}
    finished.command("cid", tmp_path / "none", code=2)
    os.mkfifo(tmp_path / "pipe")
    for special in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        assert "no regular file" in finished.command("cid", special, code=2).stderr


def test_gc(finished: Finished) -> None:
    folder = finished.state("c") / "content" / "objects"
    before = sorted(path.name for path in folder.iterdir())
    # Nothing is older than the retention of 20 rounds.
    assert finished.json("gc", "--dry-run", "--state", finished.state("c"))["cids"] == []
    (folder / before[0]).touch()
    finished.command("gc", "--archive", "--state", finished.state("c"), code=2)
    assert "freed" in finished.command("gc", "--state", finished.state("c")).stdout
    assert sorted(path.name for path in folder.iterdir()) == before


def test_gc_makes_no_store(finished: Finished, tmp_path: Path) -> None:
    run = finished.command("gc", "--federation", finished.file, "--state", tmp_path / "typo", code=2)
    assert "typo" in run.stderr and "--state" in run.stderr
    assert list(tmp_path.iterdir()) == []


def _doctor(finished: Finished, *argv: object, code: int = 1) -> dict[str, tuple[str, str, str]]:
    run = finished.command("doctor", "--state", finished.state("a"), "--json", *argv, code=code)
    return {item["name"]: (item["result"], item["message"], item["mend"]) for item in json.loads(run.stdout)}


def test_doctor_when_all_is_well(finished: Finished) -> None:
    told = _doctor(finished, code=0)
    assert {result for result, _, _ in told.values()} == {"ok"}
    assert set(told) >= {"federation file", "chain", "code", "spec", "balance", "clock", "content store", "disk"}
    assert "ok" in finished.command("doctor", "--state", finished.state("a")).stdout


def test_doctor_with_each_thing_broken(finished: Finished, tmp_path: Path) -> None:
    bad = tmp_path / "federation.toml"

    def changed(old: str, new: str) -> Path:
        text = finished.file.read_text()
        assert old in text
        bad.write_text(text.replace(old, new, 1))
        return bad

    def broken(name: str, *argv: object) -> None:
        result, message, mend = _doctor(finished, *argv)[name]
        assert result == "failed" and message and mend, (result, message, mend)

    broken("federation file", "--federation", tmp_path / "none.toml")
    broken("federation file", "--federation", changed("[rounds]", "[round]"))
    for rpc in (f"http://127.0.0.1:{free_port()}", "foo"):
        broken("chain", "--rpc", rpc)
    broken("code", "--federation", changed(finished.result["contract"], FUNDERS[5][0]))
    broken("spec", "--federation", changed("seed = 0", "seed = 1"))
    broken("spec", "--federation", changed("chain_id = 31337", "chain_id = 5"))
    address = json.loads((finished.state("a") / "key.json").read_text())["address"]
    account = "0x" + address.removeprefix("0x")
    balance = int(call(finished.chain.rpc_url, "eth_getBalance", account, "latest"), 16)
    set_balance(finished.chain.rpc_url, "anvil", account, 10)
    broken("balance")
    set_balance(finished.chain.rpc_url, "anvil", account, balance)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        broken("gateway port", "--port", other.getsockname()[1])
    with Gateway(MemoryStore()) as running:
        result, message, _ = _doctor(finished, "--port", running.port, "--endpoint", running.endpoint, code=0)[
            "gateway port"
        ]
        assert result == "ok" and "running" in message
    (tmp_path / "in-the-way").write_text("")
    broken("endpoint", "--endpoint", f"http://127.0.0.1:{free_port()}")
    assert _doctor(finished, code=0)["balance"][0] == "ok"


def test_doctor_without_a_store_or_a_key(finished: Finished, tmp_path: Path) -> None:
    run = Run(finished.runs, ["doctor", "--federation", str(finished.file), "--state", str(tmp_path / "x"), "--json"])
    assert run.wait() == 0
    told = {item["name"]: item for item in json.loads(run.stdout)}
    assert told["balance"]["result"] == "unknown" and "fl-node init" in told["balance"]["mend"]
    assert told["content store"]["result"] == "unknown"
    state = tmp_path / "state"
    state.mkdir()
    (state / "content").write_text("in the way")
    run = Run(finished.runs, ["doctor", "--federation", str(finished.file), "--state", str(state), "--json"])
    assert run.wait() == 1
    assert {i["name"]: i["result"] for i in json.loads(run.stdout)}["content store"] == "failed"


@pytest.mark.parametrize("endpoint", ["nonsense", "file:///etc/passwd", "http://", "http://127.0.0.1:99999"])
def test_doctor_with_an_endpoint_that_is_none(finished: Finished, endpoint: str) -> None:
    assert _doctor(finished, "--endpoint", endpoint)["endpoint"][0] == "failed"


# ---- joining by hand


def test_init_admit_run_retire(finished: Finished, tmp_path: Path) -> None:
    """What a newcomer and the coordinator type, unattended."""
    password, owner = tmp_path / "password", tmp_path / "owner.json"
    password.write_text("a secret\n")
    store(owner, FUNDERS[0][1], "owner", light=True)
    state = tmp_path / "newcomer"
    told = finished.json(
        *("init", "--state", state, "--federation", finished.file, "--password-file", password),
        *("--data", f"npz:{finished.state('a') / 'data.npz'}", "--site", "latecomer"),
    )
    address = told["address"]
    assert load(state / "key.json", "a secret").address == address
    assert (state / "key.json").stat().st_mode & 0o077 == 0
    again = finished.command("init", "--state", state, "--password-file", password, code=2)
    assert "exists" in again.stderr
    assert load(state / "key.json", "a secret").address == address
    run = finished.command("run", "--state", state, code=13)
    assert f"fl-node admit {address}" in run.stderr

    admit = ("admit", address, "--site", "latecomer", "--federation", finished.file, "--state", tmp_path / "office")
    mine = ("--key", state / "key.json", "--password-file", password)
    refused = finished.command(*admit[:-1], tmp_path / "other", *mine, code=15)
    assert "owner" in refused.stderr
    set_balance(finished.chain.rpc_url, "anvil", address, 10**18)
    admitted = finished.json(*admit, "--key", owner, FL_NODE_PASSWORD="owner")
    assert admitted["entry"] == finished.result["entries"]
    finished.command(*admit, "--key", owner, code=15, FL_NODE_PASSWORD="owner")

    assert finished.command("run", "--state", state).stderr.count("closing model") == 1
    row = finished.json("peers", "--state", state)[-1]
    # It found the others at round 3, past the plan: it closes at once.
    assert (row["site"], row["round"], row["updates"], row["state"]) == ("latecomer", 3, 1, "closed")

    retire = ("retire", address, "--reason", "moved\x1b[2J away", "--federation", finished.file)
    finished.json(*retire, "--state", tmp_path / "office", "--key", owner, FL_NODE_PASSWORD="owner")
    assert finished.json("peers", "--state", state)[-1]["state"] == "retired"
    run = finished.command("run", "--state", state, code=13)
    assert "\x1b" not in finished.command("log", "--state", state).stdout
    assert finished.command("run", "--state", finished.state("a"), FL_NODE_PASSWORD="demo").wait() == 0


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("admit", "0x12", "--site", "x"), "0x12"),
        (("admit", FUNDERS[4][0], "--site", "x", "--roles", "publish,fly"), "fly"),
        (("retire", "nobody", "--reason", "x"), "nobody"),
    ],
)
def test_membership_with_bad_words(finished: Finished, argv: tuple[str, ...], words: str) -> None:
    run = finished.command(*argv, "--federation", finished.file, code=2)
    assert words in run.stderr


def test_a_site_that_is_too_long(finished: Finished, tmp_path: Path) -> None:
    owner = tmp_path / "owner.json"
    store(owner, FUNDERS[0][1], "owner", light=True)
    where = ("--key", owner, "--federation", finished.file, "--state", tmp_path / "office")
    run = finished.command("admit", FUNDERS[7][0], "--site", "s" * 33, *where, code=2, FL_NODE_PASSWORD="owner")
    assert "at most 32" in run.stderr


def test_init_needs_a_password_and_somebody_to_ask(finished: Finished, tmp_path: Path) -> None:
    run = finished.command("init", "--state", tmp_path / "state", code=5)
    assert "FL_NODE_PASSWORD" in run.stderr
    assert not (tmp_path / "state" / "key.json").exists()
    (tmp_path / "file").write_text("")
    finished.command("init", "--state", tmp_path / "file" / "x", code=23, FL_NODE_PASSWORD="x")


def test_settings_from_flag_environment_and_file(finished: Finished, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "node.toml").write_text(f'federation = "{finished.file}"\nport = "many"\n')
    run = finished.command("status", "--state", state, code=3)
    assert "port" in run.stderr and "node.toml" in run.stderr
    (state / "node.toml").write_text('federation = "nowhere.toml"\n')
    assert "nowhere.toml" in finished.command("status", "--state", state, code=3).stderr
    finished.command("status", "--state", state, FL_NODE_FEDERATION=str(finished.file))
    finished.command("status", "--state", state, "--federation", finished.file, FL_NODE_FEDERATION="other.toml")
    run = finished.command("status", "--state", state, code=3, FL_NODE_PORT="70000")
    assert "FL_NODE_PORT" in run.stderr


def test_every_command_has_help() -> None:
    from fl_node.__main__ import COMMANDS

    shown = subprocess.run([sys.executable, "-m", "fl_node", "--help"], capture_output=True, text=True, check=True)
    assert all(re.search(rf"^ +{command}\b", shown.stdout, re.M) for command in COMMANDS)
    wrong = subprocess.run([sys.executable, "-m", "fl_node", "fly"], capture_output=True, text=True)
    assert wrong.returncode == 2


@pytest.mark.parametrize("pause_s", [0.03, 0.06, 0.1])
def test_ctrl_c_while_a_command_is_imported(pause_s: float) -> None:
    """Early on there is nothing to stop and nothing to tell but one line. Before Python runs our first line, Ctrl-C is
    Python's own."""
    program = (
        "import os, signal, threading, fl_node.__main__ as entry; "
        f"threading.Timer({pause_s}, os.kill, (os.getpid(), signal.SIGINT)).start(); "
        "entry.main(['demo', '--rounds', '500'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, "fl-node: interrupted")


def test_reading_needs_neither_torch_nor_a_key(finished: Finished) -> None:
    program = (
        "import sys; sys.modules['torch'] = None; from fl_node.__main__ import main; "
        f"sys.exit(main(['log', '--federation', {str(finished.file)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr


def test_a_federation_folder_that_cannot_be_written(finished: Finished, tmp_path: Path) -> None:
    """An auditor's file may lie on a disk that is read-only; the log is then kept in memory."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "federation.toml").write_bytes(finished.file.read_bytes())
    # A folder where the index should be: as unwritable as it gets for root.
    (folder / "federation.toml.index.sqlite").mkdir()
    told = finished.json("status", "--federation", folder / "federation.toml", "--state", "nowhere")
    assert told["entries"] >= finished.result["entries"]
