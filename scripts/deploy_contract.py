#!/usr/bin/env python3
"""Deploy the ledger contract of a federation and write the deployed federation file that every peer gets.

    python scripts/deploy_contract.py --rpc http://127.0.0.1:8545 --spec federation.toml \\
        --member 0xADDRESS:hospital-a --member 0xADDRESS:hospital-b

Prints address, gas and block. The RPC URL is written into the file as a hint: give one without secrets in it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

from fl_node.chains import FUNDERS, chain_tools
from fl_node.coherence import warnings_of
from fl_node.deployment import (
    Opened,
    check_policies,
    check_training,
    open_federation,
    parse_member,
    read_genesis,
    refuse_overwrite,
    write_genesis,
)
from fl_node.errors import FlNodeError, UsageError
from fl_node.keys import DEV_CHAINS, Signer, from_private_key, unlock
from fl_node.ledger.deploy import compile_artifact
from fl_node.ledger.transport import Rpc, quantity
from fl_node.spec import genesis_path, read_federation

#: So many are thought through before a deployment.
MOST_PEERS = 4096


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        opened = run(options)
    except FlNodeError as error:
        print(f"deploy_contract: {error}", file=sys.stderr)
        return error.exit_code
    warn(opened.warnings)
    show(opened, options.json)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--rpc", required=True, metavar="URL", help="JSON-RPC endpoint; goes into the file as a hint")
    made.add_argument("--spec", required=True, type=Path, metavar="FILE", help="the federation's spec, federation.toml")
    made.add_argument(
        "--key", type=Path, metavar="FILE", help="keystore that pays; default on a development chain: its first account"
    )
    made.add_argument("--password-file", type=Path, metavar="FILE", help="file with the keystore's password")
    made.add_argument(
        "--compile", action="store_true", help="compile with py-solc-x instead of taking the committed artifact"
    )
    made.add_argument("--owner", metavar="ADDRESS", help="who may admit and retire; default: the paying key")
    made.add_argument(
        "--member", action="append", default=[], metavar="ADDRESS[:SITE]", help="admit from the first block; repeat"
    )
    made.add_argument(
        "--peers", type=int, default=0, metavar="N", help="how many peers there will be; default: as many as --member"
    )
    made.add_argument("--fund", default="0", metavar="ETH", help="send this much to every member")
    made.add_argument("--force", action="store_true", help="overwrite the deployed file")
    made.add_argument(
        "--out", type=Path, metavar="FILE", help="deployed file to write; default: SPEC with .deployed.toml"
    )
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def run(options: argparse.Namespace) -> Opened:
    """Deploy as the options say."""
    federation = read_federation(options.spec)
    default = options.spec if federation.deployment else options.spec.with_suffix(".deployed.toml")
    out = options.out or default
    refuse_overwrite(out, options.force)
    members = [parse_member(text) for text in options.member]
    fund_wei = wei(options.fund)
    if options.peers and not len(members) <= options.peers <= MOST_PEERS:
        raise UsageError(
            f"--peers {options.peers}: expected from the {len(members)} given with --member to {MOST_PEERS}"
        )
    # Before anything is written or paid for.
    check_policies(federation.spec, members, options.peers)
    not_checked = check_training(federation.spec)
    warn((*warnings_of(federation.spec.encoding, federation.spec.privacy), *not_checked))
    rpc = Rpc(options.rpc)
    signer = payer(options, rpc)
    artifact = compile_artifact(chain_tools() / "solc") if options.compile else None
    path = genesis_path(out)
    # An existing file is kept: a colleague may have made it, and torch's initialisation differs between versions.
    kept = path.exists() and not options.force
    genesis = read_genesis(path, federation.spec) if kept else write_genesis(federation.spec, path)
    return open_federation(
        federation,
        rpc,
        signer,
        genesis,
        members=members,
        owner=options.owner,
        out=out,
        force=options.force,
        artifact=artifact,
        fund_wei=fund_wei,
        peers=options.peers,
    )


def warn(warnings: Sequence[str]) -> None:
    """What the coordinator should know, to stderr."""
    for warning in warnings:
        print(f"deploy_contract: warning: {warning}", file=sys.stderr)


def payer(options: argparse.Namespace, rpc: Rpc) -> Signer:
    """The key that pays."""
    if options.key is not None:
        return unlock(options.key, options.password_file)
    chain_id = quantity(rpc.call("eth_chainId"))
    if chain_id not in DEV_CHAINS:
        raise UsageError(f"chain {chain_id} is no development chain; expected --key FILE; make one with `fl-node init`")
    return from_private_key(FUNDERS[0][1])


def wei(ether: str) -> int:
    """An amount of ether as wei."""
    try:
        amount = Decimal(ether)
        if not (amount.is_finite() and amount >= 0):
            raise InvalidOperation
    except InvalidOperation:
        raise UsageError(f"--fund {ether}: expected an amount of ether such as 0.5") from None
    return int(amount * 10**18)


def show(opened: Opened, as_json: bool) -> None:
    """Data to stdout."""
    deployment = opened.federation.deployment
    assert deployment is not None
    facts = {
        "address": deployment.contract,
        "gas": opened.gas_used,
        "block": deployment.first_block,
        "chain_id": deployment.chain_id,
        "transaction": f"0x{opened.tx_hash.hex()}",
        "federation_file": str(opened.file),
        "genesis_file": str(opened.genesis.path),
        "spec_digest": opened.federation.digest.hex(),
    }
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):<16} {value}")


if __name__ == "__main__":
    sys.exit(main())
