"""The flags of the commands around keys: ``keys``, ``share``, ``receive``."""

from __future__ import annotations

from fl_node.cli.flags import Command, actions, peer, settings


def _keys(command: Command) -> None:
    sub = command("keys", "the keys that updates are encrypted to: show, rotate or export this peer's")
    summaries = {
        "show": "every key that this peer announced, and which of them it still has",
        "rotate": "announce a fresh key now, or have the running node do so before it goes on",
        "export": "write this peer's private keys as an age identity file",
    }
    for name, action in actions(sub, summaries):
        settings(action, "federation", "state", "rpc", "key")
        if name != "show":
            settings(action, "password_file")
        if name == "rotate":
            settings(action, "content", "ipfs_api")
        if name == "export":
            action.add_argument("--output", required=True, metavar="FILE", help="new file, of mode 0600")


def _share(command: Command) -> None:
    sub = command("share", "give a member an update that was not encrypted to it: decrypt, and encrypt for its key")
    settings(sub, "federation", "state", "rpc", "key", "password_file", "content", "ipfs_api")
    sub.add_argument("update", metavar="UPDATE|CID", help="an update such as 3#12, or the CID of its content")
    sub.add_argument("--to", type=peer, required=True, metavar="PEER", help="number of the member")
    sub.add_argument("--output", default=None, metavar="FILE", help="age file to write (default: UPDATE-for-PEER.age)")


def _receive(command: Command) -> None:
    sub = command("receive", "take in what a member shared: open it, check it against the ledger, keep it in the vault")
    settings(sub, "federation", "state", "rpc", "key", "password_file", "content", "ipfs_api")
    sub.add_argument("file", metavar="FILE|CID", help="what `fl-node share` wrote, or the CID that it told")


SECRECY = (_keys, _share, _receive)
