"""What a peer has of its own: keys, vault, rows, the model it trains, and the account of its privacy budget. Each is
looked at by the functions with which a peer opens it when it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fl_node import keys
from fl_node.access import View
from fl_node.assembly import account_of, trainer_of
from fl_node.budget import Account, shown
from fl_node.coherence import IN_THE_CLEAR, warnings_of
from fl_node.config import NodeConfig
from fl_node.content.names import cid_of_genesis
from fl_node.content.unixfs import cid_of
from fl_node.doctor.finding import Finding, checked
from fl_node.errors import BudgetSpent, KeyringError, KeystoreError, MalformedWeights, UsageError
from fl_node.key_keeping import Secrecy
from fl_node.merging import weights
from fl_node.merging.weights import Schema
from fl_node.own_trainings import at_hand, ledger_name, own_address
from fl_node.sealing import keyring, vault
from fl_node.sealing.private_files import check_private
from fl_node.spec import Deployment, Federation, genesis_path


def spec_findings(federation: Federation) -> Iterator[Finding]:
    """What the spec says and its writer has perhaps not meant."""
    spec = federation.spec
    for text in warnings_of(spec.encoding, spec.privacy):
        name = "encryption" if text == IN_THE_CLEAR else "keys of the spec"
        yield Finding(
            name, "warning", text, "ask the coordinator whether that is meant; only a new deployment changes it"
        )


def secrecy_findings(config: NodeConfig, federation: Federation) -> Iterator[Finding]:
    """Whether the password opens the key, where it is at hand, and whether what updates are opened with can be read."""
    signer = None
    if _password_at_hand(config) and config.key_path.is_file():
        mend = "name the right password: --password-file, FL_NODE_PASSWORD_FILE or FL_NODE_PASSWORD"
        finding, signer = checked("password", lambda: keys.unlock(config.key_path, _password_file(config)), mend)
        yield finding
    if federation.spec.privacy.encrypt:
        mend = "do as the message says; what is lost without keys and vault: docs/encryption.md"
        yield checked("keys and vault", lambda: _keys(config, signer), mend)[0]


def _keys(config: NodeConfig, signer: keys.Signer | None) -> str:
    private, opened = (config.state_path / name for name in (keyring.FOLDER_NAME, vault.FOLDER_NAME))
    if not private.exists() and not opened.exists():
        return "none yet: a peer makes its first key when it starts"
    for path in (private, *sorted(private.glob("age1*.age")), opened):
        if path.exists():
            check_private(path)
            needed = os.R_OK | os.W_OK | os.X_OK if path.is_dir() else os.R_OK
            if not os.access(path, needed):
                raise KeyringError(f"this user may not read {path}; expected its owner: run as the peer's user")
    known = keyring.read_records(private)
    if signer is None or not private.exists():
        return f"{_many(len(known), 'key')} known, in files of this user alone; a password at hand would open them too"
    secrecy = Secrecy.of(config.state_path, signer)
    opened_keys, kept = len(secrecy.keys.identities()), len(secrecy.vault.contents())
    return f"{_many(opened_keys, 'private key')} open, {_many(kept, 'update')} in the vault"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _password_file(config: NodeConfig) -> Path | None:
    return Path(config.password_file) if config.password_file else None


def _password_at_hand(config: NodeConfig) -> bool:
    """Whether a password is there without asking anybody."""
    named = (keys.ENV_PASSWORD, keys.ENV_PASSWORD_FILE)
    return bool(config.password_file) or any(name in os.environ for name in named)


def training_finding(config: NodeConfig, federation: Federation, view: View | None) -> Finding:
    """Whether the rows are there and of the spec's shape, the model can be made, and, under a mechanism of differential
    privacy, trained on these rows within the budget. Loads the rows, and torch.

    Args:
        view: of the ledger, which names the genesis weights that the model must fit; ``None``: not known.
    """

    def look() -> str:
        account = None if federation.spec.privacy.mechanism == "none" else Account()
        trainer = trainer_of(config, federation, 0, None if view is None else _genesis_schema(view), account)
        splits = trainer.splits
        rows = f"{len(splits.train):,} rows to train on, {len(splits.validation):,} for validation, "
        rows += f"{len(splits.test):,} for tests"
        if trainer.privacy is None:
            return rows
        return f"{rows}; noise {trainer.privacy.noise_multiplier:.4g} times {federation.spec.privacy.clip_norm:g}"

    mend = "own rows are `data` in node.toml, or --data; the model and its training are the spec's: ask the coordinator"
    return checked("rows and model", look, mend)[0]


def _genesis_schema(view: View) -> Schema | None:
    """The tensors of the genesis weights, where they lie beside the federation file."""
    path = genesis_path(view.federation.path) if view.federation.path else None
    try:
        data = path.read_bytes() if path is not None else b""
        if cid_of(data) != cid_of_genesis(view.prefix.opened):
            return None
        return weights.schema_of(weights.decode(data).tensors)
    except (OSError, MalformedWeights):
        return None  # a peer then gets them from another one


def budget_finding(config: NodeConfig, federation: Federation, deployment: Deployment, view: View | None) -> Finding:
    """Whether the account of the privacy budget can be read, and has all that is on record of this peer.

    Args:
        view: of the ledger; without one, what is at hand has to do, and nothing is certain.
    """
    asked, name, title = federation.spec.privacy, ledger_name(deployment), "privacy budget"
    mend = "put the newest copy of privacy.json back, or give the budget up with `fl-node privacy --assume-spent`"
    try:
        account = Account(config.state_path, name)
        if view is None:
            record = at_hand(config, federation, deployment)
            account.check(record.sequences, f"the record at hand ({' and '.join(record.sources)})")
        else:
            facts = view.prefix.peer_of(own_address(config))
            account_of(federation, config.state_path, name, view.prefix, 0 if facts is None else facts.number)
    except (BudgetSpent, UsageError) as error:
        return Finding(title, "failed", str(error), mend)
    except KeystoreError as error:
        return Finding(title, "unknown", str(error), "make one with `fl-node init`")
    spent = f"epsilon {shown(account.told(asked.epsilon))} of {asked.epsilon:g} spent at delta {asked.delta:g}"
    spent += "; it was given up, so all of it counts" if account.assumed_spent else ""
    spent += f", in {_many(len(account.spent), 'training')}"
    if view is None:
        return Finding(title, "unknown", f"{spent}, by {config.state_path} alone", "needs the ledger: mend that first")
    return Finding(title, "ok", f"{spent}; the ledger agrees")
