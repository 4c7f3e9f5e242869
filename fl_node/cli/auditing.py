"""Commands that check and look at a federation: audit, checkpoints, packs, lineage, monitor, explorer."""

from __future__ import annotations

import argparse

from fl_node.cli.flags import Command, actions, blocks, entry, identities, peer, round_number, settings


def _ledger_source(sub: argparse.ArgumentParser) -> None:
    """Where an auditor reads: a federation file, or no more than an endpoint and an address."""
    settings(sub, "federation", "rpc")
    sub.add_argument("--contract", default=None, metavar="ADDRESS", help="the ledger, instead of a federation file")
    sub.add_argument(
        "--content",
        dest="sources",
        action="append",
        default=[],
        metavar="URL|FOLDER",
        help="where bytes may be had besides the peers: a gateway, or a peer's content folder; may be repeated",
    )
    sub.add_argument("--depth", type=blocks, default=None, metavar="D", help="blocks on top (default: the spec's)")


def _keys(sub: argparse.ArgumentParser, what: str = "to read encrypted updates with") -> None:
    """Keys that open encrypted updates: files of them, or a peer's own."""
    identities(sub, what)
    settings(sub, "state", "key", "password_file")


def _checking(sub: argparse.ArgumentParser) -> None:
    """What to check, and what the exit code says of it."""
    from fl_node.audit.verdicts import CHECKS, FAIL_ON

    sub.add_argument("--from", dest="start", type=entry, default=0, metavar="N", help="first entry (default: 0)")
    sub.add_argument("--to", dest="stop", type=entry, default=None, metavar="M", help="entry after the last one")
    sub.add_argument("--peer", type=peer, default=None, metavar="P", help="updates of this peer only")
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
    _keys(sub)
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
    summaries = {
        "sign": "sign the log as it is now, unless it contradicts what was signed before",
        "verify": "hold checkpoints against each other and the log; say who signed them",
        "list": "what this peer signed, what it has of others, and what contradicts what",
    }
    for name, action in actions(sub, summaries):
        if name == "list":
            settings(action, "state")
            continue
        settings(action, "federation", "state", "rpc")
        if name == "sign":
            settings(action, "key", "password_file")
            action.add_argument("--out", default=None, metavar="FILE", help="file to write (default: standard output)")
        else:
            action.add_argument("files", nargs="+", metavar="FILE", help="checkpoints, or a proof of equivocation")
            action.add_argument("--offline", action="store_true", help="signatures and each other only: no chain")


def _monitor(command: Command) -> None:
    sub = command("monitor", "watch a federation: foreign entries, reorgs, silence, lost content, bad merges")
    _ledger_source(sub)
    settings(sub, "state")
    identities(sub)
    sub.add_argument("--account", default=None, metavar="ADDRESS", help="whose entries to know (default: the state's)")
    sub.add_argument("--every", type=float, default=30.0, metavar="S", help="seconds between looks (default: 30)")
    sub.add_argument("--silent-s", type=float, default=3600.0, metavar="S", help="silence that is told (default: 3600)")
    sub.add_argument("--once", action="store_true", help="look once; exit code 42 if there is an alarm")


def _export(command: Command) -> None:
    sub = command("export", "write an evidence pack: everything that it takes to check updates without a chain")
    _ledger_source(sub)
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--update", default=None, metavar="UPDATE", help="one update, such as 3#12, with its parents")
    what.add_argument("--round", type=round_number, default=None, metavar="R", help="all updates of a round")
    what.add_argument("--all", action="store_true", help="all updates")
    sub.add_argument("--out", required=True, metavar="FILE", help="zip file to write")
    sub.add_argument(
        "--blobs",
        action="store_true",
        help="with the weights as they were published, so that who can read them can check merges",
    )
    _keys(sub, "to put weights into the pack IN THE CLEAR: whoever gets the pack can read them")
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
    identities(sub)
    _checking(sub)
    sub.add_argument("--completeness", action="store_true", help="also who was expected and missing, by round")


def _lineage(command: Command) -> None:
    sub = command("lineage", "what an update came from, and what came of it, with effective shares")
    sub.add_argument("update", nargs="?", metavar="UPDATE", help="an update such as 3#12, or the CID of its content")
    settings(sub, "federation", "state", "rpc")
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
    settings(sub, "rpc")
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


#: What adds each command to the command line, in the order of the help.
AUDITING = (_audit, _checkpoint, _monitor, _export, _verify, _lineage, _ui)
