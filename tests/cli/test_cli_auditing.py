"""The auditing commands where their output, their options and their files are not as one would wish."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from left_by_demo import Finished

from fl_node.cli.text import safe

pytestmark = pytest.mark.xdist_group("cli")

FULL = Path("/dev/full")


def shell(line: str) -> tuple[int, str]:
    """Run a line of bash in which FL_NODE stands for the command; exit code of its first program, and stderr."""
    line = line.replace("FL_NODE", f"{sys.executable} -m fl_node")
    done = subprocess.run(["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "defect" not in done.stderr and "Exception ignored" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("form", ["", "--json"])
def test_the_exit_code_does_not_depend_on_who_reads(finished: Finished, form: str) -> None:
    code, told = shell(f"FL_NODE audit --federation {finished.file} --fail-on unknown {form} | true")
    assert code == 41 and "nothing failed, but" in told
    assert shell(f"FL_NODE peers --federation {finished.file} {form} | true") == (0, "")


def test_output_that_cannot_be_written_is_told(finished: Finished) -> None:
    line = f"FL_NODE audit --federation {finished.file} --checks included"
    assert shell(f"{line} > {FULL}") == (
        23,
        "fl-node: cannot write standard output: No space left on device; free some space, or write elsewhere\n",
    )
    code, told = shell(f"{line} --html {FULL}")
    assert code == 23 and told.startswith(f"fl-node: --html {FULL}: cannot write it: No space left")


def test_a_terminal_that_knows_few_letters_gets_the_report(finished: Finished) -> None:
    run = finished.command("audit", "--federation", finished.file, "--checks", "included", PYTHONIOENCODING="ascii")
    assert "included" in run.stdout and "verdict     ok" in run.stdout


def test_text_of_strangers_can_be_written_and_cannot_steer() -> None:
    assert safe("a\x1b[2J\u2028\u061c\ud800b") == r"a\u001b[2J\u2028\u061c\ud800b"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--peer", 4), "--peer 4: the ledger has no such peer; its peers are 1 to 3"),
        (("--from", 1000), "--from 1000: the log has "),
        (("--to", 1000), "--to 1000: the log has "),
        (("--from", 3, "--to", 2), "got --from 3 --to 2"),
        (("--checks", ","), "--checks ,: expected one of canonical"),
        (("--checks", "merge,mergers"), "--checks mergers: expected one of canonical"),
    ],
)
def test_what_is_not_there_is_not_well(finished: Finished, words: tuple[object, ...], said: str) -> None:
    run = finished.command("audit", "--federation", finished.file, *words, code=2)
    assert run.stderr.startswith(f"fl-node: {said}") and run.stdout == ""


def test_a_range_without_updates_is_told(finished: Finished) -> None:
    size = finished.result["entries"]
    words = ("audit", "--federation", finished.file, "--from", size, "--checks", "included,membership")
    assert "note: no update was checked" in finished.command(*words).stdout


def test_files_without_an_end_are_refused(finished: Finished) -> None:
    zeros = "/dev/zero"
    run = finished.command("audit", "--federation", zeros, code=3)
    assert run.stderr.startswith("fl-node: /dev/zero has more than 1,048,576 bytes; expected a federation file")
    run = finished.command("audit", "--federation", finished.file, "--checkpoint", zeros, code=43)
    assert run.stderr.startswith("fl-node: /dev/zero has more than 4,194,304 bytes; expected checkpoints")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--content", "http://user:s3cret@127.0.0.1:1"), 2),
        (("--content", "http://127.0.0.1:1?key=s3cret"), 2),
        (("--content", "ftp://user:s3cret@127.0.0.1"), 2),
        (("--tiles", "https://user:s3cret@127.0.0.1:1/?key=s3cret"), 2),
        (("--rpc", "http://user:s3cret@127.0.0.1:1/s3cret?key=s3cret"), 11),
        (("--rpc", "http://user:s3cret@[::1"), 10),
        (("--rpc", "user:s3cret@127.0.0.1:1"), 10),
    ],
)
def test_keys_in_urls_are_not_told(finished: Finished, words: tuple[str, ...], code: int) -> None:
    run = finished.command("audit", "--federation", finished.file, *words, code=code)
    assert "s3cret" not in run.stderr and run.stderr.startswith("fl-node: ")


def test_a_damaged_working_folder_costs_time_and_nothing_else(finished: Finished, tmp_path: Path) -> None:
    words = ("audit", "--federation", finished.file, "--content", finished.state("a"), "--fail-on", "failed", "--json")
    good = json.loads(finished.command(*words, "--work", tmp_path).stdout)
    for name in ("log-0.sqlite", "results.sqlite"):
        (tmp_path / name).write_bytes(b"no database" * 1000)
        for more in ("-wal", "-shm"):
            (tmp_path / f"{name}{more}").unlink(missing_ok=True)
    run = finished.command(*words, "--work", tmp_path)
    assert run.stderr.startswith(f"fl-node: results are not kept: {tmp_path}/results.sqlite: file is not a database")
    assert json.loads(run.stdout)["counts"] == good["counts"]


def test_who_presses_ctrl_c_twice_waits_for_no_gateway(finished: Finished) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        words = ["audit", "--federation", str(finished.file), "--fresh", "--content"]
        program = (
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "from fl_node.__main__ import main; raise SystemExit("
            f"main({[*words, f'http://127.0.0.1:{mute.getsockname()[1]}']!r}))"
        )
        run = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
        connection, _ = mute.accept()
        with connection:
            assert connection.recv(4) == b"GET "
            for _ in range(2):
                run.send_signal(signal.SIGINT)
                time.sleep(0.3)
            _, told = run.communicate(timeout=4.0)
    assert (run.returncode, told) == (130, "fl-node: interrupted\n")


def test_a_second_ctrl_c_that_comes_after_the_end_was_told_tells_it_no_second_time() -> None:
    program = (
        "import argparse, os, signal, time; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import fl_node.__main__ as program\n"
        "def pressed(arguments): os.kill(os.getpid(), signal.SIGINT); time.sleep(5)\n"
        "program._parsed = lambda argv: (argparse.Namespace(verbose=False), pressed)\n"
        "program.main([])\n"
        "os.kill(os.getpid(), signal.SIGINT); time.sleep(5)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (run.returncode, run.stderr) == (130, "fl-node: interrupted\n")


def test_no_empty_page_is_left_where_there_is_no_report(finished: Finished, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    finished.command("audit", "--federation", finished.file, "--rpc", "http://127.0.0.1:1", "--html", page, code=11)
    assert not page.exists()
    page.write_text("of yesterday")
    finished.command("audit", "--federation", finished.file, "--rpc", "http://127.0.0.1:1", "--html", page, code=11)
    assert page.read_text() == "of yesterday"
    run = finished.command("audit", "--federation", finished.file, "--html", tmp_path, code=2)
    assert run.stderr.startswith(f"fl-node: --html {tmp_path}: cannot write it: Is a directory")
