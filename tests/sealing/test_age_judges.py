"""Our age files are what two other implementations open, and theirs we do: the age tool in Go, where it is installed,
and age-encryption in JavaScript."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fl_node.sealing.age import Identity, recipient_text, seal, unseal
from fl_node.sealing.identities import identity_file, read_identities

sys.path.append(str(Path(__file__).parent.parent / "content"))
from helpers import JS, install

ALICE, BOB = Identity.generate(), Identity.generate()
SIZES = (0, 1, 65_536, 65_537, 300_000)

needs_age = pytest.mark.skipif(shutil.which("age") is None, reason="the age tool is not installed")


@pytest.fixture(scope="module")
def judge() -> Path:
    return install(JS / "age") / "age.mjs"


def javascript(judge: Path, action: str, key: str, data: bytes) -> bytes:
    return subprocess.run(["node", str(judge), action, key], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("size", SIZES)
def test_javascript_opens_ours_and_we_open_its(judge: Path, size: int) -> None:
    plain = np.random.default_rng(size).bytes(size)
    assert javascript(judge, "decrypt", ALICE.text(), bytes(seal(plain, [BOB.public, ALICE.public]))) == plain
    theirs = javascript(judge, "encrypt", recipient_text(ALICE.public), plain)
    assert unseal(theirs, [BOB, ALICE], size) == plain


@needs_age
@pytest.mark.parametrize("size", SIZES)
def test_the_tool_opens_ours_and_we_open_its(tmp_path: Path, size: int) -> None:
    plain = np.random.default_rng(size).bytes(size)
    keys = tmp_path / "keys.txt"
    keys.write_bytes(identity_file([(BOB, "not for this one"), (ALICE, "for this one")]))
    ours = seal([plain[: size // 2], plain[size // 2 :]], [ALICE.public])
    opened = subprocess.run(["age", "-d", "-i", str(keys)], input=bytes(ours), capture_output=True, check=True)
    assert opened.stdout == plain
    recipient = recipient_text(ALICE.public)
    theirs = subprocess.run(["age", "-r", recipient], input=plain, capture_output=True, check=True)
    assert unseal(theirs.stdout, [ALICE], size) == plain


@needs_age
def test_keys_that_the_tool_makes_are_read(tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    subprocess.run(["age-keygen", "-o", str(keys)], capture_output=True, check=True)
    said = subprocess.run(["age-keygen", "-y", str(keys)], capture_output=True, check=True).stdout.decode().strip()
    (identity,) = read_identities(keys)
    assert recipient_text(identity.public) == said
