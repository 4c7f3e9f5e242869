"""The pages point to what there is: links, commands, options, exit codes, examples."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from doc_pages import ROOT, blocks, commands, options, pages

from fl_node import errors
from fl_node.config import NodeConfig
from fl_node.learning.data import load
from fl_node.learning.models import genesis
from fl_node.learning.splits import split
from fl_node.learning.training import Trainer
from fl_node.spec import read_federation

LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)(?:\s+\"[^\"]*\")?\)")
CODE = re.compile(r"```.*?^```$|`[^`\n]*`", re.S | re.M)
USED = re.compile(r"\bfl-node\s+([a-z][a-z-]*)\b([^\n|#&;`)]*)")


def anchors(page: Path) -> set[str]:
    """What the headings of a page are linked to by, as common Markdown hosts make it."""
    found = set()
    prose = re.sub(r"```.*?^```$", "", page.read_text("utf-8"), flags=re.S | re.M)
    for heading in re.findall(r"^#{1,6}\s+(.+)$", prose, re.M):
        text = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        found.add(text.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    text = CODE.sub("", page.read_text("utf-8"))
    broken = []
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = page if not path else (page.parent / unquote(path)).resolve()
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert not broken, f"{page}: links that lead nowhere: {broken}"


def test_anchors_are_found_and_missed() -> None:
    assert "fl-node-demo" in anchors(ROOT / "docs" / "cli.md")
    assert "fl-node-dance" not in anchors(ROOT / "docs" / "cli.md")


def used_commands() -> list[tuple[str, str, str]]:
    """(page, command, rest of the line) of each use of fl-node in code, continuation lines joined."""
    found = []
    for page in pages():
        if page.name in ("cli.md", "CHANGELOG.md"):
            continue
        text = page.read_text("utf-8").replace("\\\n", " ")
        for code in CODE.findall(text):
            found += [(str(page.relative_to(ROOT)), name, rest) for name, rest in USED.findall(code)]
    return found


def test_every_command_and_option_in_the_pages_exists() -> None:
    known = commands()
    uses = used_commands()
    assert len(uses) > 20, "the pages use fl-node; finding hardly any use means that this test looks at the wrong text"
    wrong = []
    for page, name, rest in uses:
        if name not in known:
            wrong.append(f"{page}: fl-node {name}")
            continue
        wrong += [
            f"{page}: fl-node {name} {option}"
            for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", rest)
            if option not in options(known[name])
        ]
    assert not wrong, wrong


def test_every_command_is_explained_somewhere_by_hand() -> None:
    """docs/cli.md is made from the code; every command should also be used in a page that a person wrote."""
    missing = set(commands()) - {name for _, name, _ in used_commands()}
    assert not missing, missing


def test_every_exit_code_is_in_the_troubleshooting_table() -> None:
    text = (ROOT / "docs" / "operating.md").read_text("utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.M)}
    used = {
        thing.exit_code
        for thing in vars(errors).values()
        if inspect.isclass(thing) and issubclass(thing, errors.FlNodeError)
    }
    assert documented == used | {0, 130}


def test_settings_named_in_the_pages_exist() -> None:
    """``FL_NODE_...`` in a page is a setting or one of the few other variables that the code reads."""
    files = [path for package in ("fl_node", "ledger_ui") for path in sorted((ROOT / package).rglob("*.py"))]
    source = "\n".join(path.read_text("utf-8") for path in files)
    others = set(re.findall(r"\"(FL_NODE_[A-Z_]+)\"", source)) | {"FL_NODE_ANVIL", "FL_NODE_GANACHE", "FL_NODE_HARDHAT"}
    known = others | {f"FL_NODE_{key.upper()}" for key in NodeConfig.model_fields}
    for page in pages():
        named = set(re.findall(r"\bFL_NODE_[A-Z_]*[A-Z]\b", page.read_text("utf-8")))
        assert named <= known, f"{page}: {named - known}"


def test_readme_holds_the_examples_as_they_are() -> None:
    shown = [block.text.strip() for block in blocks(ROOT / "README.md") if block.language == "python"]
    own = (ROOT / "examples" / "own.py").read_text("utf-8").strip()
    model = (ROOT / "examples" / "model.py").read_text("utf-8").strip()
    assert own in shown
    shorter = [text for text in shown if text != own]
    assert shorter and all(text in model for text in shorter)


def test_own_data_model_and_loop_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    spec = read_federation(ROOT / "examples" / "own.toml").spec
    trainer = Trainer(spec, split(load(spec.task.data, spec.task), spec.task), peer=1, device="cpu")
    start = genesis(spec)
    trained, told = trainer.train(start, sequence=1)
    assert told.samples == len(trainer.splits.train)
    assert trainer.evaluate(trained).accuracy > trainer.evaluate(start).accuracy + 0.3


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_example_specs_are_valid(path: Path) -> None:
    assert read_federation(path).deployment is None


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_shell_blocks_parse(page: Path) -> None:
    for block in blocks(page):
        if block.language in ("sh", "bash"):
            done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{page}: {done.stderr}\n{block.text}"


def test_python_blocks_parse() -> None:
    for page in pages():
        for block in blocks(page):
            if block.language == "python":
                compile(block.text, str(page), "exec")


def test_demo_picture_is_a_complete_run_and_loads_nothing() -> None:
    svg = (ROOT / "docs" / "images" / "demo.svg").read_text("utf-8").replace("&#160;", " ")
    for shown in ("fl-node demo", "after training", "trained alone", "entries", "0x"):
        assert shown in svg
    assert "url(http" not in svg and "@import" not in svg and "href" not in svg


def test_recording_script_finds_a_frame() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    code = (
        "import record_demo as r\n"
        "live = 'chain x\\r\\n\\x1b[?25lPeers\\r\\n1\\r\\n2\\r\\n3\\r\\n4\\r\\x1b[2K\\x1b[1A\\x1b[2K"
        "Peers\\r\\n1 training\\r\\n2\\r\\n3\\r\\n4\\r\\n'\n"
        "print(r.frames(live))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr(("chain x", "Peers\n1 training\n2\n3\n4\n"))


def test_the_service_is_not_started_again_where_only_a_person_can_mend() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    (line,) = re.findall(r"^RestartPreventExitStatus=(.*)$", text, re.M)
    mended_by_people = {errors.SpecError, errors.KeystoreError, errors.KeyringError, errors.NotAMember}
    mended_by_people |= {errors.WrongLedger, errors.BudgetSpent}
    assert {kind.exit_code for kind in mended_by_people} <= set(map(int, line.split()))
