"""Development chains: start Anvil, Ganache or Hardhat's node as a child that never outlives its parent.

For demos, tests and benchmarks. Neither web3 nor anything else slow is imported here. The accounts come from the
mnemonic that every such tool uses by default; their keys are public, so they fund throw-away accounts and nothing else.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from fl_node.errors import ChainUnavailable, UsageError

ChainKind: TypeAlias = Literal["anvil", "ganache", "hardhat"]
KINDS: Final[tuple[ChainKind, ...]] = ("anvil", "ganache", "hardhat")
CHAIN_ID: Final = 31337
MNEMONIC: Final = "test test test test test test test test test test test junk"

# The first ten accounts of MNEMONIC (m/44'/60'/0'/0/n), known to everybody: (address, private key).
FUNDERS: Final[tuple[tuple[str, str], ...]] = (
    (
        "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
        "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    ),
    (
        "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    ),
    (
        "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
        "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    ),
    (
        "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
        "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
    ),
    (
        "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
        "0x47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
    ),
    (
        "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc",
        "0x8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba",
    ),
    (
        "0x976EA74026E726554dB657fA54763abd0C3a0aa9",
        "0x92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e",
    ),
    (
        "0x14dC79964da2C08b23698B3D3cc7Ca32193d9955",
        "0x4bbbf85ce3377467afe5d46f804f221813b2bb87f24d81f60f1fcdbf7cbf4356",
    ),
    (
        "0x23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f",
        "0xdbda1821b80551c9d65939329250298aa3472ba22feea921c0cf5d620ea67b97",
    ),
    (
        "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720",
        "0x2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6",
    ),
)

_ROOT: Final = Path(__file__).resolve().parent.parent
_SET_BALANCE: Final[dict[ChainKind, str]] = {
    "anvil": "anvil_setBalance",
    "ganache": "evm_setAccountBalance",
    "hardhat": "hardhat_setBalance",
}
_PR_SET_PDEATHSIG: Final = 1


def chain_tools() -> Path:
    """Folder of the pinned chain tools: ``FL_NODE_CHAIN_TOOLS``, or ``hardhat-network`` of a checkout."""
    return Path(os.environ.get("FL_NODE_CHAIN_TOOLS") or _ROOT / "hardhat-network")


def find_tool(name: str) -> list[str]:
    """Command line that runs a tool: ``anvil``, ``cast``, ``forge``, ``ganache`` or ``hardhat``.

    In order: the environment variable ``FL_NODE_<NAME>``, the pinned tools of :func:`chain_tools`, the ``PATH``. The
    native binary of Foundry's tools is run as such: their Node launcher would add half a second and a process.

    Raises:
        UsageError: the tool is nowhere to be found.
    """
    variable = f"FL_NODE_{name.upper()}"
    named = os.environ.get(variable)
    if named:
        path = shutil.which(named)
        if path is None:
            raise UsageError(f"got {variable}={named}; expected an executable file; correct or unset it")
        return [path]
    modules = chain_tools() / "node_modules"
    for native in sorted((modules / "@foundry-rs").glob(f"{name}-*/bin/{name}*")):
        if os.access(native, os.X_OK):
            return [str(native)]
    script = modules / ".bin" / name
    node = shutil.which("node")
    if name in ("ganache", "hardhat") and script.exists() and node is not None:
        return [node, str(script.resolve())]
    path = shutil.which(name)
    if path is not None:
        return [path]
    raise UsageError(
        f"got no {name}; expected it in {modules}, on the PATH, or in {variable}; "
        f"run `npm install --no-save --prefix {chain_tools()}` (Node 20 or newer), or install {name}"
    )


@dataclass
class DevChain:
    """A running development chain. Make it with :meth:`start`; use it as a context manager.

    ``rpc_url`` is on 127.0.0.1. ``funders`` are (address, private key) pairs with 10,000 ether each.
    """

    kind: ChainKind
    rpc_url: str
    pid: int
    chain_id: int = CHAIN_ID
    funders: tuple[tuple[str, str], ...] = field(default=FUNDERS, repr=False)
    _process: subprocess.Popen[bytes] = field(repr=False, kw_only=True)
    _scratch: TemporaryDirectory[str] = field(repr=False, kw_only=True)

    @classmethod
    def start(
        cls,
        kind: ChainKind = "anvil",
        *,
        port: int = 0,
        state: Path | None = None,
        block_time_s: int | None = None,
        timeout_s: float = 30.0,
    ) -> DevChain:
        """Start a chain and wait until it answers.

        Args:
            kind: ``anvil``, ``ganache`` or ``hardhat``.
            port: TCP port on 127.0.0.1; 0 takes a free one.
            state: where the chain is kept from one start to the next: a file for Anvil, a folder for Ganache. Hardhat's
                node keeps nothing. ``None``: everything is gone when it stops.
            block_time_s: seconds between blocks; ``None``: a block per transaction, at once.
            timeout_s: deadline for the first answer.

        Raises:
            UsageError: unknown kind, the tool is missing, the port is taken, or Hardhat is asked to keep a state.
            ChainUnavailable: the chain exited or did not answer in time; the message ends with what it printed.
        """
        if kind not in KINDS:
            raise UsageError(f"got chain {kind!r}; expected one of {', '.join(KINDS)}")
        if kind == "hardhat" and state is not None:
            raise UsageError("Hardhat's node keeps no state; use --chain anvil or ganache, or give no state path")
        port = _claim_port(port)
        scratch = TemporaryDirectory(prefix="fl-node-chain-")
        folder = Path(scratch.name)
        output = folder / "output"
        try:
            command = _command(kind, port, state, block_time_s, folder)
            with output.open("wb") as sink:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    cwd=chain_tools() if kind == "hardhat" and chain_tools().is_dir() else folder,
                    env=_environment(folder, block_time_s),
                    # A session of its own: Ctrl-C in the terminal goes to the parent, which stops the chain in order.
                    start_new_session=True,
                    preexec_fn=_die_with_parent(),
                )
        except BaseException:
            scratch.cleanup()
            raise
        chain = cls(kind, f"http://127.0.0.1:{port}", process.pid, _process=process, _scratch=scratch)
        try:
            chain._wait_ready(timeout_s, output)
        except BaseException:
            chain.stop()
            raise
        return chain

    def _wait_ready(self, timeout_s: float, output: Path) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            status = self._process.poll()
            if status is not None:
                raise ChainUnavailable(f"{self.kind} exited with status {status}: {_tail(output)}")
            try:
                got = int(call(self.rpc_url, "eth_chainId", timeout_s=2.0), 16)
            except ChainUnavailable:
                if time.monotonic() > deadline:
                    raise ChainUnavailable(
                        f"{self.kind} did not answer at {self.rpc_url} within {timeout_s:g} s: {_tail(output)}"
                    ) from None
                time.sleep(0.02)
                continue
            if got != self.chain_id:
                raise ChainUnavailable(f"got chain id {got} from {self.rpc_url}; expected {self.chain_id}")
            return

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop the chain and everything it started; a kept state is written first. Calling it again does nothing."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                pass
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._scratch.cleanup()

    def _signal(self, number: signal.Signals) -> None:
        """To the whole process group: Ganache and Hardhat have helpers."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass

    def __enter__(self) -> DevChain:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def call(rpc_url: str, method: str, *params: object, timeout_s: float = 30.0) -> Any:
    """One JSON-RPC call; the result as JSON gave it.

    Raises:
        ChainUnavailable: no connection, no answer in time, or an answer that is an error or not JSON-RPC.
    """
    parts = urlsplit(rpc_url)
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)
    try:
        connection.request("POST", parts.path or "/", body, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as cause:
        raise ChainUnavailable(f"{method} at {rpc_url} failed: {cause or type(cause).__name__}") from cause
    finally:
        connection.close()
    if not isinstance(answer, dict) or "result" not in answer:
        raise ChainUnavailable(f"{method} at {rpc_url} was refused: {json.dumps(answer)[:300]}")
    return answer["result"]


def set_balance(rpc_url: str, kind: ChainKind, address: str, wei: int) -> None:
    """Give an account on a development chain this balance.

    Raises:
        ChainUnavailable: the chain does not answer, or is of another kind.
    """
    call(rpc_url, _SET_BALANCE[kind], address, hex(wei))


def _command(kind: ChainKind, port: int, state: Path | None, block_time_s: int | None, folder: Path) -> list[str]:
    where = ["--host", "127.0.0.1", "--port", str(port)]
    if kind == "anvil":
        command = [*find_tool("anvil"), "--silent", "--chain-id", str(CHAIN_ID), "--hardfork", "shanghai", *where]
        if state is not None:
            state.parent.mkdir(parents=True, exist_ok=True)
            command += ["--state", str(state.resolve()), "--preserve-historical-states"]
        return command + (["--block-time", str(block_time_s)] if block_time_s else [])
    if kind == "ganache":
        command = [*find_tool("ganache"), *where, "--logging.quiet", "--chain.chainId", str(CHAIN_ID)]
        command += [
            "--chain.networkId",
            str(CHAIN_ID),
            "--wallet.mnemonic",
            MNEMONIC,
            "--wallet.defaultBalance",
            "10000",
        ]
        if state is not None:
            state.mkdir(parents=True, exist_ok=True)
            command += ["--database.dbPath", str(state.resolve())]
        return command + (["--miner.blockTime", str(block_time_s)] if block_time_s else [])
    config = chain_tools() / "hardhat.config.js"
    return [*find_tool("hardhat"), "--config", str(config), "node", "--hostname", "127.0.0.1", "--port", str(port)]


def _environment(folder: Path, block_time_s: int | None) -> Mapping[str, str]:
    """The parent's less its password, and nothing asked, cached or reported by Hardhat."""
    return {
        **{name: value for name, value in os.environ.items() if name != "FL_NODE_PASSWORD"},
        "FL_NODE_SCRATCH": str(folder),
        "FL_NODE_BLOCK_TIME_S": str(block_time_s or 0),
        "HARDHAT_DISABLE_TELEMETRY_PROMPT": "true",
        "CI": "true",
    }


def _die_with_parent() -> Callable[[], None] | None:
    """What the child runs between fork and exec: on Linux, ask the kernel to end it when the starting thread ends.

    The library is loaded here, before the fork, where taking locks is safe.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # It ended before the line above.
            os._exit(1)

    return arm


def _claim_port(port: int) -> int:
    """A port that is free now: the one asked for, or any for 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as cause:
            raise UsageError(f"port {port} on 127.0.0.1 is taken; name another one, or 0 for any") from cause
        return int(probe.getsockname()[1])


def _tail(output: Path) -> str:
    text = output.read_text(encoding="utf-8", errors="replace").strip() if output.is_file() else ""
    return text[-1000:] or "it printed nothing"
