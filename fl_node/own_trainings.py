"""What is on record of a peer's own trainings, besides its account: what a lost or old account is found out by."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fl_node.access import viewing
from fl_node.assembly import INDEX_NAME
from fl_node.config import NodeConfig
from fl_node.errors import FlNodeError, KeystoreError, LedgerError
from fl_node.journal import Journal
from fl_node.ledger.abi import address_bytes, checksum_address
from fl_node.ledger.index import LedgerIndex
from fl_node.prefix import Prefix
from fl_node.spec import Deployment, Federation
from fl_node.training_step import trainings_drafted, trainings_of


@dataclass(frozen=True, slots=True)
class OwnTrainings:
    """Sequences of own updates of rounds that train. ``sources``: what was asked, in words; without any, that there
    are no ``sequences`` says nothing."""

    sequences: frozenset[int]
    sources: tuple[str, ...]


def ledger_name(deployment: Deployment) -> str:
    """A ledger as the files of a state folder name it."""
    return f"{deployment.chain_id}/{checksum_address(address_bytes(deployment.contract))}"


def own_address(config: NodeConfig) -> str:
    """The address of the keystore, which needs no password.

    Raises:
        KeystoreError: there is none.
    """
    try:
        told = str(json.loads(config.key_path.read_text())["address"]).removeprefix("0x")
        return checksum_address(address_bytes("0x" + told))
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise KeystoreError(f"no keystore at {config.key_path}: {cause}; make one with `fl-node init`") from cause


def at_hand(config: NodeConfig, federation: Federation, deployment: Deployment) -> OwnTrainings:
    """What the state folder and the index beside the federation file have. Needs no chain."""
    found: set[int] = set()
    sources = []
    with suppress(FlNodeError):
        address = own_address(config)
        for prefix in _indices(config, ledger_name(deployment)):
            facts = prefix.peer_of(address)
            found |= set(trainings_of(federation.spec, prefix, facts.number)) if facts is not None else set()
            sources = ["the index of the ledger"]
    with suppress(FlNodeError):
        drafted = trainings_drafted(federation.spec, Journal(config.state_path, ledger_name(deployment)))
        found |= set(drafted)
        sources += ["the journal"] if drafted else []
    return OwnTrainings(frozenset(found), tuple(sources))


def on_the_ledger(config: NodeConfig) -> OwnTrainings:
    """What the ledger has now.

    Raises:
        KeystoreError: there is no key, so that nobody knows which peer this is.
        LedgerError: the chain does not answer, or is another one.
    """
    address = own_address(config)
    with viewing(config) as view:
        facts = view.prefix.peer_of(address)
        own = () if facts is None else trainings_of(view.federation.spec, view.prefix, facts.number)
    return OwnTrainings(frozenset(own), ("the ledger",))


def _indices(config: NodeConfig, ledger: str) -> Iterator[Prefix]:
    """The log as of the last look of this peer, and of whoever read with this federation file."""
    file = Path(config.federation)
    for path in (config.state_path / INDEX_NAME, file.with_name(f"{file.name}.index.sqlite")):
        with suppress(LedgerError, LookupError, ValueError, sqlite3.Error):
            with LedgerIndex(path) as index:
                prefix = Prefix(index.entries())
            if f"{prefix.opened.chain_id}/{prefix.opened.ledger}" == ledger:
                yield prefix
