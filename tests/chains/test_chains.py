"""Development chains start, answer, keep what they should and leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fl_node.chains import CHAIN_ID, FUNDERS, KINDS, ChainKind, DevChain, call, find_tool, set_balance
from fl_node.errors import ChainUnavailable, UsageError


def _gone(pid: int) -> bool:
    """Whether a process ended (a zombie counts: somebody else is its parent)."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def _receipt(chain: DevChain, transaction: str) -> dict[str, str]:
    for _ in range(200):
        receipt = call(chain.rpc_url, "eth_getTransactionReceipt", transaction)
        if receipt is not None:
            return receipt
        time.sleep(0.02)
    raise AssertionError(f"no receipt of {transaction}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_chain_answers_with_the_shared_accounts_and_stops(kind: ChainKind) -> None:
    with DevChain.start(kind) as chain:
        assert int(call(chain.rpc_url, "eth_chainId"), 16) == CHAIN_ID
        accounts = call(chain.rpc_url, "eth_accounts")
        assert [account.lower() for account in accounts[:10]] == [address.lower() for address, _ in FUNDERS]
        assert int(call(chain.rpc_url, "eth_getBalance", FUNDERS[9][0], "latest"), 16) == 10_000 * 10**18
        set_balance(chain.rpc_url, kind, "0x" + "ab" * 20, 7 * 10**18)
        assert int(call(chain.rpc_url, "eth_getBalance", "0x" + "ab" * 20, "latest"), 16) == 7 * 10**18
    assert _gone(chain.pid)
    with pytest.raises(ChainUnavailable):
        call(chain.rpc_url, "eth_chainId", timeout_s=1)
    chain.stop()


def test_the_funders_keys_belong_to_their_accounts() -> None:
    from eth_account import Account

    assert [Account.from_key(key).address for _, key in FUNDERS] == [address for address, _ in FUNDERS]


@pytest.mark.parametrize("kind", ["anvil", "ganache"])
def test_a_state_path_keeps_the_chain(kind: ChainKind, tmp_path: Path) -> None:
    state = tmp_path / "kept" / "chain"
    sender, receiver = FUNDERS[0][0], "0x" + "cd" * 20
    with DevChain.start(kind, state=state) as chain:
        value = {"from": sender, "to": receiver, "value": hex(5)}
        transaction = call(chain.rpc_url, "eth_sendTransaction", value)
        block = _receipt(chain, transaction)["blockHash"]
    with DevChain.start(kind, state=state) as chain:
        assert int(call(chain.rpc_url, "eth_getBalance", receiver, "latest"), 16) == 5
        assert _receipt(chain, transaction)["blockHash"] == block


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_come_by_the_clock_when_asked(kind: ChainKind) -> None:
    with DevChain.start(kind, block_time_s=1) as chain:
        first = int(call(chain.rpc_url, "eth_blockNumber"), 16)
        deadline = time.monotonic() + 30
        while int(call(chain.rpc_url, "eth_blockNumber"), 16) == first and time.monotonic() < deadline:
            time.sleep(0.1)
        assert int(call(chain.rpc_url, "eth_blockNumber"), 16) > first


def test_hardhat_keeps_no_state(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="keeps no state"):
        DevChain.start("hardhat", state=tmp_path / "state")


def test_an_unknown_kind_names_the_known() -> None:
    with pytest.raises(UsageError, match="anvil, ganache, hardhat"):
        DevChain.start("geth")  # type: ignore[arg-type]


def test_a_taken_port_is_refused() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(UsageError, match="is taken"):
            DevChain.start("anvil", port=holder.getsockname()[1])


def test_a_missing_tool_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FL_NODE_CHAIN_TOOLS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="npm install --no-save --prefix"):
        DevChain.start("anvil")


def test_a_tool_on_the_path_is_found_without_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "anvil").symlink_to(find_tool("anvil")[0])
    monkeypatch.setenv("FL_NODE_CHAIN_TOOLS", str(tmp_path / "nothing"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_tool("anvil") == [str(tmp_path / "anvil")]
    with DevChain.start("anvil") as chain:
        assert int(call(chain.rpc_url, "eth_chainId"), 16) == CHAIN_ID


def test_a_named_tool_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FL_NODE_ANVIL", "/nowhere/anvil")
    with pytest.raises(UsageError, match="FL_NODE_ANVIL"):
        find_tool("anvil")


def test_a_chain_that_exits_says_what_it_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "anvil"
    broken.write_text("#!/bin/sh\necho no such flag >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("FL_NODE_ANVIL", str(broken))
    with pytest.raises(ChainUnavailable, match="status 3: no such flag"):
        DevChain.start("anvil")


def test_a_chain_that_never_answers_is_given_up_and_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mute, pid_file = tmp_path / "anvil", tmp_path / "pid"
    mute.write_text(f"#!/bin/sh\necho $$ > {pid_file}\nexec sleep 600\n")
    mute.chmod(0o755)
    monkeypatch.setenv("FL_NODE_ANVIL", str(mute))
    with pytest.raises(ChainUnavailable, match="did not answer"):
        DevChain.start("anvil", timeout_s=1)
    assert _gone(int(pid_file.read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_parent_takes_the_chain_along(kind: ChainKind) -> None:
    code = (
        "import time\nfrom fl_node.chains import DevChain\n"
        f"print(DevChain.start({kind!r}).pid, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        chain = int(parent.stdout.readline())
        os.kill(chain, 0)
        parent.send_signal(signal.SIGKILL)
    assert _gone(chain)


def test_the_module_needs_nothing_slow() -> None:
    code = "import sys, fl_node.chains; print([name for name in ('web3', 'torch', 'numpy') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
