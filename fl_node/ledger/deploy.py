"""Putting a ledger contract on a chain, and checking that what is there is what was compiled."""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from fl_node.errors import LedgerError, UsageError, WrongLedger
from fl_node.ledger import gas
from fl_node.ledger.abi import address_bytes, checksum_address
from fl_node.ledger.codec import check_length, encode_site
from fl_node.ledger.sender import Patience, Sender, TransactionSigner
from fl_node.ledger.transport import Rpc, RpcError, quantity, raw_bytes
from fl_node.records import Flag, Member
from fl_node.spec import Deployment

NAME: Final = "ModelLedger"
_HEAD: Final = struct.Struct(">32s32s32s31xB28xI12x20s24xQ")
_MEMBER: Final = struct.Struct(">12x20s32s31xB")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled contract: creation code, and the code that it leaves on the chain."""

    bytecode: bytes
    deployed: bytes


@dataclass(frozen=True, slots=True)
class Opening:
    """What a ledger is opened with: the constructor's arguments. Digests are 32 bytes."""

    spec_digest: bytes
    genesis_content: bytes
    genesis_weights: bytes
    genesis_flags: Flag
    min_interval_s: int
    owner: str
    members: Sequence[Member] = ()


@dataclass(frozen=True, slots=True)
class Deployed:
    """A new ledger, the transaction that made it and the gas that it took."""

    deployment: Deployment
    tx_hash: bytes
    gas_used: int


@functools.cache
def committed_artifact() -> Artifact:
    """The artifact that ships with the package."""
    compiled = json.loads((resources.files("fl_node.ledger") / "artifact" / f"{NAME}.json").read_text("utf-8"))
    return Artifact(raw_bytes(compiled["bytecode"]), raw_bytes(compiled["deployedBytecode"]))


def compile_artifact(solc: Path) -> Artifact:
    """Compile the committed compiler input with py-solc-x and this compiler binary.

    Raises:
        UsageError: py-solc-x or the compiler is missing.
        LedgerError: the compiler refuses the source.
    """
    try:
        import solcx
        import solcx.exceptions
    except ImportError as cause:
        raise UsageError("compiling needs py-solc-x; run `pip install 'fl-node[compile]'`") from cause
    if not solc.is_file():
        raise UsageError(
            f"no compiler at {solc}; run `npm install --no-save --prefix hardhat-network`, or leave out --compile"
        )
    source = json.loads((resources.files("fl_node.ledger") / "artifact" / f"{NAME}.input.json").read_text("utf-8"))
    try:
        output: dict[str, Any] = solcx.compile_standard(source, solc_binary=str(solc))
    except (solcx.exceptions.SolcError, OSError) as cause:
        raise LedgerError(f"{solc} does not compile {NAME}: {cause}") from cause
    found = [contracts[NAME] for contracts in output["contracts"].values() if NAME in contracts]
    code = found[0]["evm"]
    return Artifact(bytes.fromhex(code["bytecode"]["object"]), bytes.fromhex(code["deployedBytecode"]["object"]))


def constructor_data(opening: Opening) -> bytes:
    """The constructor's arguments as the ABI has them.

    Raises:
        LedgerError: a value that does not fit its type.
    """
    try:
        check_length(32, opening.spec_digest, opening.genesis_content, opening.genesis_weights)
        head = _HEAD.pack(
            *(opening.spec_digest, opening.genesis_content, opening.genesis_weights, opening.genesis_flags),
            *(opening.min_interval_s, address_bytes(opening.owner), _HEAD.size),
        )
        rows = [_MEMBER.pack(address_bytes(m.account), encode_site(m.site), m.roles) for m in opening.members]
    except (ValueError, struct.error) as cause:
        raise LedgerError(f"cannot open a ledger with these values: {cause}") from cause
    return head + len(rows).to_bytes(32, "big") + b"".join(rows)


def deploy(
    rpc: Rpc,
    signer: TransactionSigner,
    opening: Opening,
    *,
    artifact: Artifact | None = None,
    state: Path | None = None,
    patience: Patience | None = None,
) -> Deployed:
    """Deploy a ledger and check the code that is on the chain afterwards.

    Args:
        artifact: None takes the committed one.
        state: folder for the stored transaction; None keeps it in memory.

    Raises:
        InsufficientFunds, ChainUnavailable, KeyInUse, EntryRejected: as for any write.
        WrongLedger: the code on the chain is not the compiled one.
    """
    built = artifact or committed_artifact()
    number, first_block = _chain(rpc)
    sender = Sender(rpc, signer, number, first_block, state, patience)
    try:
        data = built.bytecode + constructor_data(opening)
        mined = sender.send(None, data, gas.deploy(built.deployed, len(opening.members)), "deploy the ledger")
    finally:
        sender.close()
    if mined.created is None:
        raise LedgerError(f"the receipt of 0x{mined.tx_hash.hex()} names no contract; use another endpoint")
    address = checksum_address(address_bytes(mined.created))
    deployment = Deployment(chain_id=number, contract=address, first_block=mined.block_number, rpc=rpc.url)
    check_code(rpc, deployment.contract, built)
    return Deployed(deployment, mined.tx_hash, mined.gas_used)


def check_code(rpc: Rpc, address: str, artifact: Artifact | None = None) -> None:
    """Compare the code at an address with the compiled one. Nothing in it differs between deployments.

    Raises:
        WrongLedger: they differ.
    """
    got, expected = raw_bytes(rpc.call("eth_getCode", address, "latest")), (artifact or committed_artifact()).deployed
    if got != expected:
        raise WrongLedger(
            f"the {len(got)} bytes of code at {address} are not the {len(expected)} of this version's {NAME}; "
            "take the version that the federation was deployed with, or suspect the endpoint"
        )


def fund(
    rpc: Rpc, signer: TransactionSigner, accounts: Sequence[str], wei: int, patience: Patience | None = None
) -> None:
    """Send each account this much.

    Raises:
        InsufficientFunds, ChainUnavailable, KeyInUse: as for any write.
    """
    sender = Sender(rpc, signer, *_chain(rpc), None, patience)
    try:
        for account in accounts:
            sender.send(account, b"", 21_000, f"fund {account}", wei)
    finally:
        sender.close()


def _chain(rpc: Rpc) -> tuple[int, bytes]:
    """Chain id and hash of block 0."""
    chain_id, first = rpc.batch([("eth_chainId", []), ("eth_getBlockByNumber", ["0x0", False])])
    if isinstance(chain_id, RpcError) or isinstance(first, RpcError) or not first:
        raise LedgerError(f"{rpc.place} tells neither its chain id nor its first block; use another endpoint")
    return quantity(chain_id), raw_bytes(first["hash"])
