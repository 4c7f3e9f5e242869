"""Opening a federation: genesis weights, the contract, the deployed federation file. One function does it all.

``scripts/deploy_contract.py``, the demo and tests call :func:`open_federation`; only writing new genesis weights needs
torch.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fl_node.content import unixfs
from fl_node.errors import SpecError, UsageError
from fl_node.keys import Signer
from fl_node.ledger.abi import address_bytes, checksum_address
from fl_node.ledger.codec import encode_site
from fl_node.ledger.deploy import Artifact, Opening, deploy, fund
from fl_node.ledger.transport import Rpc, without_credentials
from fl_node.merging import weights
from fl_node.merging.fit import check_fit
from fl_node.records import Flag, Member, Role
from fl_node.spec import Deployment, Federation, Spec, deployed_bytes, parse_federation

MAX_GENESIS_MEMBERS: Final = 256
_NOWHERE: Final = Deployment(chain_id=0, contract="0x", first_block=0, rpc="http://x")


@dataclass(frozen=True, slots=True)
class Genesis:
    """A file of initial weights and what the contract holds of it."""

    path: Path
    content: bytes
    weights: bytes
    flags: Flag


@dataclass(frozen=True, slots=True)
class Opened:
    """A federation that is on a chain. ``file`` is None if none was asked for.

    ``warnings`` are those of :func:`check_policies`.
    """

    federation: Federation
    genesis: Genesis
    gas_used: int
    tx_hash: bytes
    file: Path | None
    warnings: tuple[str, ...] = ()


def write_genesis(spec: Spec, path: Path) -> Genesis:
    """Initialise the spec's model (this needs torch) and write its weights.

    Raises:
        SpecError, MalformedWeights: a model that cannot be published.
        UsageError: the file cannot be written.
    """
    from fl_node.learning.models import genesis

    tensors = genesis(spec)
    buffers = weights.encode(tensors)
    cid = unixfs.cid_of(buffers)
    write_whole(path, b"".join(buffers))
    return Genesis(path, cid.digest, weights.digest(tensors), _flags(cid.codec))


def read_genesis(path: Path, spec: Spec | None = None) -> Genesis:
    """The digests of an existing genesis file. With a spec, it is checked for being of its model (needs torch).

    Raises:
        UsageError: no such file.
        MalformedWeights: not a weights file, or of another model.
    """
    expected = None
    if spec is not None:
        from fl_node.learning.models import genesis

        expected = weights.schema_of(genesis(spec))
    try:
        data = path.read_bytes()
    except OSError as cause:
        raise UsageError(f"cannot read the genesis weights {path}: {cause.strerror}") from cause
    cid = unixfs.cid_of(data)
    return Genesis(path, cid.digest, weights.digest(weights.decode(data, expected).tensors), _flags(cid.codec))


def parse_member(text: str) -> Member:
    """A genesis member from ``ADDRESS`` or ``ADDRESS:SITE``; without a site it is its own, named by its address.

    Raises:
        UsageError: no address, or a site that does not fit.
    """
    account, _, site = text.partition(":")
    try:
        address = checksum_address(address_bytes(account))
        encode_site(site)
    except ValueError as cause:
        raise UsageError(f"--member {text}: {cause}; expected ADDRESS[:SITE]") from cause
    return Member(address, site or address[:10], Role.ALL)


def open_federation(
    federation: Federation,
    rpc: Rpc,
    signer: Signer,
    genesis: Genesis,
    *,
    members: Sequence[Member] = (),
    owner: str | None = None,
    out: Path | None = None,
    force: bool = False,
    artifact: Artifact | None = None,
    fund_wei: int = 0,
    peers: int = 0,
) -> Opened:
    """Deploy the ledger of a spec and write the deployed federation file.

    Args:
        signer: pays for the deployment, and funds.
        owner: who may admit and retire; None is the signer.
        out: the file to write; None writes none.
        force: overwrite ``out``.
        artifact: None is the committed one.
        fund_wei: sent to every member, after the deployment.
        peers: how many there will be, once those are admitted that are not among ``members``; 0: nobody else.

    Raises:
        SpecError: policies that do not fit the peers (:func:`check_policies`).
        UsageError: ``out`` exists, or more members than the constructor takes.
        LedgerError: whatever :func:`fl_node.ledger.deploy.deploy` raises.
    """
    if out is not None:
        refuse_overwrite(out, force)
    if len(members) > MAX_GENESIS_MEMBERS:
        raise UsageError(
            f"got {len(members)} members; expected at most {MAX_GENESIS_MEMBERS} at deployment: "
            "admit the others afterwards with `fl-node admit`"
        )
    warnings = check_policies(federation.spec, members, peers)
    opening = Opening(
        spec_digest=federation.digest,
        genesis_content=genesis.content,
        genesis_weights=genesis.weights,
        genesis_flags=genesis.flags,
        min_interval_s=federation.spec.rounds.min_interval_s,
        owner=owner or signer.address,
        members=members,
    )
    # A spec that no file can follow is found out before anything is paid for.
    deployed_bytes(federation.spec_bytes, _NOWHERE)
    made = deploy(rpc, signer, opening, artifact=artifact)
    hint = made.deployment.model_copy(update={"rpc": without_credentials(made.deployment.rpc)})
    raw = deployed_bytes(federation.spec_bytes, hint)
    if out is not None:
        write_whole(out, raw)
    if fund_wei:
        fund(rpc, signer, [member.account for member in members], fund_wei)
    return Opened(
        parse_federation(raw, str(out or "federation"), out), genesis, made.gas_used, made.tx_hash, out, warnings
    )


def check_policies(spec: Spec, members: Sequence[Member], peers: int = 0) -> tuple[str, ...]:
    """Whether selection and aggregation fit the members that a federation is opened with, and those to come.

    Args:
        peers: how many there will be in all; 0: as many as ``members``.

    Returns:
        Warnings: what works, but hardly as meant. Without any peer nothing can be said.

    Raises:
        SpecError: what cannot work with them.
    """
    publishing = [number for number, member in enumerate(members, 1) if member.roles & Role.PUBLISH]
    publishing += range(len(members) + 1, peers + 1)
    if not publishing:
        return ()
    try:
        return check_fit(spec, publishing)
    except SpecError as error:
        raise SpecError(
            f"{error}. This was checked for {len(publishing)} peers: if there will be more than those named at "
            "deployment, say how many with --peers N, and admit the others afterwards"
        ) from error


def check_training(spec: Spec) -> tuple[str, ...]:
    """Whether the spec's model can be trained as its privacy mechanism asks, as far as that can be told without rows.

    Returns:
        Warnings: that it could not be looked at.

    Raises:
        SpecError: each peer would refuse to start.
    """
    if spec.privacy.mechanism != "example":
        return ()
    from fl_node.learning.example_sums import check_module
    from fl_node.learning.models import build

    module = build(spec)
    try:
        check_module(spec, module)
    except SpecError:
        raise
    except UsageError as error:
        return (f"whether the model can be trained under the mechanism was not checked: {error}",)
    return ()


def refuse_overwrite(path: Path, force: bool) -> None:
    """Raise UsageError if the file exists and ``force`` is not given."""
    if path.exists() and not force:
        raise UsageError(
            f"{path} exists; expected a new file: the federation that it names would be lost; "
            "name another with --out, or overwrite it with --force"
        )


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and have it on the disk.

    Raises:
        UsageError: it cannot be written.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with scratch.open("wb") as sink:
                sink.write(data)
                sink.flush()
                os.fsync(sink.fileno())
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as cause:
        raise UsageError(f"cannot write {path}: {cause.strerror}") from cause


def _flags(codec: str) -> Flag:
    return Flag.DAG_PB if codec == "dag-pb" else Flag(0)
