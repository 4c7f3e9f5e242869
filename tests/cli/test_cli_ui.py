"""``fl-node ui`` as a person starts and ends it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fl_node.spec import Deployment, deployed_bytes

NOWHERE = "http://127.0.0.1:9"
Start = Callable[..., "Ui"]


class Ui:
    """An explorer under way."""

    def __init__(self, *argv: object, **environment: str) -> None:
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fl_node", "ui", *map(str, argv)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def announced(self) -> dict[str, Any]:
        """What it says with --json, once it listens."""
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

    def ends(self, number: int = signal.SIGTERM) -> tuple[int, str, float]:
        """Exit code, stderr, and how long it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=20)
        return self.process.returncode, err, time.monotonic() - began


@pytest.fixture
def start() -> Iterator[Start]:
    made: list[Ui] = []

    def starter(*argv: object, **environment: str) -> Ui:
        made.append(Ui(*argv, **environment))
        return made[-1]

    yield starter
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return federation(tmp_path / "first", "first one", "11")


def federation(folder: Path, name: str, byte: str) -> Path:
    """A deployed federation file whose chain is nowhere."""
    folder.mkdir()
    place = Deployment(chain_id=31337, contract="0x" + byte * 20, first_block=1, rpc=NOWHERE)
    found = folder / "federation.toml"
    found.write_bytes(deployed_bytes(f'format = 1\nname = "{name}"\n'.encode(), place))
    return found


def get(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as cause:
        return cause.code, cause.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_starts_serves_and_ends(start: Start, file: Path, number: int) -> None:
    ui = start("--federation", file, "--port", 0, "--json")
    told = ui.announced()
    assert told["pid"] == ui.process.pid
    (shown,) = told["federations"]
    assert shown["name"] == "first one" and shown["url"] == told["url"] + shown["slug"]
    status, body = get(f"{shown['url']}/updates.json")
    assert status == 200 and json.loads(body)["federation"]["name"] == "first one"
    maps = Path(f"/proc/{ui.process.pid}/maps").read_text()
    assert "torch" not in maps and "sqlite" in maps
    code, err, seconds = ui.ends(number)
    assert code == 0 and err == "" and seconds < 3.0
    with pytest.raises(OSError):
        get(told["url"])


def test_people_are_told_in_words(start: Start, file: Path) -> None:
    ui = start("--federation", file, "--port", 0)
    assert ui.process.stderr is not None
    line = ui.process.stderr.readline()
    assert line.startswith("first one  http://127.0.0.1:")
    assert "Ctrl-C" in ui.process.stderr.readline()
    url = line.split()[-1]
    assert get(f"{url}/health")[0] == 200
    assert ui.ends()[0] == 0


def test_several_federations(start: Start, file: Path, tmp_path: Path) -> None:
    second = federation(tmp_path / "second", "zweite Föderation", "22")
    ui = start("--federation", file, "--federation", second, "--port", 0, "--json")
    told = ui.announced()
    assert [one["slug"] for one in told["federations"]] == ["first-one-11111111", "zweite-foderation-22222222"]
    status, body = get(told["url"])
    assert status == 200 and b"zweite" in body
    assert all(get(f"{one['url']}/updates")[0] == 200 for one in told["federations"])


def test_the_default_is_the_federation_file_of_this_folder(start: Start, file: Path) -> None:
    ui = start("--port", 0, "--json", FL_NODE_FEDERATION=str(file))
    assert ui.announced()["federations"][0]["name"] == "first one"


def test_a_port_that_is_taken(start: Start, file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ui = start("--federation", file, "--port", other.getsockname()[1])
        _, err = ui.process.communicate(timeout=20)
    assert ui.process.returncode == 2 and "is taken" in err and "--port" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("--federation", "/no/such/file.toml"), 3, "cannot read the federation file"),
        (("--port", "70000"), 2, "--port 70000"),
        (("--host", "192.0.2.1", "--port", "0"), 2, "no address of this machine"),
        (("--secret-file", "/no/such/secret"), 2, "cannot read the secret"),
    ],
)
def test_what_cannot_be_done_is_said(start: Start, file: Path, argv: tuple[str, ...], code: int, words: str) -> None:
    ui = start("--federation", file, *argv)
    _, err = ui.process.communicate(timeout=20)
    assert ui.process.returncode == code and words in err and "Traceback" not in err


def test_a_secret_that_others_can_read_is_none(start: Start, file: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("reader:a long password\n")
    secret.chmod(0o644)
    ui = start("--federation", file, "--secret-file", secret)
    _, err = ui.process.communicate(timeout=20)
    assert ui.process.returncode == 2 and "chmod 600" in err


def test_readers_give_the_secret(start: Start, file: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("reader:a long password\n")
    ui = start("--federation", file, "--port", 0, "--host", "0.0.0.0", "--secret-file", secret, "--json")
    url = ui.announced()["federations"][0]["url"]
    assert get(f"{url}/updates")[0] == 401 and get(f"{url}/live")[0] == 401
    known = "Basic " + b64encode(b"reader:a long password").decode()
    assert get(f"{url}/updates", Authorization=known)[0] == 200
    code, err, _ = ui.ends()
    assert code == 0 and "WARNING" not in err


def test_an_open_door_is_warned_of(start: Start, file: Path) -> None:
    ui = start("--federation", file, "--port", 0, "--host", "0.0.0.0", "--json")
    url = ui.announced()["url"]
    assert url.startswith("http://127.0.0.1:")
    _, err, _ = ui.ends()
    assert "WARNING" in err and "everybody who can reach this machine" in err and "--secret-file" in err


def test_names_by_which_browsers_may_come(start: Start, file: Path) -> None:
    ui = start("--federation", file, "--port", 0, "--allow-host", "explorer.example", "--json")
    url = ui.announced()["federations"][0]["url"]
    assert get(f"{url}/updates", Host="explorer.example")[0] == 200
    assert get(f"{url}/updates", Host="evil.example")[0] == 421


def test_what_is_left_out_is_left_out(start: Start, file: Path) -> None:
    ui = start("--federation", file, "--port", 0, "--no-harvest", "--no-verify", "--json")
    url = ui.announced()["federations"][0]["url"]
    page = json.loads(get(f"{url}/health.json")[1])
    assert not page["harvest"]["on"] and not page["work"]["on"] and page["monitor"] == ""


def test_the_endpoint_is_not_shown_with_its_key(start: Start, file: Path) -> None:
    ui = start("--federation", file, "--port", 0, "--rpc", f"{NOWHERE}/v3/SECRETKEY", "--json")
    url = ui.announced()["federations"][0]["url"]
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        page = json.loads(get(f"{url}/health.json")[1])
        if page["chain"]["state"] == "chain-down":
            break
        time.sleep(0.2)
    assert page["chain"]["state"] == "chain-down" and page["chain"]["endpoint"] == NOWHERE
    assert "SECRETKEY" not in json.dumps(page)


@pytest.mark.parametrize("name", ["flask", "waitress"])
def test_without_its_extras_it_says_what_to_install(file: Path, name: str) -> None:
    program = (
        f"import sys; sys.modules['{name}'] = None\n"
        "from fl_node.__main__ import main\n"
        f"sys.exit(main(['ui', '--federation', {str(file)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "pip install 'fl-node[ui]'" in done.stderr and name in done.stderr


def test_it_imports_no_torch() -> None:
    program = "import sys, ledger_ui, ledger_ui.serve, fl_node.cli.ui; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_child_of_a_process_that_is_killed_ends(file: Path) -> None:
    program = (
        "import sys, subprocess; from pathlib import Path; from ledger_ui import beside\n"
        f"made = beside.begin(['ui', '--federation', {str(file)!r}, '--port', '0', '--json'], folder=Path('/'),"
        " stdout=subprocess.PIPE)\n"
        "made.stdout.readline(); print(made.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _runs(pid):
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
