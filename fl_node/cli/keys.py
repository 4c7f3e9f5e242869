"""``fl-node keys show``, ``rotate`` and ``export``"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from fl_node import keys as account_keys
from fl_node.access import View, deployed, viewing
from fl_node.cli.at_hand import own_secrecy, warn
from fl_node.cli.console import Out
from fl_node.cli.reading import account_of
from fl_node.cli.settings import settings_of
from fl_node.cli.text import safe
from fl_node.config import NodeConfig
from fl_node.content.memory import MemoryStore
from fl_node.errors import ChainUnavailable, FlNodeError, KeyInUse, KeyringError, NotAMember, UsageError
from fl_node.key_keeping import Secrecy, announced_key, overlap, remember_superseded, superseded_rounds, tend
from fl_node.keys import Signer
from fl_node.ledger.protocol import Receipt
from fl_node.ledger.rpc import RpcLedger
from fl_node.lost_keys import lost_key
from fl_node.models import own_stores
from fl_node.pacing import common_round
from fl_node.prefix import Prefix
from fl_node.records import ZERO32, PeerAnnounced
from fl_node.retention import oldest_kept
from fl_node.sealing import keyring
from fl_node.sealing.identities import identity_file
from fl_node.sealing.keyring import KeyRecord, Keyring, kept_keys, read_records, request_rotation, rotation_pending
from fl_node.sealing.keytext import recipient_text
from fl_node.spec import Spec
from fl_node.unwritable import unwritable

_IN_THE_CLEAR: Final = (
    "updates of this federation are not encrypted (privacy.encrypt = false): it needs no keys, and `fl-node model` "
    "gives any update to anybody"
)
_COLUMNS: Final = ("epoch", "key", "entry", "round")


def keys(arguments: argparse.Namespace) -> int:
    """Show, rotate or export the keys that updates are encrypted to."""
    return {"show": _show, "rotate": _rotate, "export": _export}[arguments.action](arguments)


def unlocked(config: NodeConfig) -> Signer:
    """The account whose key the settings name, its password from wherever one is found."""
    return account_keys.unlock(config.key_path, Path(config.password_file) if config.password_file else None)


# ---- show --------------------------------------------------------------------------------------------------------


def _show(arguments: argparse.Namespace) -> int:
    """Public halves only: what the state folder remembers, and what the ledger has of it. Needs no password."""
    config = settings_of(arguments)
    folder = config.state_path / keyring.FOLDER_NAME
    records, here = read_records(folder), kept_keys(folder)
    account = account_of(config)
    spec = deployed(config)[0].spec
    trouble = ""
    try:
        with viewing(config) as view:
            facts = view.prefix.peer_of(account) if account else None
            rows = told(spec, records, here, view.prefix, facts.number if facts else None)
    except ChainUnavailable as error:
        trouble = str(error)
        rows = told(spec, records, here, None, None)
    pending = rotation_pending(folder)
    if arguments.json:
        known = {"account": account, "encrypted": spec.privacy.encrypt, "rotation_requested": pending}
        print(json.dumps({**known, "ledger_error": trouble or None, "keys": rows}, indent=1))
        return 0
    if rows:
        _print(rows)
    if not spec.privacy.encrypt:
        print(_IN_THE_CLEAR)
    elif not rows:
        print("no key yet: `fl-node run` makes and announces the first one, `fl-node keys rotate` does without a node")
    if pending:
        print("a fresh key was asked for, and is still to come: the running node makes it, or the next start does")
    if trouble:
        print(f"the ledger does not answer, so epochs and entries are not known: {safe(trouble)}")
    return 0


def told(
    spec: Spec, records: Sequence[KeyRecord], here: frozenset[bytes], prefix: Prefix | None, number: int | None
) -> list[dict[str, Any]]:
    """Every key of a peer, oldest first: what the ledger has of it, and what became of its private half.

    ``state`` is ``current``, ``overlap`` (a later one was announced; this one still opens what was under way),
    ``unannounced`` (made, and not on the ledger yet), ``destroyed``, or ``missing`` (its private half is not here, and
    was not destroyed).

    Args:
        here: public halves of the keys whose private half is in the state folder.
        prefix: ``None`` where the ledger cannot be read.
        number: ``None`` for somebody who is no member.
    """
    own = {record.public: record for record in records}
    said: dict[bytes, tuple[int, int]] = {}
    superseded: dict[bytes, int] = {}
    kept: int | None = None
    if prefix is not None and number is not None:
        superseded, kept = superseded_rounds(prefix, number), overlap(spec, prefix.peer(number).roles)
        for fact in prefix.announcements(number):
            if isinstance(fact.body, PeerAnnounced) and any(fact.body.recipient_key):
                said.setdefault(fact.body.recipient_key, (fact.body.epoch, fact.index))
    rows = []
    for public in dict.fromkeys((*said, *own, *sorted(here))):
        record = own.get(public)
        epoch, entry = said.get(public, (None, None))
        later = superseded.get(public, record.superseded if record and prefix is None else None)
        destroyed = record.destroyed if record else None
        state = _state(destroyed, later, here=public in here, announced=public in said or prefix is None)
        rows.append(
            {
                "epoch": epoch,
                "key": recipient_text(public),
                "entry": entry,
                "round": record.made_round if record else None,
                "state": state,
                "superseded_round": later,
                "kept_to_round": later + kept
                if state == "overlap" and later is not None and kept is not None
                else None,
                "destroyed_round": destroyed,
            }
        )
    return rows


def _state(destroyed: int | None, later: int | None, *, here: bool, announced: bool) -> str:
    if destroyed is not None:
        return "destroyed"
    if not here:
        return "missing"
    if not announced:
        return "unannounced"
    return "current" if later is None else "overlap"


def _print(rows: Sequence[dict[str, Any]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    for name in (*_COLUMNS, "state"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        state = row["state"]
        if state == "overlap" and row["kept_to_round"] is not None:
            state = f"overlap, to round {row['kept_to_round']}"
        elif state == "destroyed":
            state = f"destroyed in round {row['destroyed_round']}"
        elif state == "missing":
            state = "missing: not in this state folder"
        table.add_row(*("-" if row[name] is None else str(row[name]) for name in _COLUMNS), state)
    console = Out(markup=False)
    # A key that a narrow terminal cuts cannot be copied.
    whole = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console.width = max(console.width, whole)
    console.print(table)


# ---- rotate ------------------------------------------------------------------------------------------------------


def _rotate(arguments: argparse.Namespace) -> int:
    """Announce a fresh key, or ask the running node to."""
    config = settings_of(arguments)
    federation, deployment = deployed(config)
    if not federation.spec.privacy.encrypt:
        raise UsageError(_IN_THE_CLEAR)
    signer = unlocked(config)
    signer.check_chain(deployment.chain_id)
    folder = config.state_path / keyring.FOLDER_NAME
    try:
        ledger = RpcLedger(deployment, federation.digest, signer, config.state_path)
    except KeyInUse:
        request_rotation(folder)
        words = (
            "a node runs with this key: it announces a fresh one once the step under way is done, also while it waits "
            "for others; if it is stopped before, its next start does. Until then `fl-node keys show` says so"
        )
        return _done(arguments, "requested", words)
    try:
        ledger.recover()
        with viewing(config) as view:
            secrecy = own_secrecy(config, signer)
            _tell_lost(view, signer.address, secrecy)
            public, receipt = announce_fresh(ledger, view.prefix, signer.address, secrecy)
            try:
                _destroy_old(config, view, signer.address, secrecy)
            except FlNodeError as error:
                warn(f"keys that are past their time are kept for now: {error}")
    finally:
        ledger.close()
    words = f"announced {recipient_text(public)} (entry {receipt.index}, {receipt.gas_used:,} gas)"
    return _done(arguments, "announced", words, key=recipient_text(public), entry=receipt.index)


def _tell_lost(view: View, account: str, secrecy: Secrecy) -> None:
    facts = view.prefix.peer_of(account)
    if facts is not None:
        lost = lost_key(secrecy, view.prefix, facts.number, oldest_kept(view.federation.spec, view.prefix))
        if lost is not None:
            warn(lost.told())


def _destroy_old(config: NodeConfig, view: View, account: str, secrecy: Secrecy) -> None:
    view.index.sync()
    prefix, spec = Prefix(view.index.entries()), view.federation.spec
    facts = prefix.peer_of(account)
    if facts is None:
        return
    stores = own_stores(config)
    try:
        store = stores[0] if stores else MemoryStore()
        tend(secrecy, spec, prefix, facts.number, store, oldest_round=oldest_kept(spec, prefix))
    finally:
        for store in stores:
            store.close()


def announce_fresh(ledger: RpcLedger, prefix: Prefix, account: str, secrecy: Secrecy) -> tuple[bytes, Receipt]:
    """Announce a new key, or one that was made before and is not on the ledger yet; the rest stays as announced.

    Raises:
        NotAMember: this account is none, or was retired.
    """
    facts = prefix.peer_of(account)
    if facts is None or not facts.active:
        raise NotAMember(
            f"{account} is no active member of this federation, so that nobody would encrypt for its key; ask the "
            f"owner to admit it (`fl-node admit {account} --site SITE`, an auditor with --roles read), or name the "
            "right --state, --key and --federation"
        )
    remember_superseded(secrecy.keys, prefix, facts.number)
    public = secrecy.recipient(common_round(prefix), prefix.size)
    if public == announced_key(prefix, facts.number):
        public = secrecy.keys.make(common_round(prefix), prefix.size).public
    said = facts.announcement
    endpoint, pin = (said.endpoint, said.tls_pin) if said else ("", ZERO32)
    receipt = ledger.announce(ledger.peer(facts.number).epoch + 1, public, pin, endpoint)
    secrecy.keys.rotation_done()
    return public, receipt


def _done(arguments: argparse.Namespace, what: str, words: str, **more: object) -> int:
    print(json.dumps({"done": what, **more}, indent=1) if arguments.json else words)
    return 0


# ---- export ------------------------------------------------------------------------------------------------------


def _export(arguments: argparse.Namespace) -> int:
    """Write the private keys as an age identity file."""
    config = settings_of(arguments)
    out = new_file(arguments.output)
    folder = config.state_path / keyring.FOLDER_NAME
    if not folder.is_dir():
        if _in_the_clear(config):
            raise UsageError(_IN_THE_CLEAR)
        raise UsageError(f"{config.state_path} has no keys yet; `fl-node run` or `fl-node keys rotate` makes the first")
    signer = unlocked(config)
    held = Keyring(folder, signer.derive(keyring.VAULT_INFO))
    made = {record.public: record.made_round for record in held.records}
    own = [(one, f"key of {signer.address}, made in round {made[one.public]}") for one in held.identities()]
    missing = [one for one in held.records if one.destroyed is None and held.find(one.public) is None]
    if not own:
        why = "the private halves are missing of all its keys" if missing else "it has none that was not destroyed"
        raise KeyringError(f"there is no private key in {folder}: {why}; `fl-node keys rotate` makes a fresh one")
    _write_new(out, identity_file(own))
    words = (
        f"{out}: this peer's private keys ({len(own)}), not protected by any password. Whoever has this file can read "
        "every update that was encrypted to them, from any peer and for ever; it signs nothing. Use it with "
        "`age -d -i` or `fl-node audit --identity`, keep it as you keep the keystore, and delete it when it has served"
    )
    for record in missing:
        warn(
            f"{recipient_text(record.public)}, made in round {record.made_round}, is not in {out}: its private half is "
            f"missing in {folder}, and what was encrypted to it alone the file does not open"
        )
    shown = [recipient_text(one.public) for one, _ in own]
    lacking = [recipient_text(record.public) for record in missing]
    return _done(arguments, "exported", words, file=str(out), keys=shown, missing=lacking)


def _in_the_clear(config: NodeConfig) -> bool:
    """Whether it is known that the federation's updates are not encrypted; exporting needs no federation file."""
    try:
        return not deployed(config)[0].spec.privacy.encrypt
    except UsageError:
        return False


def new_file(name: str) -> Path:
    """The file that ``--output`` names.

    Raises:
        UsageError: it is there already, or is no name of a file.
    """
    if name == "-":
        raise UsageError("--output -: expected the name of a new file; keys and shares do not go to standard output")
    if not name.strip():
        raise UsageError(f"--output {name!r}: expected the name of a new file")
    out = Path(name)
    if out.exists():
        raise UsageError(f"{out} exists; expected a new file: name another with --output")
    return out


def _write_new(path: Path, content: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as sink:
                sink.write(content)
                sink.flush()
                os.fsync(sink.fileno())
        except OSError:
            path.unlink(missing_ok=True)  # nobody looks after half a file of keys
            raise
    except OSError as cause:
        raise unwritable(path, cause, "name another file with --output") from cause
