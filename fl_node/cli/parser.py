"""Every command and option of ``fl-node``, in one table of argparse calls. Imports nothing heavy."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

from fl_node import __version__
from fl_node.config import NodeConfig
from fl_node.presets import PRESETS
from fl_node.simulation.attacks import ATTACKS

EPILOG = """exit codes: 0 done; 1 failed; 2 wrong usage; 3 bad federation file or configuration; 4 bad data; 5 key or
password; 10-17 chain and contract; 20-26 content and weights; 30 training; 40 a check does not hold; 41 not all could
be known; 42 alarm; 43 malformed evidence; 130 interrupted. See docs/cli.md."""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="fl-node",
        description="Peer-to-peer federated learning with a ledger that anyone can check.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"fl-node {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        if name == "demo":
            sub.add_argument("--json", metavar="FILE", default=None, help="write the result as JSON; - is stdout")
        else:
            sub.add_argument("--json", action="store_true", help="machine-readable output on stdout")
        sub.add_argument("--verbose", action="store_true", help="show the traceback of an error")
        return sub

    for add in (_init, _run, _reading, _membership, _model, _cid, _gc, _demo, _simulate, _doctor, *_AUDITING, _ui):
        add(command)
    return parser


Command = Callable[[str, str], argparse.ArgumentParser]


def _settings(parser: argparse.ArgumentParser, *keys: str) -> None:
    """Flags for node settings. They default to None, so that environment and node.toml count when not given."""
    for key in keys:
        field = NodeConfig.model_fields[key]
        flag = "--" + key.replace("_", "-")
        help_text = f"{field.description} (default: {field.default!r})".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=help_text)
        else:
            kind: Callable[[str], object] = {int: int, float: float}.get(field.annotation, str)  # type: ignore[arg-type]
            parser.add_argument(flag, type=kind, default=None, metavar=key.upper(), help=help_text)


def _entry(text: str) -> int:
    """The number of an entry."""
    if not re.fullmatch("[0-9]{1,18}", text):
        shown = text if len(text) <= 20 else f"{text[:20]}... of {len(text)} characters"
        raise argparse.ArgumentTypeError(f"got {shown}; expected the number of an entry, from 0")
    return int(text)


def _init(command: Command) -> None:
    sub = command(
        "init", "make a peer: its key, its state folder, its settings; or, with --preset, the spec of a federation"
    )
    _settings(sub, "state", "federation", "rpc", "data", "data_dir", "password_file", "host", "port", "endpoint")
    sub.add_argument("--site", default="", help="pseudonym of your organisation, for the coordinator who admits you")
    sub.add_argument("--preset", default=None, metavar="NAME", help=f"write a spec instead: {', '.join(PRESETS)}")
    sub.add_argument("--peers", type=int, default=None, help="with --preset: how many peers there will be")
    sub.add_argument(
        "--spec",
        default=None,
        metavar="FILE",
        help="with --preset: file to write (default: federation.toml)",
    )


def _run(command: Command) -> None:
    sub = command("run", "take part in a federation until its rounds are done")
    _settings(sub, *NodeConfig.model_fields)


def _reading(command: Command) -> None:
    for name, summary in (
        ("status", "where the federation and this peer stand"),
        ("log", "the ledger's entries, one line each"),
        ("show", "everything recorded about one update"),
        ("peers", "the members, their sites, rounds and endpoints"),
    ):
        sub = command(name, summary)
        _settings(sub, "federation", "state", "rpc")
        if name == "log":
            sub.add_argument(
                "--from", dest="start", type=_entry, default=0, metavar="N", help="first entry (default: 0)"
            )
            sub.add_argument(
                "--to", dest="stop", type=_entry, default=None, metavar="M", help="entry after the last one"
            )
        if name == "peers":
            sub.add_argument("--wide", action="store_true", help="whole addresses, however wide the terminal")
        if name == "show":
            sub.add_argument("update", metavar="UPDATE|CID", help="an update such as 3#12, or the CID of its content")


def _membership(command: Command) -> None:
    admit = command("admit", "admit a peer (the ledger's owner)")
    admit.add_argument("account", help="address of the new peer")
    admit.add_argument("--site", required=True, help="pseudonym of its organisation, at most 32 bytes")
    admit.add_argument("--roles", default="publish,attest,read", help="comma-separated (default: publish,attest,read)")
    retire = command("retire", "retire a peer: the ledger's owner, or the peer itself")
    retire.add_argument("account", help="address of the peer")
    retire.add_argument("--reason", required=True, help="why, in a few words: it is public")
    retire.add_argument(
        "--from-index", type=_entry, default=None, help="ignore its entries from here (default: from now)"
    )
    for sub in (admit, retire):
        _settings(sub, "federation", "state", "rpc", "key", "password_file")


def _model(command: Command) -> None:
    sub = command("model", "get a model: fetch, verify and write its weights")
    _settings(sub, "federation", "state", "rpc", "content", "ipfs_api")
    sub.add_argument("--at", default="final", metavar="UPDATE|latest|final", help="which model (default: final)")
    sub.add_argument("--out", required=True, metavar="FILE", help="safetensors file to write")
    sub.add_argument("--force", action="store_true", help="overwrite FILE")


def _cid(command: Command) -> None:
    sub = command("cid", "the CID that IPFS gives a file (profile unixfs-v1-2025)")
    sub.add_argument("file", metavar="FILE", help="file to hash")


def _gc(command: Command) -> None:
    sub = command("gc", "delete content older than the federation's retention")
    _settings(sub, "federation", "state", "rpc", "content", "ipfs_api", "archive")
    sub.add_argument("--dry-run", action="store_true", help="only say what would be deleted")


def _demo(command: Command) -> None:
    sub = command("demo", "run a whole federation on this machine: chain, contract, peers in processes of their own")
    sub.add_argument(
        "--preset", default=None, metavar="NAME", help=f"who merges what, and how: {', '.join(PRESETS)} (default: none)"
    )
    sub.add_argument("--peers", type=int, default=4, help="number of peers (default: 4)")
    sub.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    sub.add_argument("--epochs", type=int, default=None, help="epochs in a round (default: by data set)")
    sub.add_argument("--batch-size", type=int, default=None, help="rows in a step (default: by data set)")
    sub.add_argument("--learning-rate", type=float, default=None, help="step size (default: by data set)")
    sub.add_argument(
        "--dataset",
        default="digits",
        help="digits, digits-canvas, mnist, fashion-mnist, credit-default (default: digits)",
    )
    sub.add_argument("--data-dir", default=None, metavar="D", help="folder with the data set's files")
    sub.add_argument("--model", default=None, help="logistic, mlp, cnn, unet or module:factory (default: by data set)")
    sub.add_argument("--partition", default="iid", help="how rows are dealt out, such as label-skew:2 (default: iid)")
    sub.add_argument(
        "--mode", choices=("async", "sync"), default=None, help="pace of rounds (default: the preset's, or else async)"
    )
    sub.add_argument("--chain", choices=("anvil", "ganache", "hardhat"), default="anvil", help="(default: anvil)")
    sub.add_argument("--state", default=None, metavar="DIR", help="folder to keep (default: a new temporary one)")
    sub.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    sub.add_argument("--no-baselines", action="store_true", help="skip training alone and on pooled data")
    sub.add_argument("--no-ui", action="store_true", help="without the ledger explorer beside it")
    sub.add_argument(
        "--export", default=None, metavar="FILE", help="write the whole demo as an evidence pack, blobs included"
    )


def _simulate(command: Command) -> None:
    sub = command("simulate", "run federations in this process, over an in-memory ledger: many peers, many seeds")
    sub.add_argument("--spec", default=None, metavar="FILE", help="federation file to start from (default: none)")
    sub.add_argument("--preset", default=None, metavar="NAME", help=f"or one of {', '.join(PRESETS)} (default: none)")
    sub.add_argument("--peers", default="6", metavar="N[,N...]", help="number of peers, or several (default: 6)")
    sub.add_argument("--rounds", type=int, default=None, help="rounds (default: the spec's, or else 5)")
    sub.add_argument("--seeds", type=int, default=1, help="runs of each (default: 1)")
    sub.add_argument("--seed", type=int, default=0, help="seed of the first run (default: 0)")
    sub.add_argument("--dataset", default=None, help="as for demo, also digits-canvas (default: the spec's, or digits)")
    sub.add_argument("--data-dir", default=None, metavar="D", help="folder with the data set's files")
    sub.add_argument("--partition", default="iid", help="how rows are dealt out: docs/simulation.md (default: iid)")
    sub.add_argument("--shift", default="none", help="how peers' data differ: docs/simulation.md (default: none)")
    sub.add_argument(
        "--test-rows",
        choices=("own", "common"),
        default="own",
        help="rows that scores are claimed on: a part of each peer's own, or common test rows (default: own)",
    )
    sub.add_argument("--model", default=None, help="logistic, mlp, cnn, unet or module:factory (default: the spec's)")
    sub.add_argument("--mode", choices=("async", "sync"), default=None, help="pace of rounds (default: the spec's)")
    sub.add_argument("--epochs", type=int, default=None, help="epochs in a round (default: the spec's, or by data set)")
    sub.add_argument(
        "--batch-size", type=int, default=None, help="rows in a step (default: the spec's, or by data set)"
    )
    sub.add_argument(
        "--learning-rate", type=float, default=None, help="step size (default: the spec's, or by data set)"
    )
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of the spec: --set training.optimizer=adam",
    )
    sub.add_argument("--dropout", type=float, default=0.0, metavar="P", help="probability that a peer misses a round")
    for flag, what in (
        ("stragglers", "peers that are slow"),
        ("churn", "peers that leave early or join late"),
        ("malicious", "peers that attack"),
    ):
        sub.add_argument(f"--{flag}", type=float, default=0.0, metavar="N", help=f"{what}: a fraction, or how many")
    sub.add_argument("--straggle", type=int, default=3, metavar="K", help="rounds in which a straggler plays one (3)")
    sub.add_argument("--attack", default="sign-flip", metavar="NAME", help=f"{', '.join(ATTACKS)} (default: sign-flip)")
    sub.add_argument("--baselines", action="store_true", help="also train on all rows in one place, and alone")
    sub.add_argument(
        "--evaluate",
        choices=("every", "last"),
        default=None,
        help="rounds whose merged models are scored on the common test set (default: every with --out, else last)",
    )
    sub.add_argument("--ledger", choices=("memory", "anvil"), default="memory", help="(default: memory)")
    sub.add_argument(
        "--batch", choices=("auto", "always", "never"), default="auto", help="train many peers at once (default: auto)"
    )
    sub.add_argument("--threads", type=int, default=0, help="threads at work; 0: as many as cores (default: 0)")
    sub.add_argument("--out", default=None, metavar="DIR", help="folder of results; gone on with if it has some")
    sub.add_argument(
        "--allow-code", default="", metavar="NAMES", help="module:callable names that the file may run (default: none)"
    )


def _doctor(command: Command) -> None:
    sub = command("doctor", "check chain, code, spec, balance, content, disk and clock; say how to mend each")
    _settings(sub, "federation", "state", "rpc", "key", "content", "ipfs_api", "host", "port", "endpoint", "data_dir")


def _ledger_source(sub: argparse.ArgumentParser) -> None:
    """Where an auditor reads: a federation file, or no more than an endpoint and an address."""
    _settings(sub, "federation", "rpc")
    sub.add_argument("--contract", default=None, metavar="ADDRESS", help="the ledger, instead of a federation file")
    sub.add_argument(
        "--content",
        dest="sources",
        action="append",
        default=[],
        metavar="URL|FOLDER",
        help="where bytes may be had besides the peers: a gateway, or a peer's content folder; may be repeated",
    )
    sub.add_argument("--depth", type=_entry, default=None, metavar="D", help="blocks on top (default: the spec's)")


def _checking(sub: argparse.ArgumentParser) -> None:
    """What to check, and what the exit code says of it."""
    from fl_node.audit.verdicts import CHECKS, FAIL_ON

    sub.add_argument("--from", dest="start", type=_entry, default=0, metavar="N", help="first entry (default: 0)")
    sub.add_argument("--to", dest="stop", type=_entry, default=None, metavar="M", help="entry after the last one")
    sub.add_argument("--peer", type=_entry, default=None, metavar="P", help="updates of this peer only")
    sub.add_argument(
        "--checks",
        default="",
        metavar="NAMES",
        help=f"these checks only, by commas: {', '.join(check.name for check in CHECKS)} (default: all)",
    )
    sub.add_argument(
        "--checkpoint",
        dest="checkpoints",
        action="append",
        default=[],
        metavar="FILE",
        help="a signed checkpoint that the log must extend; may be repeated",
    )
    sub.add_argument("--jobs", type=int, default=0, metavar="J", help="threads; 0: as many as cores (default: 0)")
    sub.add_argument("--html", default=None, metavar="FILE", help="write the report as one page")
    sub.add_argument(
        "--fail-on",
        choices=FAIL_ON,
        default="incomplete",
        help="least finding that makes the exit code 40 or 41: docs/auditing.md (default: incomplete)",
    )


def _audit(command: Command) -> None:
    sub = command("audit", "check every update against the log, the bytes and the spec, trusting nobody")
    _ledger_source(sub)
    _checking(sub)
    sub.add_argument(
        "--completeness", action="store_true", help="who was expected, submitted, merged, left out, missing: by round"
    )
    sub.add_argument("--work", default=None, metavar="DIR", help="folder of results and bytes (default: in your cache)")
    sub.add_argument("--fresh", action="store_true", help="forget what earlier audits saw and found")
    sub.add_argument(
        "--tiles",
        default=None,
        metavar="URL",
        help="read the log from this gateway's tiles, under the contract's root, or a --checkpoint without a chain",
    )


def _checkpoint(command: Command) -> None:
    sub = command("checkpoint", "sign the log as it is now, verify what others signed, list what this peer has")
    # A parser each: files after options would not be found otherwise.
    actions = sub.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, summary in (
        ("sign", "sign the log as it is now, unless it contradicts what was signed before"),
        ("verify", "hold checkpoints against each other and the log; say who signed them"),
        ("list", "what this peer signed, what it has of others, and what contradicts what"),
    ):
        action = actions.add_parser(name, help=summary, description=summary)
        for flag in ("--json", "--verbose"):
            action.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        if name == "list":
            _settings(action, "state")
            continue
        _settings(action, "federation", "state", "rpc")
        if name == "sign":
            _settings(action, "key", "password_file")
            action.add_argument("--out", default=None, metavar="FILE", help="file to write (default: standard output)")
        else:
            action.add_argument("files", nargs="+", metavar="FILE", help="checkpoints, or a proof of equivocation")
            action.add_argument("--offline", action="store_true", help="signatures and each other only: no chain")


def _monitor(command: Command) -> None:
    sub = command("monitor", "watch a federation: foreign entries, reorgs, silence, lost content, bad merges")
    _ledger_source(sub)
    _settings(sub, "state")
    sub.add_argument("--account", default=None, metavar="ADDRESS", help="whose entries to know (default: the state's)")
    sub.add_argument("--every", type=float, default=30.0, metavar="S", help="seconds between looks (default: 30)")
    sub.add_argument("--silent-s", type=float, default=3600.0, metavar="S", help="silence that is told (default: 3600)")
    sub.add_argument("--once", action="store_true", help="look once; exit code 42 if there is an alarm")


def _export(command: Command) -> None:
    sub = command("export", "write an evidence pack: everything that it takes to check updates without a chain")
    _ledger_source(sub)
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--update", default=None, metavar="UPDATE", help="one update, such as 3#12, with its parents")
    what.add_argument("--round", type=_entry, default=None, metavar="R", help="all updates of a round")
    what.add_argument("--all", action="store_true", help="all updates")
    sub.add_argument("--out", required=True, metavar="FILE", help="zip file to write")
    sub.add_argument("--blobs", action="store_true", help="with the weights, so that merges can be checked")
    sub.add_argument("--force", action="store_true", help="overwrite FILE")
    sub.add_argument(
        "--checkpoint",
        dest="checkpoints",
        action="append",
        default=[],
        metavar="FILE",
        help="a signed checkpoint to put in; may be repeated",
    )


def _verify(command: Command) -> None:
    sub = command("verify", "check an evidence pack offline: no chain, no network, no torch")
    sub.add_argument("pack", metavar="PACK", help="file that `fl-node export` wrote")
    _checking(sub)
    sub.add_argument("--completeness", action="store_true", help="also who was expected and missing, by round")


def _lineage(command: Command) -> None:
    sub = command("lineage", "what an update came from, and what came of it, with effective shares")
    sub.add_argument("update", nargs="?", metavar="UPDATE", help="an update such as 3#12, or the CID of its content")
    _settings(sub, "federation", "state", "rpc")
    sub.add_argument("--site", default=None, metavar="SITE", help="instead: what came of all updates of a site")
    sub.add_argument("--pack", default=None, metavar="FILE", help="read an evidence pack instead of a chain")
    sub.add_argument(
        "--direction", choices=("ancestors", "descendants", "both"), default="both", help="which way (default: both)"
    )
    sub.add_argument(
        "--levels",
        type=int,
        default=None,
        metavar="N",
        help="steps away at most; 0: all (default: all; in a tree, those that 60 updates fill)",
    )
    sub.add_argument(
        "--format", choices=("tree", "json", "dot", "svg", "prov"), default="tree", help="output (default: tree)"
    )
    sub.add_argument("--out", default=None, metavar="FILE", help="new file to write (default: standard output)")


def _ui(command: Command) -> None:
    sub = command("ui", "the ledger explorer: a web page over the log of a federation, or of several")
    sub.add_argument(
        "--federation",
        dest="federations",
        action="append",
        default=[],
        metavar="FILE",
        help="a deployed federation file; may be repeated (default: federation.toml)",
    )
    _settings(sub, "rpc")
    sub.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    sub.add_argument("--port", type=int, default=8600, help="port; 0 takes a free one (default: 8600)")
    sub.add_argument(
        "--secret-file", default=None, metavar="FILE", help="file with user:password, or a token, that readers give"
    )
    sub.add_argument(
        "--allow-host",
        dest="allow_hosts",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which browsers may address it besides those of this machine; may be repeated",
    )
    sub.add_argument("--no-harvest", action="store_true", help="ask no peer for reports, checkpoints or content")
    sub.add_argument("--no-verify", action="store_true", help="readers cannot have audits or packs made")
    sub.add_argument("--monitor", action="store_true", help="run `fl-node monitor` beside it, and show its alarms")
    sub.add_argument("--open", action="store_true", help="open it in this machine's browser")
    sub.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="S",
        help="seconds to wait for federation files to appear (default: 0)",
    )


_AUDITING = (_audit, _checkpoint, _monitor, _export, _verify, _lineage)
