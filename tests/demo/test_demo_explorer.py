"""The explorer beside a demo: there while it runs, gone with it, and no trouble to it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from demos import Demo

LONG = ("--peers", 2, "--rounds", 400, "--no-baselines")
SHORT = ("--peers", 2, "--rounds", 2, "--no-baselines")


def page(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


def address(demo: Demo) -> str:
    """Where the demo says that its explorer is."""
    found = re.search(r"explorer    (http://127\.0\.0\.1:[0-9]+/\S+)", demo.until_says("explorer    http"))
    assert found
    return found[1]


def explorers(demo: Demo) -> list[int]:
    """The demo's processes at low priority, which the explorer alone is, from a moment after its start."""
    return [pid for pid in demo.relatives() if _nice(pid) == os.nice(0) + 10]


def _nice(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[16])
    except OSError:
        return None


def test_it_shows_the_demo_while_it_runs_and_ends_with_it(start: Any) -> None:
    demo = start(*LONG)
    url = address(demo)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and page(f"{url}/health.json")["federation"]["size"] < 20:
        time.sleep(0.1)
    told = page(f"{url}/health.json")
    assert told["federation"]["size"] >= 20 and told["chain"]["state"] == "following"
    assert explorers(demo)
    demo.process.send_signal(signal.SIGINT)
    code, _, _ = demo.ends()
    assert code == 130
    demo.leaves_nothing()
    with pytest.raises(OSError):
        page(f"{url}/health.json")


def test_its_index_tells_of_the_whole_demo_when_the_chain_is_gone(start: Any, tmp_path: Path) -> None:
    state = tmp_path / "kept"
    demo = start(*SHORT, "--state", state)
    code, shown, err = demo.ends()
    assert code == 0, err
    demo.leaves_nothing()
    file = state / "federation.toml"
    assert f"explorer   fl-node ui --federation {file}" in shown
    command = ["ui", "--federation", str(file), "--port", "0", "--json", "--no-harvest"]
    ui = subprocess.Popen([sys.executable, "-m", "fl_node", *command], stdout=subprocess.PIPE, text=True)
    try:
        assert ui.stdout is not None
        url = json.loads(ui.stdout.readline())["federations"][0]["url"]
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and page(f"{url}/health.json")["chain"]["state"] != "chain-down":
            time.sleep(0.1)
        told = page(f"{url}/updates.json")
        assert told["federation"]["state"] == "chain-down" and told["paging"]["total"] == 6
        assert f"{told['federation']['size']} entries" in shown
        assert "0x" + told["federation"]["root"] in shown
    finally:
        ui.terminate()
        ui.communicate(timeout=10)


def test_without_it(start: Any) -> None:
    demo = start(*LONG, "--no-ui")
    demo.until_says("site-a: round 3")
    assert explorers(demo) == []
    demo.process.terminate()
    _, _, err = demo.ends()
    assert "explorer    " not in err
    demo.leaves_nothing()


def test_a_killed_demo_leaves_no_explorer(start: Any) -> None:
    demo = start(*LONG)
    address(demo)
    demo.process.kill()
    demo.process.communicate()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and explorers(demo):
        time.sleep(0.05)
    assert explorers(demo) == []
    for pid in demo.relatives():
        os.kill(pid, signal.SIGKILL)


def test_an_explorer_that_is_killed_does_not_matter(start: Any) -> None:
    demo = start("--peers", 2, "--rounds", 40, "--no-baselines")
    address(demo)
    for pid in explorers(demo):
        os.kill(pid, signal.SIGKILL)
    code, _, err = demo.ends()
    assert code == 0 and "explorer    it ended: " in err, err
    demo.leaves_nothing()


def test_another_port_where_its_own_is_taken(start: Any) -> None:
    try:
        other = socket.create_server(("127.0.0.1", 8600))
    except OSError:
        other = None  # somebody has it already: just as well
    demo = start(*LONG)
    assert ":8600/" not in address(demo)
    demo.process.terminate()
    demo.ends()
    demo.leaves_nothing()
    if other is not None:
        other.close()


def test_where_flask_is_missing_the_demo_says_so_and_goes_on(tmp_path: Path) -> None:
    program = (
        "import importlib.util, sys\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'flask' else real(name, *more)\n"
        "from fl_node.__main__ import main\n"
        f"sys.exit(main(['demo', '--peers', '2', '--rounds', '1', '--no-baselines', '--state', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "explorer    not started: flask not installed: pip install 'fl-node[ui]'" in done.stderr


def test_the_peers_server_of_processes_knows_no_flask(start: Any) -> None:
    demo = start(*LONG)
    address(demo)
    server_and_peers = demo.relatives().keys() - explorers(demo)
    assert len(server_and_peers) > 3
    for pid in server_and_peers:
        assert "markupsafe" not in Path(f"/proc/{pid}/maps").read_text()  # flask's one compiled part
    (explorer,) = explorers(demo)
    assert "markupsafe" in Path(f"/proc/{explorer}/maps").read_text()
    demo.process.terminate()
    demo.ends()
    demo.leaves_nothing()
