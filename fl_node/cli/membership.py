"""``fl-node admit`` and ``retire``"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fl_node import keys
from fl_node.access import deployed
from fl_node.cli.settings import settings_of
from fl_node.errors import StoreFull, UsageError
from fl_node.ledger.abi import address_bytes, checksum_address
from fl_node.ledger.codec import encode_site
from fl_node.ledger.protocol import Receipt
from fl_node.ledger.rpc import RpcLedger
from fl_node.records import Role

_ROLES = {"publish": Role.PUBLISH, "attest": Role.ATTEST, "read": Role.READ}


def admit(arguments: argparse.Namespace) -> int:
    """Admit a peer; the ledger's owner does."""
    account, roles = _account(arguments.account), _roles(arguments.roles)
    try:
        encode_site(arguments.site)
    except ValueError as cause:
        raise UsageError(f"--site {arguments.site}: {cause}") from cause
    with _writing(arguments) as ledger:
        receipt = ledger.admit(account, arguments.site, roles)
        number = ledger.peer_of(account)
    return _told(arguments, receipt, f"{account} is peer {number.number if number else '?'} of site {arguments.site}")


def retire(arguments: argparse.Namespace) -> int:
    """Retire a peer; the owner does, or the peer itself."""
    account = _account(arguments.account)
    with _writing(arguments) as ledger:
        start = ledger.head().size if arguments.from_index is None else arguments.from_index
        receipt = ledger.retire(account, arguments.reason, start)
    return _told(arguments, receipt, f"{account} is retired; its entries from {start} on do not count")


@contextmanager
def _writing(arguments: argparse.Namespace) -> Iterator[RpcLedger]:
    config = settings_of(arguments)
    federation, deployment = deployed(config)
    signer = keys.unlock(config.key_path, Path(config.password_file) if config.password_file else None)
    signer.check_chain(deployment.chain_id)
    try:
        config.state_path.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise StoreFull(
            f"cannot make the state folder {config.state_path}: {cause.strerror}; name another with --state"
        ) from cause
    ledger = RpcLedger(deployment, federation.digest, signer, config.state_path)
    try:
        ledger.recover()
        yield ledger
    finally:
        ledger.close()


def _account(text: str) -> str:
    try:
        return checksum_address(address_bytes(text))
    except ValueError as cause:
        raise UsageError(f"{text!r} is no address: {cause}") from cause


def _roles(text: str) -> Role:
    roles = Role(0)
    for name in text.split(","):
        if name.strip() not in _ROLES:
            raise UsageError(f"--roles {text}: unknown role {name.strip()!r}; expected some of {', '.join(_ROLES)}")
        roles |= _ROLES[name.strip()]
    return roles


def _told(arguments: argparse.Namespace, receipt: Receipt, words: str) -> int:
    if arguments.json:
        print(json.dumps({"entry": receipt.index, "tx": "0x" + receipt.tx_hash.hex(), "gas": receipt.gas_used}))
    else:
        print(f"{words} (entry {receipt.index}, {receipt.gas_used:,} gas)")
    return 0
