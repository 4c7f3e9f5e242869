"""What strangers wrote on the ledger, in messages on a terminal; and whether doctor knows who may take part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from left_by_demo import Finished

from fl_node.chains import FUNDERS
from fl_node.keys import create, store


def _membership(finished: Finished, state: Path, code: int) -> dict[str, Any]:
    told = finished.command("doctor", "--federation", finished.file, "--state", state, "--json", code=code)
    return next(item for item in json.loads(told.stdout) if item["name"] == "membership")


def test_doctor_knows_members_and_a_reason_steers_no_terminal(finished: Finished, tmp_path: Path) -> None:
    state, owner = tmp_path / "state", tmp_path / "owner.json"
    assert _membership(finished, finished.state("a"), 0)["message"] == "peer 1 of site site-a"
    assert _membership(finished, state, 0)["result"] == "unknown"

    state.mkdir()
    address = create(state / "key.json", "a secret", light=True).address
    found = _membership(finished, state, 1)
    assert found["result"] == "failed" and f"fl-node admit {address}" in found["mend"]

    store(owner, FUNDERS[0][1], "owner", light=True)
    by_owner = ("--federation", finished.file, "--state", tmp_path / "office", "--key", owner)
    finished.command("admit", address, "--site", "reader", "--roles", "read", *by_owner, FL_NODE_PASSWORD="owner")
    found = _membership(finished, state, 1)
    assert found["result"] == "failed" and "may not publish" in found["message"]

    finished.command("retire", address, "--reason", "\x1b]0;x\x07\u202ebad", *by_owner, FL_NODE_PASSWORD="owner")
    found = _membership(finished, state, 1)
    assert found["result"] == "failed" and "retired" in found["message"]
    npz = f"npz:{finished.state('a') / 'data.npz'}"
    run = finished.command(
        *("run", "--federation", finished.file, "--state", state, "--data", npz), code=13, FL_NODE_PASSWORD="a secret"
    )
    assert r"\u001b]0;x\u0007\u202ebad" in run.stderr and "\x1b" not in run.stderr and "\u202e" not in run.stderr
