"""``fl-node keys``, ``share`` and ``receive`` on what a demo left: own keys, another member's, a late joiner's."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from left_by_demo import Finished

from fl_node.chains import FUNDERS, set_balance
from fl_node.cli.keys import _write_new
from fl_node.cli.share import _is_file
from fl_node.content.blockstore import Blockstore
from fl_node.content.gateway import Gateway
from fl_node.content.names import cid_of_update
from fl_node.errors import StoreFull, Unreadable
from fl_node.key_keeping import Secrecy
from fl_node.keys import load, store
from fl_node.ledger.keylock import KeyLock
from fl_node.ledger.log_store import LogStore
from fl_node.merging import weights
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import UpdateRef
from fl_node.sealing.age import recipient_text, seal, unseal
from fl_node.sealing.identities import read_identities
from fl_node.sealing.keyring import request_rotation

pytestmark = pytest.mark.xdist_group("cli")

DEMO = {"FL_NODE_PASSWORD": "demo"}


def update(finished: Finished, name: str) -> UpdateEntry:
    log = LogStore(finished.state("a") / "index.sqlite")
    try:
        ref = UpdateRef.parse(name)
        assert ref is not None
        return Prefix(log.entries(0, log.size)).update(ref)
    finally:
        log.close()


def ciphertext(finished: Finished, name: str, site: str = "a") -> bytes:
    content = Blockstore(finished.state(site) / "content")
    try:
        return bytes(content.get(cid_of_update(update(finished, name).update), 1 << 20))
    finally:
        content.close()


@pytest.fixture(scope="module")
def newcomer(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A member that was admitted when all was over; it has a key of its own, and was given nothing."""
    state, owner = tmp_path_factory.mktemp("late") / "state", tmp_path_factory.mktemp("office") / "owner.json"
    store(owner, FUNDERS[0][1], "owner", light=True)
    signer = store(state / "key.json", b"\x17" * 32, "demo", light=True)
    set_balance(finished.chain.rpc_url, "anvil", signer.address, 10**18)
    admit = ("admit", signer.address, "--site", "late", "--federation", finished.file, "--state", owner.parent)
    finished.command(*admit, "--roles", "read", "--key", owner, FL_NODE_PASSWORD="owner")
    return state


# ---- show ----


def test_keys_are_shown_without_a_password(finished: Finished) -> None:
    (row,) = finished.json("keys", "show", "--state", finished.state("a"))["keys"]
    assert (row["epoch"], row["state"], row["round"]) == (1, "current", 0) and row["key"].startswith("age1")
    text = finished.command("keys", "show", "--state", finished.state("a")).stdout
    assert row["key"] in text and "current" in text


def test_keys_are_shown_without_a_ledger_and_of_nobody(finished: Finished, tmp_path: Path) -> None:
    told = finished.json("keys", "show", "--state", finished.state("c"), "--rpc", "http://127.0.0.1:1")
    assert told["ledger_error"] and [row["state"] for row in told["keys"]] == ["current"]
    text = finished.command("keys", "show", "--state", finished.state("c"), "--rpc", "http://127.0.0.1:1").stdout
    assert "the ledger does not answer" in text
    empty = finished.command("keys", "show", "--state", tmp_path / "nobody", "--federation", finished.file)
    assert "no key yet" in empty.stdout


def test_keys_of_a_folder_that_is_open_to_others_are_refused(finished: Finished) -> None:
    path = finished.state("c") / "keys" / "keyring.json"
    path.chmod(0o644)
    try:
        run = finished.command("keys", "show", "--state", finished.state("c"), code=28)
        assert f"chmod 600 {path}" in run.stderr
    finally:
        path.chmod(0o600)


# ---- export ----


def test_an_exported_file_opens_what_its_peer_could_open(finished: Finished, tmp_path: Path) -> None:
    out = tmp_path / "keys.txt"
    run = finished.command("keys", "export", "--state", finished.state("a"), "--output", out, **DEMO)
    assert out.stat().st_mode & 0o777 == 0o600
    assert "Whoever has this file can read every update" in run.stdout
    (identity,) = read_identities(out)
    for shown in (run.stdout, run.stderr, repr(run)):
        assert identity.text()[16:] not in shown
    data = ciphertext(finished, "2#1")
    assert weights.decode(unseal(data, [identity], 1 << 20)).metadata.endswith(":2#1")
    again = finished.command("keys", "export", "--state", finished.state("a"), "--output", out, code=2, **DEMO)
    assert "exists" in again.stderr


def test_an_export_needs_the_password_and_keys(finished: Finished, tmp_path: Path) -> None:
    export = ("keys", "export", "--output", tmp_path / "keys.txt")
    finished.command(*export, "--state", finished.state("a"), code=5, FL_NODE_PASSWORD="another")
    finished.command(*export, "--state", finished.state("a"), code=5)
    run = finished.command(*export, "--state", tmp_path, "--federation", finished.file, code=2, **DEMO)
    assert "has no keys yet" in run.stderr
    assert not (tmp_path / "keys.txt").exists()
    told = finished.json(*export[:-1], tmp_path / "more.txt", "--state", finished.state("b"), **DEMO)
    assert "SECRET" not in json.dumps(told) and len(told["keys"]) == 1


# ---- rotate ----


def test_an_export_that_does_not_fit_leaves_no_half_file_of_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreFull, match="No space left on device"):
        _write_new(tmp_path / "keys", b"AGE-SECRET-KEY-1")
    assert not any(tmp_path.iterdir())


def test_what_is_too_long_for_a_file_s_name_is_no_file() -> None:
    assert not _is_file(Path("b" * 300)) and _is_file(Path(__file__))


def test_a_rotation_announces_a_fresh_key_and_keeps_the_old_one(finished: Finished) -> None:
    rotate = ("keys", "rotate", "--state", finished.state("b"))
    before = finished.json("keys", "show", "--state", finished.state("b"))["keys"]
    endpoints = [row["endpoint"] for row in finished.json("peers", "--state", finished.state("b"))]
    told = finished.json(*rotate, **DEMO)
    assert told["done"] == "announced" and told["key"] != before[0]["key"]
    after = finished.json("keys", "show", "--state", finished.state("b"))["keys"]
    assert [(row["epoch"], row["state"]) for row in after] == [(1, "overlap"), (2, "current")]
    assert after[1]["entry"] == told["entry"] and after[0]["kept_to_round"] == after[0]["superseded_round"] + 2
    assert "overlap, to round" in finished.command("keys", "show", "--state", finished.state("b")).stdout
    # Where it serves, everybody still knows.
    assert [row["endpoint"] for row in finished.json("peers", "--state", finished.state("b"))] == endpoints
    secrecy = Secrecy.of(finished.state("b"), load(finished.state("b") / "key.json", "demo"))
    assert secrecy.open(bytes(32), ciphertext(finished, "1#1"), 1 << 20)[1] is None


def test_a_node_that_runs_is_asked_to_rotate(finished: Finished) -> None:
    state = finished.state("c")
    address = load(state / "key.json", "demo").address
    lock = KeyLock("31337", address, state)
    try:
        told = finished.command("keys", "rotate", "--state", state, **DEMO)
        assert "a node runs with this key" in told.stdout and "also while it waits for others" in told.stdout
    finally:
        lock.close()
    assert Secrecy.of(state, load(state / "key.json", "demo")).keys.rotation_requested()
    (row,) = finished.json("keys", "show", "--state", state)["keys"]
    assert row["state"] == "current"


def test_who_is_no_member_has_nothing_to_announce(finished: Finished, tmp_path: Path) -> None:
    store(tmp_path / "key.json", b"\x19" * 32, "demo", light=True)
    run = finished.command("keys", "rotate", "--state", tmp_path, "--federation", finished.file, code=13, **DEMO)
    assert "no active member" in run.stderr and "ask the owner to admit it (`fl-node admit 0x" in run.stderr


# ---- share and receive ----


def test_a_late_joiner_is_given_an_earlier_update(finished: Finished, newcomer: Path, tmp_path: Path) -> None:
    where = ("--state", newcomer, "--federation", finished.file)
    share = ("share", "1#1", "--to", "4", "--state", finished.state("a"))
    early = finished.command(*share, code=2, **DEMO)
    assert "peer 4 (late) has announced no usable key" in early.stderr
    assert finished.json("keys", "rotate", *where, **DEMO)["done"] == "announced"
    signer = load(newcomer / "key.json", "demo")
    entry, data = update(finished, "1#1"), ciphertext(finished, "1#1")
    with pytest.raises(Unreadable):
        Secrecy.of(newcomer, signer).open(entry.content, data, 1 << 20)

    out = tmp_path / "for-you.age"
    told = finished.json(*share, "--output", out, **DEMO)
    assert told["update"] == "1#1" and told["to"] == 4 and told["served"]
    assert out.stat().st_size == told["bytes"]
    assert "exists" in finished.command(*share, "--output", out, code=2, **DEMO).stderr
    # It is for the newcomer alone: not even who wrapped it could open it.
    refused = finished.command("receive", out, "--state", finished.state("a"), code=27, **DEMO)
    assert "none of 1 keys" in refused.stderr

    assert finished.json("receive", out, *where, **DEMO)["update"] == "1#1"
    payload, encoding = Secrecy.of(newcomer, signer).open(entry.content, data, 1 << 20)
    assert encoding == 0
    mine = unseal(
        data, Secrecy.of(finished.state("a"), load(finished.state("a") / "key.json", "demo")).keys.identities(), 1 << 20
    )
    assert weights.digest(weights.decode(payload).tensors) == weights.digest(weights.decode(mine).tensors)
    assert "those that the ledger names" in finished.command("receive", out, *where, **DEMO).stdout


def test_what_is_shared_is_served_by_its_cid(finished: Finished, newcomer: Path, tmp_path: Path) -> None:
    where = ("--state", newcomer, "--federation", finished.file)
    finished.command("keys", "rotate", *where, **DEMO)
    share = ("share", "2#2", "--to", "4", "--state", finished.state("a"), "--output", tmp_path / "x.age")
    name = finished.json(*share, **DEMO)["cid"]
    nobody = finished.command("receive", name, *where, code=21, **DEMO)  # nobody serves it now
    assert "the endpoint ''" not in nobody.stderr  # the newcomer's own, which serves nothing
    endpoint = urlsplit(finished.json("peers", "--state", finished.state("a"))[0]["endpoint"])
    content = Blockstore(finished.state("a") / "content")
    assert endpoint.hostname and endpoint.port
    try:
        with Gateway(content, endpoint.hostname, endpoint.port):
            model = ("model", "--at", "2#2", *where, "--out", tmp_path / "model.safetensors")
            assert "2#2" in finished.command(*model, code=27, **DEMO).stderr
            assert finished.json("receive", name, *where, **DEMO)["update"] == "2#2"
            assert finished.json(*model, **DEMO)["update"] == "2#2"
        # The vault has it, so nobody need give its ciphertext any more.
        assert finished.json(*model, "--force", **DEMO)["update"] == "2#2"
    finally:
        content.close()


def test_what_came_back_from_the_vault_can_be_shared_on(finished: Finished, newcomer: Path, tmp_path: Path) -> None:
    """From one who was given it: the ciphertext it could never open, the vault it can."""
    where = ("--state", newcomer, "--federation", finished.file)
    finished.command("keys", "rotate", *where, **DEMO)
    first, second = tmp_path / "first.age", tmp_path / "second.age"
    finished.command("share", "3#1", "--to", "4", "--state", finished.state("c"), "--output", first, **DEMO)
    finished.command("receive", first, *where, **DEMO)
    told = finished.json("share", "3#1", "--to", "2", *where, "--output", second, **DEMO)
    assert told["served"] is False  # it has no content store
    assert finished.json("receive", second, "--state", finished.state("b"), **DEMO)["update"] == "3#1"


@pytest.mark.parametrize(
    ("name", "to", "told"), [("1#1", "9", "no peer 9"), ("1#9", "2", "no update 1#9"), ("x", "2", "expected a CIDv1")]
)
def test_sharing_what_is_not_there(finished: Finished, tmp_path: Path, name: str, to: str, told: str) -> None:
    out = tmp_path / "out.age"
    run = finished.command("share", name, "--to", to, "--state", finished.state("a"), "--output", out, code=2, **DEMO)
    assert told in run.stderr and not out.exists()


def test_altered_weights_are_refused_whoever_wrapped_them(finished: Finished, tmp_path: Path) -> None:
    signer = load(finished.state("a") / "key.json", "demo")
    secrecy = Secrecy.of(finished.state("a"), signer)
    file = weights.decode(unseal(ciphertext(finished, "2#1"), secrecy.keys.identities(), 1 << 20))

    def receive(plain: bytes, code: int, told: str) -> None:
        path = tmp_path / "given.age"
        path.write_bytes(seal(plain, [secrecy.recipient()]))
        run = finished.command("receive", path, "--state", finished.state("a"), code=code, **DEMO)
        assert told in run.stderr
        assert secrecy.vault.contents() == frozenset()

    def canonical(metadata: str, factor: float) -> bytes:
        tensors = {name: array * array.dtype.type(factor) for name, array in file.tensors.items()}
        return b"".join(map(bytes, weights.encode(tensors, metadata)))

    receive(canonical(file.metadata, 1.5), 22, "whose commitment on the ledger is")
    receive(canonical(file.metadata.replace("2#1", "2#2"), 1.0), 22, "2#2")
    receive(canonical(file.metadata.replace("2#1", "2#77"), 1.0), 24, "no update 2#77")
    receive(canonical(file.metadata.replace("31337:", "1:"), 1.0), 24, "expected an update of this ledger")
    receive(canonical("", 1.0), 24, "expected an update of this ledger")
    receive(b"no safetensors", 24, "")
    take = ("receive", "--state", finished.state("a"))
    (tmp_path / "rubbish").write_bytes(b"rubbish")
    finished.command(*take, tmp_path / "rubbish", code=24, **DEMO)
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(1 << 30)
    assert "more than" in finished.command(*take, tmp_path / "huge", code=2, **DEMO).stderr
    assert "neither a file nor a CID" in finished.command(*take, "nowhere", code=2, **DEMO).stderr


def test_a_key_that_is_shown_is_the_one_that_opens(finished: Finished) -> None:
    (row,) = finished.json("keys", "show", "--state", finished.state("a"))["keys"]
    secrecy = Secrecy.of(finished.state("a"), load(finished.state("a") / "key.json", "demo"))
    assert row["key"] == recipient_text(secrecy.recipient())


# ---- what is damaged, lost, or open to others ----


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Callable[[Path], tuple[Path, tuple[object, ...]]]:
    """A copy of a state folder, and the options that name it."""

    def copy(state: Path) -> tuple[Path, tuple[object, ...]]:
        made = tmp_path / "copy"
        shutil.copytree(state, made)
        return made, ("--state", made, "--federation", finished.file)

    return copy


Copied = Callable[[Path], tuple[Path, tuple[object, ...]]]


def test_a_damaged_file_of_the_vault_is_told_and_the_store_asked(
    finished: Finished, copied: Copied, tmp_path: Path
) -> None:
    state, where = copied(finished.state("a"))
    vault = Secrecy.of(state, load(state / "key.json", "demo")).vault

    def damaged() -> Path:
        vault.put(update(finished, "2#1").content, b"payload", round=1)
        (path,) = (state / "vault").iterdir()
        path.write_bytes(b"junk")
        return path

    path = damaged()
    model = ("model", "--at", "2#1", *where, "--out", tmp_path / "model.safetensors", "--force")
    told = finished.command(*model, **DEMO).stderr
    assert f"warning: the file {path} of the vault is damaged, and was deleted" in told and "b''" not in told
    assert "warning" not in finished.command(*model, **DEMO).stderr
    damaged()
    share = ("share", "2#1", "--to", "3", *where, "--output", tmp_path / "for-3.age")
    told = finished.command(*share, **DEMO).stderr
    assert f"warning: the file {path}" in told
    assert (
        "those that the ledger names"
        in finished.command("receive", tmp_path / "for-3.age", "--state", finished.state("c"), **DEMO).stdout
    )
    # Nobody has it any more: what to do is told.
    damaged()
    shutil.rmtree(state / "keys")
    lost = finished.command(*share[:-1], tmp_path / "again.age", code=27, **DEMO).stderr
    assert "ask a member that still reads 2#1 to share it" in lost and "warning: the file" in lost


@pytest.mark.parametrize("file", ["key.json", "vault"])
def test_what_others_may_read_is_told(finished: Finished, copied: Copied, tmp_path: Path, file: str) -> None:
    state, where = copied(finished.state("a"))
    path = state / file
    if file == "vault":
        vault = Secrecy.of(state, load(state / "key.json", "demo")).vault
        vault.put(update(finished, "2#1").content, b"payload", round=1)
        (path,) = path.iterdir()
    path.chmod(0o644)
    if file == "vault":
        model = ("model", "--at", "2#1", *where, "--out", tmp_path / "model.safetensors")
        assert f"expected 600: chmod 600 {path}" in finished.command(*model, code=28, **DEMO).stderr
    else:
        export = finished.command("keys", "export", *where, "--output", tmp_path / "keys", **DEMO)
        assert f"warning: {path} has mode 644" in export.stderr and f"chmod 600 {path}" in export.stderr


@pytest.mark.parametrize(("name", "told"), [("-", "do not go to standard output"), ("", "expected the name of a new")])
def test_keys_and_shares_go_to_files(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (("keys", "export"), ("share", "1#1", "--to", "2")):
        run = finished.command(*command, "--state", finished.state("a"), "--output", name, code=2, **DEMO)
        assert told in run.stderr and run.stdout == ""
    assert not (tmp_path / "-").exists()


def test_a_federation_in_the_clear_has_no_keys(finished: Finished, tmp_path: Path) -> None:
    file = tmp_path / "open.toml"
    text = finished.file.read_text()
    table, rest = "[privacy]\nencrypt = false\n", text
    assert "[privacy]" not in text
    spec, mark, deployment = rest.partition("# ---- deployment")
    file.write_text(spec + table + mark + deployment)
    where = ("--state", tmp_path, "--federation", file, "--rpc", "http://127.0.0.1:1")
    shown = finished.command("keys", "show", *where).stdout
    assert "are not encrypted (privacy.encrypt = false)" in shown and "rotate" not in shown
    assert finished.json("keys", "show", *where)["encrypted"] is False
    for command in (("export", "--output", tmp_path / "keys"), ("rotate",)):
        run = finished.command("keys", *command, *where, code=2, **DEMO)
        assert "are not encrypted (privacy.encrypt = false)" in run.stderr and "keys rotate" not in run.stderr


def test_a_request_that_waits_is_shown(finished: Finished, copied: Copied) -> None:
    state, where = copied(finished.state("a"))
    assert finished.json("keys", "show", *where)["rotation_requested"] is False
    request_rotation(state / "keys")
    assert finished.json("keys", "show", *where)["rotation_requested"] is True
    assert "a fresh key was asked for, and is still to come" in finished.command("keys", "show", *where).stdout


def test_a_share_whose_key_is_gone_is_to_be_made_again(
    finished: Finished, newcomer: Path, copied: Copied, tmp_path: Path
) -> None:
    late = ("--state", newcomer, "--federation", finished.file)
    finished.command("keys", "rotate", *late, **DEMO)
    assert {row["round"] for row in finished.json("keys", "show", *late)["keys"]} == {3}  # not 0: it came late
    out = tmp_path / "for-4.age"
    finished.command("share", "1#1", "--to", "4", "--state", finished.state("a"), "--output", out, **DEMO)
    state, where = copied(newcomer)
    shutil.rmtree(state / "keys")
    none = finished.command("receive", out, *where, code=27, **DEMO).stderr
    assert "encrypted to 1 key, and there is no key here to try" in none and "Make one first" in none
    Secrecy.of(state, load(state / "key.json", "demo")).recipient()
    gone = finished.command("receive", out, *where, code=27, **DEMO).stderr
    assert "encrypted to 1 key: it" in gone and "share it again (`fl-node share UPDATE --to PEER`)" in gone
    out.write_bytes(out.read_bytes()[:-3])
    cut = finished.command("receive", out, *late, code=24, **DEMO).stderr
    assert "copy the file again, fetch it by its CID, or ask for the share again" in cut


def test_a_lost_key_is_missing_and_what_it_superseded_stays_so(
    finished: Finished, copied: Copied, tmp_path: Path
) -> None:
    """The last of this file: peer 2's key is another one afterwards."""
    finished.command("keys", "rotate", "--state", finished.state("b"), **DEMO)
    state, where = copied(finished.state("b"))
    rows = finished.json("keys", "show", *where)["keys"]
    assert [row["state"] for row in rows][-2:] == ["overlap", "current"]
    current = rows[-1]["key"]
    (state / "keys" / f"{current}.age").unlink()
    assert [row["state"] for row in finished.json("keys", "show", *where)["keys"]][-2:] == ["overlap", "missing"]
    assert "missing: not in this state folder" in finished.command("keys", "show", *where).stdout
    run = finished.command("keys", "export", *where, "--output", tmp_path / "keys", "--json", **DEMO)
    assert json.loads(run.stdout)["missing"] == [current] and f"warning: {current}, made in round" in run.stderr
    (state / "keys" / "keyring.json").unlink()
    run = finished.command("keys", "rotate", *where, "--json", **DEMO)
    assert f"warning: the private half of {current}" in run.stderr
    assert json.loads(run.stdout)["key"] not in {row["key"] for row in rows}
    for path in (state / "keys").glob("age1*.age"):
        path.unlink()
    run = finished.command("keys", "export", *where, "--output", tmp_path / "none", code=28, **DEMO)
    assert "the private halves are missing of all its keys" in run.stderr
