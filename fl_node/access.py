"""Reading a federation without a key and without torch: its file, its ledger, its index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fl_node.config import NodeConfig
from fl_node.errors import ChainUnavailable, InconsistentLog, LedgerError, SpecError, WrongLedger
from fl_node.ledger.abi import address_bytes
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.rpc import RpcReader
from fl_node.ledger.transport import Rpc
from fl_node.prefix import Prefix
from fl_node.spec import Deployment, Federation, read_federation


@dataclass(frozen=True, slots=True)
class View:
    """A federation as its ledger has it now."""

    federation: Federation
    deployment: Deployment
    reader: RpcReader
    index: LedgerIndex
    prefix: Prefix


def deployed(config: NodeConfig) -> tuple[Federation, Deployment]:
    """The federation file with its deployment; the configured RPC endpoint in place of the file's hint.

    Raises:
        SpecError: the file is malformed, or is a bare spec that nobody has deployed.
    """
    federation = read_federation(Path(config.federation))
    if federation.deployment is None:
        raise SpecError(
            f"{config.federation} is a spec without a [deployment]; expected the deployed federation file: get it from "
            "your coordinator, or write it with scripts/deploy_contract.py"
        )
    deployment = federation.deployment
    try:
        address_bytes(deployment.contract)
    except ValueError as cause:
        raise SpecError(
            f"{config.federation}: deployment.contract: {cause}; ask your coordinator for the file"
        ) from cause
    if config.rpc:
        deployment = deployment.model_copy(update={"rpc": config.rpc})
    return federation, deployment


@contextmanager
def viewing(config: NodeConfig) -> Iterator[View]:
    """Follow the ledger to its head and look at it. The index is kept beside the federation file.

    Raises:
        FlNodeError: a bad file, another ledger, no answer from the chain.
    """
    federation, deployment = deployed(config)
    reader = RpcReader(deployment, federation.digest, Rpc(deployment.rpc))
    try:
        with _index(Path(config.federation), reader, federation.spec.rounds.depth) as index:
            index.sync()
            yield View(federation, deployment, reader, index, Prefix(index.entries()))
    finally:
        reader.close()


def _index(file: Path, reader: RpcReader, depth: int) -> LedgerIndex:
    """The index beside the federation file, or in memory where none can be kept there: reading needs no rights."""
    try:
        return LedgerIndex(file.with_name(f"{file.name}.index.sqlite"), reader, depth)
    except (WrongLedger, ChainUnavailable, InconsistentLog):
        raise
    except LedgerError:
        return LedgerIndex(":memory:", reader, depth)
