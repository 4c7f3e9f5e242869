"""What goes wrong around a peer: chain, key, funds, port, disk, data, files. Each a clear error with its exit code."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from consortium import PASSWORD, Consortium, configure, found, free_port
from offspring import Run
from relay import Relay

from fl_node import keys
from fl_node.chains import FUNDERS, DevChain, call, set_balance
from fl_node.content.gateway import Gateway
from fl_node.content.memory import MemoryStore
from fl_node.records import PeerAnnounced, UpdateObjected, UpdatePublished

pytestmark = pytest.mark.xdist_group("node-trouble")


@pytest.fixture(scope="module")
def chain() -> Iterator[DevChain]:
    with DevChain.start("anvil") as running:
        yield running


@pytest.fixture
def made(chain: DevChain, tmp_path: Path) -> Consortium:
    return found(tmp_path, chain, 1, rounds={"linger_s": 0.0})


def failed(run: Run, code: int, *words: str) -> None:
    """The run ended with this code and one message that has these words; no traceback."""
    got = run.wait()
    assert got == code, f"exit code {got}: {run.stderr}"
    assert "Traceback" not in run.stderr and "defect" not in run.stderr
    for word in words:
        assert word in run.stderr, run.stderr


def finishes(made: Consortium, peer: int = 1) -> None:
    """Started again without trouble, the peer ends its rounds; nothing was trained or recorded twice."""
    run = made.run(peer)
    assert run.wait() == 0, run.stderr
    rounds = [update.round for update in made.replay().check([peer])]
    assert rounds == [1, 2, 3]


# ---- the chain


def test_chain_down_at_start(made: Consortium) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    failed(made.run(1, "--rpc", url), 11, url, "does not answer")
    finishes(made)


def test_chain_down_in_the_middle_and_back(made: Consortium) -> None:
    with Relay(made.chain.rpc_url) as relay:
        run = made.run(1, "--rpc", relay.url, fault="slow_training", given=(0.3,))
        run.until(lambda: run.events("training"))
        relay.down = True
        run.until(lambda: run.events("waiting-for-chain"))
        relay.down = False
        assert run.wait() == 0, run.stderr
    assert [update.round for update in made.replay().check()] == [1, 2, 3]
    assert made.trainings(1) == [1, 2]


def test_chain_down_for_longer_than_a_peer_waits(made: Consortium) -> None:
    with Relay(made.chain.rpc_url) as relay:
        run = made.run(1, "--rpc", relay.url, "--retry-s", "0.5", fault="slow_training", given=(0.3,))
        run.until(lambda: run.events("training"))
        relay.down = True
        failed(run, 11, "does not answer")
    finishes(made)
    assert made.trainings(1) == [1, 2]


@pytest.mark.parametrize("method", ["eth_sendRawTransaction", "eth_getTransactionReceipt"])
def test_chain_goes_down_around_the_record(made: Consortium, method: str) -> None:
    """Whether the transaction arrived is not known; it is recorded once all the same."""
    with Relay(made.chain.rpc_url) as relay:

        def cut(name: str, params: list[object]) -> None:
            if name == method and relay.seen["eth_sendRawTransaction"] >= 2:
                relay.down = True

        def lose(name: str, params: list[object], result: object) -> object:
            cut(name, params)
            return result

        relay.tamper = lose
        run = made.run(1, "--rpc", relay.url, "--retry-s", "1.0")
        run.until(lambda: relay.down)
        failed(run, 11)
    finishes(made)
    assert made.trainings(1) == [1, 2]


def test_chain_stopped_and_started_from_its_state(tmp_path: Path) -> None:
    port, state = free_port(), tmp_path / "anvil.json"
    chain = DevChain.start("anvil", port=port, state=state)
    try:
        made = found(tmp_path / "f", chain, 1, rounds={"linger_s": 0.0})
        run = made.run(1, fault="slow_training", given=(0.3,))
        run.until(lambda: run.events("training"))
        chain.stop()
        run.until(lambda: run.events("waiting-for-chain"))
        chain = DevChain.start("anvil", port=port, state=state)
        assert run.wait() == 0, run.stderr
        assert [update.round for update in made.replay().check()] == [1, 2, 3]
    finally:
        chain.stop()


def test_a_chain_restarted_without_its_state(tmp_path: Path) -> None:
    port = free_port()
    with DevChain.start("anvil", port=port) as chain:
        made = found(tmp_path / "f", chain, 1, rounds={"linger_s": 0.0})
        assert made.run(1).wait() == 0
    with DevChain.start("anvil", port=port):
        failed(made.run(1), 12, "no contract", "expected")


@pytest.mark.parametrize("depth", [1, 3])
def test_a_reorganisation_after_publication(made: Consortium, depth: int) -> None:
    run = made.run(1, fault="slow_training", given=(0.5,))
    run.until(lambda: len(run.events("training")) == 2)
    before = [entry for entry in made.entries() if isinstance(entry.body, UpdatePublished)]
    assert [entry.body.update.sequence for entry in before if isinstance(entry.body, UpdatePublished)] == [1]
    call(made.chain.rpc_url, "anvil_reorg", depth, [])
    call(made.chain.rpc_url, "evm_mine")
    if depth == 3:  # the peer's funds and all of its entries went as well
        (account,) = [body.account for body in (made.replay().full.peers())]
        set_balance(made.chain.rpc_url, "anvil", account, 10**18)
    assert run.wait() == 0, run.stderr
    assert run.events("reorganised")
    replay = made.replay()
    assert [update.round for update in replay.check()] == [1, 2, 3]
    announced = [entry for entry in replay.entries if isinstance(entry.body, PeerAnnounced)]
    assert len(announced) == 1
    assert made.trainings(1).count(1) == 1


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (("chain_id = 31337", "chain_id = 1"), 12, ("31337", "expected 1")),
        (('contract = "0x', 'contract = "0xdead'), 3, ("contract",)),
        (("learning_rate = 0.5", "learning_rate = 0.6"), 12, ("spec", "edited")),
        (("learning_rate = 0.5", "learning_rat = 0.5"), 3, ("learning_rat", "did you mean learning_rate")),
        (("learning_rate = 0.5", 'learning_rate = "fast"'), 3, ("training.learning_rate", "'fast'")),
        (("[training]", "[training"), 3, ("TOML",)),
        (("[deployment]", "[deploiment]"), 3, ("[deployment]",)),
    ],
)
def test_a_federation_file_that_does_not_fit(
    made: Consortium, change: tuple[str, str], code: int, words: tuple[str, ...]
) -> None:
    text = made.file.read_text()
    assert change[0] in text
    made.file.write_text(text.replace(*change, 1))
    failed(made.run(1), code, *words)
    made.file.write_text(text)
    finishes(made)


def test_no_code_at_the_address(made: Consortium) -> None:
    assert made.federation.deployment is not None
    address = made.federation.deployment.contract
    made.file.write_text(made.file.read_text().replace(address, FUNDERS[3][0]))
    failed(made.run(1), 12, FUNDERS[3][0], "no contract")


def test_a_bare_spec_is_no_federation_file(made: Consortium) -> None:
    made.file.write_text(made.file.read_text().split("# ----")[0])
    failed(made.run(1), 3, "[deployment]", "deploy_contract.py")


def test_another_federation_in_the_same_state_folder(made: Consortium, tmp_path: Path) -> None:
    assert made.run(1).wait() == 0
    other = found(tmp_path / "other", made.chain, 1, rounds={"linger_s": 0.0, "planned": 1})
    failed(made.run(1, "--federation", str(other.file)), 12)


# ---- key, membership, funds


def test_a_key_that_is_not_admitted(made: Consortium, tmp_path: Path) -> None:
    signer = keys.create(tmp_path / "other.json", PASSWORD, light=True)
    failed(made.run(1, "--key", str(tmp_path / "other.json")), 13, signer.address, "fl-node admit")


def test_a_retired_key(made: Consortium) -> None:
    ledger = made.peer_ledger(1)
    ledger.retire(ledger.account, "moved away", ledger.head().size)
    ledger.close()
    failed(made.run(1), 13, "moved away", "new address")


def test_no_key_and_a_wrong_password(made: Consortium, tmp_path: Path) -> None:
    failed(made.run(1, "--key", str(tmp_path / "none.json")), 5, "fl-node init")
    failed(made.run(1, FL_NODE_PASSWORD="wrong"), 5, "password")
    (tmp_path / "broken.json").write_text("{}")
    failed(made.run(1, "--key", str(tmp_path / "broken.json")), 5, "keystore")


def test_a_public_key_on_a_chain_of_value(made: Consortium, tmp_path: Path) -> None:
    keys.store(tmp_path / "public.json", FUNDERS[0][1], PASSWORD, light=True)
    made.file.write_text(made.file.read_text().replace("chain_id = 31337", "chain_id = 1"))
    failed(made.run(1, "--key", str(tmp_path / "public.json")), 5, "public development key")


def test_no_funds(chain: DevChain, tmp_path: Path) -> None:
    made = found(tmp_path, chain, 1, fund_wei=0, rounds={"linger_s": 0.0})
    failed(made.run(1), 14, "cannot pay")
    (account,) = [facts.account for facts in made.replay().full.peers()]
    set_balance(chain.rpc_url, "anvil", account, 10**18)
    finishes(made)


def test_funds_that_run_out_on_the_way(made: Consortium) -> None:
    (account,) = [facts.account for facts in made.replay().full.peers()]
    run = made.run(1, fault="slow_training", given=(0.5,))
    run.until(lambda: len(run.events("training")) == 2)
    set_balance(made.chain.rpc_url, "anvil", account, 0)
    failed(run, 14, "cannot pay")
    set_balance(made.chain.rpc_url, "anvil", account, 10**18)
    finishes(made)
    assert made.trainings(1) == [1, 2]


def test_two_processes_with_one_key(made: Consortium, tmp_path: Path) -> None:
    run = made.run(1, fault="slow_training", given=(2.0,))
    run.until(lambda: run.events("training"))
    failed(made.run(1), 16, str(run.pid), "one process per key")
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(made.states[0] / "key.json", copy)
    configure(copy, made.file)
    second = Run(
        copy, ["run", "--state", copy, "--data", f"npz:{made.states[0] / 'data.npz'}"], FL_NODE_PASSWORD=PASSWORD
    )
    failed(second, 16, str(run.pid))
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    finishes(made)


# ---- port and disk


def test_a_taken_port(made: Consortium) -> None:
    with Gateway(MemoryStore()) as other:
        failed(made.run(1, "--port", str(other.port)), 25, str(other.port))
    assert not any(isinstance(entry.body, PeerAnnounced) for entry in made.entries())
    finishes(made)


def test_an_address_that_is_not_this_machines(made: Consortium) -> None:
    failed(made.run(1, "--host", "203.0.113.7"), 25, "203.0.113.7")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_wildcard_address_needs_an_endpoint(made: Consortium, host: str) -> None:
    failed(made.run(1, "--host", host), 2, "--endpoint", host)
    assert not any(isinstance(entry.body, PeerAnnounced) for entry in made.entries())


@pytest.fixture
def small_disk(made: Consortium) -> Iterator[Path]:
    """The peer's content folder on a disk of 512 KiB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk takes root; test_files_that_may_not_grow covers what it can without")
    folder = made.states[0] / "content"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("this machine does not let root mount; test_files_that_may_not_grow covers what it can without")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk(made: Consortium, small_disk: Path) -> None:
    run = made.run(1, fault="slow_training", given=(0.5,))
    run.until(lambda: len(run.events("training")) == 2)
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="space"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    failed(run, 23, "cannot write", "Nothing was lost")
    filler.unlink()
    finishes(made)
    assert made.trainings(1) == [1, 2, 2]


def test_a_read_only_disk(made: Consortium, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    failed(made.run(1), 23, "ead-only")
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    finishes(made)


def test_files_that_may_not_grow(made: Consortium) -> None:
    run = made.run(1, fault="limit_files", given=(1024,))
    assert run.wait() in (10, 23), run.stderr
    assert "Traceback" not in run.stderr and "defect" not in run.stderr
    finishes(made)


def test_a_state_folder_that_cannot_be(made: Consortium, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    run = Run(tmp_path / "runs", ["run", "--state", tmp_path / "file" / "state", "--federation", made.file])
    failed(run, 23, "state folder", "--state")


def test_an_index_that_is_gone_or_damaged(made: Consortium) -> None:
    run = made.run(1, fault="die", given=("train", 2))
    assert run.wait() < 0
    for path in made.states[0].glob("index.sqlite*"):
        path.unlink()
    (made.states[0] / "index.sqlite").write_bytes(b"no database" * 1000)
    failed(made.run(1), 10, "index", "index.sqlite")
    (made.states[0] / "index.sqlite").unlink()
    finishes(made)
    assert made.trainings(1) == [1, 2]


# ---- data


@pytest.mark.parametrize("kind", ["missing file", "no npz", "other shape", "labels out of range", "missing column"])
def test_data_that_do_not_fit(made: Consortium, kind: str) -> None:
    path = made.states[0] / "data.npz"
    with np.load(path) as arrays:
        good = dict(arrays)
    features, labels = sorted(good, key=lambda name: good[name].ndim, reverse=True)
    source = f"npz:{path}"
    if kind == "missing file":
        path.unlink()
    elif kind == "no npz":
        path.write_bytes(b"PK\x03\x04 not really")
    elif kind == "other shape":
        np.savez(path, **{features: good[features][:, :32], labels: good[labels]})
    elif kind == "labels out of range":
        np.savez(path, **{features: good[features], labels: good[labels] + 7})
    else:
        path = path.with_suffix(".csv")
        path.write_text("a,b\n1,2\n")
        source = f"csv:{path}"
    failed(made.run(1, "--data", source), 4, str(path))
    np.savez(made.states[0] / "data.npz", **good)
    finishes(made)


# ---- signals


def test_sigterm_finishes_the_step_and_the_next_start_goes_on(made: Consortium) -> None:
    run = made.run(1, fault="slow_training", given=(1.0,))
    run.until(lambda: len(run.events("training")) == 2)
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert run.events("stopped") and not run.events("ended")[0]["closed"]
    assert "finishing the step" in run.stderr
    finishes(made)
    assert made.trainings(1) == [1, 2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_leaves_at_once(made: Consortium, number: int) -> None:
    run = made.run(1, fault="hang_fetching")
    run.until(lambda: run.events("ready"))
    time.sleep(0.3)
    run.signal(number)
    run.until(lambda: "finishing" in run.stderr)
    run.signal(number)
    assert run.wait(20.0) == 130
    finishes(made)


def test_sigterm_while_the_chain_is_away(made: Consortium) -> None:
    with Relay(made.chain.rpc_url) as relay:
        run = made.run(1, "--rpc", relay.url, fault="slow_training", given=(0.3,))
        run.until(lambda: run.events("training"))
        relay.down = True
        run.until(lambda: run.events("waiting-for-chain"))
        run.signal(signal.SIGTERM)
        assert run.wait(20.0) == 0
    finishes(made)


def test_nobody_reads_what_a_peer_tells(made: Consortium) -> None:
    command = [sys.executable, "-m", "fl_node", "run", "--json", "--state", str(made.states[0])]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "FL_NODE_PASSWORD": PASSWORD},
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    told = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60) == 0, told
    assert "Traceback" not in told and "Exception ignored" not in told
    assert [update.round for update in made.replay().check()] == [1, 2, 3]


def test_verbose_shows_the_traceback(made: Consortium) -> None:
    run = made.run(1, "--verbose", FL_NODE_PASSWORD="wrong")
    assert run.wait() == 5
    assert "Traceback" in run.stderr


def test_nobody_is_objected_to_in_all_this(made: Consortium) -> None:
    finishes(made)
    assert not any(isinstance(entry.body, UpdateObjected) for entry in made.entries())
