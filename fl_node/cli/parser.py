"""Every command and option of ``fl-node``, in one table of argparse calls. Imports nothing heavy."""

from __future__ import annotations

import argparse

from fl_node import __version__
from fl_node.cli.auditing import AUDITING
from fl_node.cli.flags import Command, entry, identities, settings
from fl_node.cli.parsing import Parser
from fl_node.cli.secrecy import SECRECY
from fl_node.config import NodeConfig
from fl_node.presets import PRESETS
from fl_node.simulation.attacks import ATTACKS

EPILOG = """exit codes: 0 done; 1 failed; 2 wrong usage; 3 bad federation file or configuration; 4 bad data; 5 key or
password; 10-17 chain and contract; 20-28 content, weights and their keys; 30-31 training; 40 a check does not hold; 41
not all could be known; 42 alarm; 43 malformed evidence; 130 interrupted. See docs/cli.md."""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(
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

    for add in (
        _init,
        _run,
        _reading,
        _membership,
        *SECRECY,
        _model,
        _cid,
        _gc,
        _traffic,
        _privacy,
        _demo,
        _simulate,
        _doctor,
        *AUDITING,
    ):
        add(command)
    return parser


def _init(command: Command) -> None:
    sub = command(
        "init", "make a peer: its key, its state folder, its settings; or, with --preset, the spec of a federation"
    )
    settings(sub, "state", "federation", "rpc", "data", "data_dir", "password_file", "host", "port", "endpoint")
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
    settings(sub, *NodeConfig.model_fields)


def _reading(command: Command) -> None:
    for name, summary in (
        ("status", "where the federation and this peer stand"),
        ("log", "the ledger's entries, one line each"),
        ("show", "everything recorded about one update"),
        ("peers", "the members, their sites, rounds and endpoints"),
    ):
        sub = command(name, summary)
        settings(sub, "federation", "state", "rpc")
        if name == "log":
            sub.add_argument(
                "--from", dest="start", type=entry, default=0, metavar="N", help="first entry (default: 0)"
            )
            sub.add_argument(
                "--to", dest="stop", type=entry, default=None, metavar="M", help="entry after the last one"
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
        "--from-index", type=entry, default=None, help="ignore its entries from here (default: from now)"
    )
    for sub in (admit, retire):
        settings(sub, "federation", "state", "rpc", "key", "password_file")


def _model(command: Command) -> None:
    sub = command("model", "get a model: fetch, verify and write its weights")
    settings(sub, "federation", "state", "rpc", "content", "ipfs_api", "key", "password_file")
    identities(sub)
    sub.add_argument("--at", default="final", metavar="UPDATE|latest|final", help="which model (default: final)")
    sub.add_argument("--out", required=True, metavar="FILE", help="safetensors file to write")
    sub.add_argument("--force", action="store_true", help="overwrite FILE")


def _cid(command: Command) -> None:
    sub = command("cid", "the CID that IPFS gives a file (profile unixfs-v1-2025)")
    sub.add_argument("file", metavar="FILE", help="file to hash")


def _gc(command: Command) -> None:
    sub = command("gc", "delete content older than the federation's retention")
    settings(sub, "federation", "state", "rpc", "content", "ipfs_api", "archive")
    sub.add_argument("--dry-run", action="store_true", help="only say what would be deleted")


def _traffic(command: Command) -> None:
    sub = command("traffic", "bytes that this peer sent and received, by counterpart and kind")
    settings(sub, "state")


def _privacy(command: Command) -> None:
    sub = command("privacy", "what this peer has spent of its budget of differential privacy, and what is left")
    settings(sub, "federation", "state", "rpc", "key")
    sub.add_argument(
        "--assume-spent",
        action="store_true",
        help="give the budget up, where the account of it is lost: the peer takes part without training, for good",
    )


def _demo(command: Command) -> None:
    sub = command("demo", "run a whole federation on this machine: chain, contract, peers in processes of their own")
    sub.add_argument(
        "--preset", default=None, metavar="NAME", help=f"who merges what, and how: {', '.join(PRESETS)} (default: none)"
    )
    sub.add_argument("--peers", type=int, default=4, help="number of peers (default: 4)")
    sub.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    sub.add_argument(
        "--interval",
        type=int,
        default=0,
        metavar="SECONDS",
        help="at least so many seconds between two updates of a peer, to watch them come (default: 0)",
    )
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
    sub = command("doctor", "check all that `run` needs: chain, keys, rows, model, content, disk; say how to mend each")
    settings(sub, "federation", "state", "rpc", "key", "password_file", "data", "data_dir", "allow_code")
    settings(sub, "content", "ipfs_api", "host", "port", "endpoint", "tls", "tls_cert", "tls_key", "tls_pinned")
