"""What the commands tell of TLS and of traffic, on the folder that a finished demo left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from consortium import free_port
from left_by_demo import Finished
from offspring import Run

from fl_node.content.gateway import Gateway
from fl_node.content.memory import MemoryStore
from fl_node.content.tls import generated

pytestmark = pytest.mark.xdist_group("cli")


def doctor(finished: Finished, *argv: object) -> dict[str, tuple[str, str]]:
    command = ["doctor", "--state", str(finished.state("a")), "--json", *map(str, argv)]
    run = Run(finished.runs, command)
    assert run.wait() in (0, 1), run.stderr
    return {item["name"]: (item["result"], item["message"]) for item in json.loads(run.stdout)}


def test_doctor_asks_with_the_pin_that_others_will_know(finished: Finished, tmp_path: Path) -> None:
    port = free_port()
    tls = ("--tls", "generated", "--port", port)
    told = doctor(finished, *tls, "--endpoint", f"https://127.0.0.1:{port}")
    assert told["gateway port"] == ("ok", f"free: https://127.0.0.1:{port}")
    assert told["endpoint"] == ("ok", f"answers at https://127.0.0.1:{port}")
    # A proxy that ends TLS with a key of its own.
    with Gateway(MemoryStore(), tls=generated(tmp_path / "tls", [])) as proxy:
        result, message = doctor(finished, *tls, "--endpoint", proxy.endpoint)["endpoint"]
    assert result == "failed" and "expected the announced" in message


def test_doctor_names_settings_that_do_not_go_together(finished: Finished, tmp_path: Path) -> None:
    for argv, words in (
        (("--tls", "generated", "--endpoint", "http://127.0.0.1:1"), "expected https://"),
        (("--tls-cert", tmp_path / "absent.pem"), "expected both files"),
        (("--tls-cert", tmp_path / "absent.pem", "--tls-key", tmp_path / "absent.key"), "cannot read"),
    ):
        result, message = doctor(finished, *argv)["gateway TLS"]
        assert result == "failed" and words in message


def test_doctor_tells_of_a_gateway_in_the_clear_that_others_reach(finished: Finished) -> None:
    argv = ("--host", "0.0.0.0", "--endpoint", "https://fl.invalid")
    result, message = doctor(finished, *argv)["gateway port"]
    assert result == "ok" and "in the clear" in message


def test_traffic_of_a_demo_adds_up(finished: Finished) -> None:
    tables = [finished.json("traffic", "--state", finished.state(site)) for site in "abc"]
    sent, received = (
        {
            (own, row["peer"]) if direction == "sent" else (row["peer"], own): row["bytes"]
            for own, table in enumerate(tables, start=1)
            for row in table[direction]
            if row["kind"] == "update" and row["peer"] is not None
        }
        for direction in ("sent", "received")
    )
    assert sent == received and len(sent) > 3
    text = finished.command("traffic", "--state", finished.state("a")).stdout
    assert "peer 2" in text and "peer 3" in text and f"{tables[0]['sent_bytes']:,}" in text
