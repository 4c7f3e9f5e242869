"""A finished demo on a real chain, looked at through endpoints and gateways that lie: never a crash, never a pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import liars
import pytest
from liars import LyingGateway, OtherLog, only, rewritten, says
from offspring import Run
from relay import Relay

from fl_node import keys
from fl_node.__main__ import main
from fl_node.audit.verdicts import BY_NAME
from fl_node.chains import DevChain
from fl_node.content.blockstore import Blockstore
from fl_node.content.gateway import Gateway
from fl_node.ledger import index as index_module
from fl_node.ledger.checkpoint import at, sign
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.kept_log import KeptLog
from fl_node.ledger.rpc import RpcReader
from fl_node.ledger.transport import Rpc
from fl_node.records import UpdatePublished
from fl_node.spec import read_federation


@dataclass
class Demo:
    """What a demo left: its folder, its chain started again, a gateway for each peer's store, the chain's logs."""

    folder: Path
    rpc: str
    gateways: list[str]
    logs: list[dict[str, Any]]

    @property
    def file(self) -> Path:
        return self.folder / "federation.toml"

    @property
    def contract(self) -> str:
        deployment = read_federation(self.file).deployment
        assert deployment is not None
        return deployment.contract

    def stores(self) -> list[str]:
        """Arguments that name everybody's folder."""
        return [word for site in "abc" for word in ("--content", str(self.folder / f"site-{site}"))]

    def identity(self) -> list[str]:
        """A member's keys, for the updates are encrypted."""
        path = self.folder.parent / "member.key"
        if not path.exists():
            words = ["keys", "export", "--state", str(self.folder / "site-a"), "--output", str(path)]
            environment = {**os.environ, "FL_NODE_PASSWORD": "demo"}
            subprocess.run([sys.executable, "-m", "fl_node", *words], check=True, env=environment, capture_output=True)
        return ["--identity", str(path)]

    def update(self, peer: int, sequence: int) -> int:
        """The entry of an update."""
        for index, log in enumerate(self.logs):
            body = says(log)[1]
            if isinstance(body, UpdatePublished) and (body.peer, body.update.sequence) == (peer, sequence):
                return index
        raise LookupError(f"{peer}#{sequence}")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo") / "kept"
    command = ["demo", "--peers", "3", "--rounds", "2", "--mode", "sync", "--no-baselines", "--state", str(folder)]
    environment = {**os.environ, "FL_NODE_LOCKS": str(tmp_path_factory.mktemp("locks"))}
    told = subprocess.run(
        [sys.executable, "-m", "fl_node", *command, "--json", "-"], check=True, capture_output=True, env=environment
    )
    rpc = json.loads(told.stdout)["rpc"]
    with ExitStack() as stack:
        stack.enter_context(DevChain.start("anvil", port=int(rpc.rsplit(":", 1)[1]), state=folder / "anvil.json"))
        gateways = [stack.enter_context(Gateway(Blockstore(folder / f"site-{site}" / "content"))) for site in "abc"]
        found = Demo(folder, rpc, [one.endpoint for one in gateways], [])
        asked = {"address": found.contract, "fromBlock": "0x0", "toBlock": "latest"}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_getLogs", "params": [asked]}).encode()
        with urllib.request.urlopen(urllib.request.Request(rpc, body, {"Content-Type": "application/json"})) as answer:
            found.logs = json.loads(answer.read())["result"]
        yield found


@dataclass
class Looked:
    """What an audit in a process of its own came to."""

    code: int
    told: dict[str, Any]
    said: str

    def results(self, check: str, update: str = "") -> list[tuple[str, str]]:
        """``(result, detail)`` of a check, of one update or of the federation."""
        given = (
            self.told["findings"]
            if not update
            else next(one["findings"] for one in self.told["updates"] if one["update"] == update)
        )
        return [(one["result"], one["detail"]) for one in given if one["check"] == check]


def begin(demo: Demo, place: Path, *argv: object) -> Run:
    """Start ``fl-node audit`` in a process of its own."""
    words = [str(word) for word in argv]
    named = [] if "--contract" in words else ["--federation", str(demo.file)]
    return Run(place, ["audit", *named, *demo.identity(), "--work", str(place / "work"), "--json", *words])


def end(run: Run) -> Looked:
    code = run.wait()
    assert "Traceback" not in run.stderr and "defect" not in run.stderr, run.stderr
    return Looked(code, json.loads(run.stdout) if run.stdout else {}, run.stderr)


# ---- an endpoint that lies -----------------------------------------------------------------------------------------


def altered(demo: Demo) -> list[dict[str, Any]]:
    """The score in the entry of 2#1 raised."""
    index = demo.update(2, 1)
    body = says(demo.logs[index])[1]
    other = replace(body, update=replace(body.update, score_ppm=990_000))
    return [*demo.logs[:index], rewritten(demo.logs[index], index, other), *demo.logs[index + 1 :]]


def swapped(demo: Demo) -> list[dict[str, Any]]:
    return [*demo.logs[:8], demo.logs[9], demo.logs[8], *demo.logs[10:]]


def upside_down(answer: Any) -> Any:
    """The last byte of a hexadecimal answer, another one."""
    return answer[:-1] + ("0" if answer[-1] != "0" else "1")


def elsewhere(block: dict[str, Any]) -> dict[str, Any]:
    return {**block, "hash": "0x" + "ab" * 32}


def of_2_1(demo: Demo, key: str) -> str:
    return str(demo.logs[demo.update(2, 1)][key])


def signed(demo: Demo) -> bytes:
    """What a peer signs of the whole log."""
    federation = read_federation(demo.file)
    assert federation.deployment is not None
    with LedgerIndex(":memory:", RpcReader(federation.deployment, federation.digest)) as log:
        log.sync()
        return sign(at(log), keys.load(demo.folder / "site-a" / "key.json", "demo")).note


#: What the endpoint does; the exit code; which check says so, of what, how.
LIES: dict[str, tuple[Callable[[Demo], liars.Tamper], int, str, str, str]] = {
    "an honest relay": (lambda demo: only("", str), 0, "merge", "2#1", "ok"),
    "an entry omitted": (lambda d: OtherLog(d.logs[:9] + d.logs[10:]), 40, "included", "", "failed"),
    "two entries swapped": (lambda d: OtherLog(swapped(d)), 40, "included", "", "failed"),
    "an entry altered": (lambda d: OtherLog(altered(d)), 40, "included", "", "failed"),
    "an entry altered, with a root": (lambda d: OtherLog(altered(d), True), 40, "canonical", "2#1", "failed"),
    "the newest withheld, with a root": (lambda d: OtherLog(d.logs[:-2], True), 40, "consistent", "", "failed"),
    "a transaction altered": (
        lambda d: only("eth_getTransactionByHash", lambda tx: {**tx, "input": upside_down(tx["input"])}),
        *(41, "canonical", "2#1", "unknown"),
    ),
    "a transaction denied": (
        lambda d: only("eth_getTransactionByHash", lambda tx: None, first=of_2_1(d, "transactionHash")),
        *(41, "canonical", "2#1", "unknown"),
    ),
    "another block": (
        lambda d: only("eth_getBlockByNumber", elsewhere, first=of_2_1(d, "blockNumber")),
        *(40, "canonical", "2#1", "failed"),
    ),
    "a block at another time": (
        lambda d: only("eth_getBlockByNumber", lambda b: {**b, "timestamp": "0x1"}, first=of_2_1(d, "blockNumber")),
        *(40, "canonical", "2#1", "failed"),
    ),
    "other code": (lambda d: only("eth_getCode", upside_down), 40, "opening", "", "failed"),
}


def test_an_endpoint_that_lies(demo: Demo, tmp_path: Path) -> None:
    """Each lie to an audit of its own, all at a time."""
    checkpoint = tmp_path / "signed"
    checkpoint.write_bytes(signed(demo))
    with ExitStack() as stack:
        runs = {}
        for number, (name, (lie, *_)) in enumerate(LIES.items()):
            relay = stack.enter_context(Relay(demo.rpc))
            relay.tamper = lie(demo)
            given = ["--checkpoint", checkpoint] if "withheld" in name else []
            place = tmp_path / str(number)
            runs[name] = begin(demo, place, "--rpc", relay.url, *demo.stores(), *given)
        looked = {name: end(run) for name, run in runs.items()}
    for name, (_, code, check, update, result) in LIES.items():
        one = looked[name]
        assert one.code == code, (name, one.said)
        assert result in {got for got, _ in one.results(check, update)}, (name, one.told["findings"])
        assert set(one.told["counts"]) <= set(BY_NAME) and one.told["verdict"] in ("ok", "failed", "unknown"), name


#: Asked when all else is there.
LATE = ("eth_blockNumber", "eth_getTransactionByHash")
METHODS = ("eth_chainId", "eth_getBlockByNumber", "eth_getLogs", "eth_call", "eth_getCode", *LATE)
JUNK = (None, [], {"hash": [], "transactions": {}}, "0x", "-0x1", "0x" + "f" * 5000, "0x" + "f" * 64, [[["0x"]]], 7)

ERRORS: tuple[dict[str, Any], ...] = (
    {"code": "x", "message": [1], "data": {"data": 7}},
    {"code": 3, "message": "execution reverted", "data": "0x08c379a0"},
)


@pytest.mark.parametrize("method", METHODS)
def test_an_endpoint_that_babbles(
    demo: Demo, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any answer of another form is told with a documented exit code, and none is taken for an audit that holds."""
    monkeypatch.setattr(index_module, "_FIRST_PAUSE_S", 0.0)
    named = ["--federation", str(demo.file), "--work", str(tmp_path), "--checks", "canonical,included,opening"]
    with Relay(demo.rpc) as relay:

        def look(what: object) -> None:
            code = main(["audit", *named, "--rpc", relay.url, "--json"])
            out, err = capsys.readouterr()
            assert code in (10, 11, 12, 15, 17, 40, 41) and "defect" not in err, (method, what, code, err)
            assert code in (40, 41) or not out
            assert not out or json.loads(out)["verdict"] in ("failed", "unknown")

        # What is asked for late costs half a second a time.
        for junk in JUNK[1::2] if method in LATE else JUNK:
            relay.tamper = only(method, lambda _, junk=junk: junk)  # type: ignore[misc]
            look(junk)
        relay.tamper = only("", str)
        for error in ERRORS:
            relay.refuse = lambda called, _, error=error: error if called == method else None  # type: ignore[misc]
            look(error)


def test_an_index_of_another_log_is_not_believed(demo: Demo, tmp_path: Path) -> None:
    """One that somebody put where the audit keeps its own, at the very block where the chain is."""
    with Relay(demo.rpc) as relay:
        federation = read_federation(demo.file)
        assert federation.deployment is not None
        reader = RpcReader(federation.deployment, None, Rpc(relay.url))
        relay.tamper = OtherLog(altered(demo), True)
        with LedgerIndex(":memory:", reader) as honest_looking:
            honest_looking.sync()
            head = honest_looking.head
            logs = list(reader.logs(0, head.block_number))
        place = tmp_path / "work"
        place.mkdir()
        with LedgerIndex(place / "log-0.sqlite", KeptLog(reader.identity, head, logs)) as planted:
            planted.sync()
        reader.close()
    one = end(begin(demo, tmp_path, *demo.stores()))
    assert one.code == 40
    assert [result for result, detail in one.results("included") if "the file was altered" in detail] == ["failed"]


# ---- a gateway that lies -------------------------------------------------------------------------------------------

SPOILS = (
    *(liars.flips, liars.cuts_short, liars.breaks_off, liars.promises_a_terabyte, liars.has_nothing, liars.fails),
    *(liars.sends_elsewhere, liars.babbles, liars.never_ends_its_headers, liars.hangs_up),
)


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_a_gateway_that_lies(
    demo: Demo, spoil: liars.Spoil, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = LyingGateway(demo.gateways[0], spoil)
    try:
        named = ["--federation", str(demo.file), "--work", str(tmp_path / "w"), "--checks", "bytes,well-formed,merge"]
        common = ["audit", *named, *demo.identity(), "--json", "--fresh", "--content"]
        alone = main([*common, gateway.url])
        told = json.loads(capsys.readouterr().out)
        besides = main([*common, gateway.url, *(word for one in demo.gateways for word in ("--content", one))])
        with_others = json.loads(capsys.readouterr().out)
    finally:
        gateway.close()
    altered = spoil in (liars.flips, liars.cuts_short, liars.promises_a_terabyte)
    assert alone == (40 if altered else 41), told["counts"]
    # This peer has not got everybody's closing update.
    assert set(told["counts"]["bytes"]) == ({"failed", "unknown"} if altered else {"unknown"})
    assert set(told["counts"]["merge"]) <= {"unknown", "ok"}
    assert besides == 0 and set(with_others["counts"]["bytes"]) == {"ok"}  # one honest source is enough


def test_without_any_file(demo: Demo, tmp_path: Path) -> None:
    """An endpoint and an address: the spec comes by its digest, from a gateway or a folder, and so does the genesis."""
    chain = ["--rpc", demo.rpc, "--contract", demo.contract]
    gateways = [word for gateway in demo.gateways for word in ("--content", gateway)]
    runs = [
        begin(demo, tmp_path / "gateways", *chain, *gateways),
        begin(demo, tmp_path / "folders", *chain, *demo.stores()),
        begin(demo, tmp_path / "nothing", *chain),
    ]
    for run in runs[:2]:
        one = end(run)
        assert one.code == 0, one.said
        assert one.told["facts"]["name"] == read_federation(demo.file).spec.name
        assert {result for result, _ in one.results("opening")} == {"ok"}
        assert set(one.told["counts"]["merge"]) == set(one.told["counts"]["selection"]) == {"ok"}
    bare = end(runs[2])
    assert bare.code == 41 and set(bare.told["counts"]["selection"]) == {"unknown"}
    assert set(bare.told["counts"]["canonical"]) == set(bare.told["counts"]["included"]) == {"ok"}


def test_with_a_members_keys_with_none_and_with_such_that_others_may_read(
    demo: Demo, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FL_NODE_PASSWORD", "demo")
    named = ["audit", "--federation", str(demo.file), "--work", str(tmp_path / "work"), "--json", *demo.stores()]

    def look(*argv: str) -> tuple[int, dict[str, Any], str]:
        code = main([*named, *argv])
        out, err = capsys.readouterr()
        assert "SECRET" not in out + err and "defect" not in err
        return code, json.loads(out)["counts"] if out else {}, err

    own = ["--state", str(demo.folder / "site-c")]
    code, counts, _ = look(*own)
    assert code == 0 and set(counts["commitment"]) == {"ok"}
    # What these keys found out is kept, for them alone.
    raw = b"".join(path.read_bytes() for path in (tmp_path / "work").glob("results.sqlite*"))
    assert raw.count(b"age-encryption.org/v1") >= 9 and b'"commitment"' not in raw
    code, counts, said = look()
    assert (
        code == 41 and set(counts["commitment"]) == set(counts["well-formed"]) == {"unknown"} and "--identity" in said
    )
    assert set(counts["sealed"]) == set(counts["bytes"]) == {"ok"}
    assert look(*own)[0] == look(*demo.identity())[0] == 0
    shown = tmp_path / "shown.key"
    shown.write_bytes(Path(demo.identity()[1]).read_bytes())
    shown.chmod(0o640)
    code, _, said = look("--identity", str(shown))
    assert code == 28 and "chmod 600" in said
    monkeypatch.setenv("FL_NODE_PASSWORD", "another")
    assert look(*own)[0] == 5
