"""The spec of a federation: what every peer agrees to, as one immutable file.

The spec is TOML. The SHA-256 of its bytes is in the contract. A *deployed federation file* is exactly those bytes, a
marker line, then a ``[deployment]`` table; ``read_federation`` splits the two and never re-serialises the spec.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from fl_node.causes import in_words
from fl_node.coherence import check_coherence, check_encoding, check_privacy
from fl_node.errors import SpecError
from fl_node.suggest import did_you_mean
from fl_node.tables import (
    AttestationSpec,
    ContentSpec,
    Count,
    EncodingSpec,
    MergingSpec,
    ModelSpec,
    PredecessorSpec,
    PrivacySpec,
    RoundsSpec,
    Table,
    TaskSpec,
    TrainingSpec,
    TrustSpec,
)

MARKER = "# ---- deployment: written by the deployer; not part of the spec ----\n"

#: A federation file has some kilobytes; more is another kind of file, or somebody's trick.
MOST_BYTES = 1 << 20

_MOST_DOTS = 200
_LONGEST_TOLD = 300

T = TypeVar("T", bound=BaseModel)


class Spec(Table):
    """Everything in ``federation.toml``. ``digest`` is SHA-256 of the bytes it was read from."""

    format: Literal[1] = Field(1, description="version of this file's format")
    name: Annotated[str, Field(min_length=1, max_length=100)] = Field("federation", description="name for people")
    task: TaskSpec = Field(default_factory=TaskSpec)
    model: ModelSpec = Field(default_factory=ModelSpec)
    training: TrainingSpec = Field(default_factory=TrainingSpec)
    merging: MergingSpec = Field(default_factory=MergingSpec)
    trust: TrustSpec = Field(default_factory=TrustSpec)
    attestation: AttestationSpec = Field(default_factory=AttestationSpec)
    rounds: RoundsSpec = Field(default_factory=RoundsSpec)
    content: ContentSpec = Field(default_factory=ContentSpec)
    encoding: EncodingSpec = Field(default_factory=EncodingSpec)
    privacy: PrivacySpec = Field(default_factory=PrivacySpec)
    predecessor: PredecessorSpec | None = None


def named_code(spec: Spec) -> tuple[str, ...]:
    """The ``module:callable`` names that a spec has its peers import and call."""
    named = {"model.name": spec.model.name, "training.loop": spec.training.loop, "task.data": spec.task.data}
    return tuple(
        name
        for key, name in named.items()
        if ":" in name and not (key == "task.data" and name.startswith(("csv:", "npz:")))
    )


def check_code(spec: Spec, allowed: str) -> None:
    """Refuse to run what a federation file names unless this peer's operator has agreed to it.

    Args:
        allowed: ``module:callable`` names, separated by commas.

    Raises:
        SpecError: the spec names code that is not among them.
    """
    agreed = {name.strip() for name in allowed.split(",")}
    unknown = [name for name in named_code(spec) if name not in agreed]
    if unknown:
        raise SpecError(
            f"this federation's spec runs code by name: {', '.join(unknown)}; it could do anything that you can. Look "
            f"at it, and if you agree to run it, allow it with --allow-code {','.join(unknown)} or in node.toml"
        )


class Deployment(Table):
    """Where a federation's contract lives."""

    chain_id: Count = Field(description="EIP-155 chain id")
    contract: str = Field(description="address of the ledger contract")
    first_block: Count = Field(description="block of the deployment")
    rpc: str = Field(description="hint: a JSON-RPC endpoint")


@dataclass(frozen=True, slots=True)
class Federation:
    """A parsed federation file: the spec, its digest, and the deployment if there is one."""

    spec: Spec
    spec_bytes: bytes
    deployment: Deployment | None
    path: Path | None = None

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.spec_bytes).digest()


def parse_federation(raw: bytes, where: str = "federation file", path: Path | None = None) -> Federation:
    """Split and validate a federation file.

    Raises:
        SpecError: not UTF-8 or TOML, an unknown key, a value of the wrong type or out of bounds.
    """
    spec_bytes, marker, tail = raw.partition(MARKER.encode())
    spec = validated(Spec, _toml(spec_bytes, where), where)
    deployment = None
    if marker:
        table = _toml(tail, where)
        if set(table) != {"deployment"} or not isinstance(table["deployment"], dict):
            raise SpecError(f"{where}: expected one table [deployment] after the marker line, got {sorted(table)}")
        deployment = validated(Deployment, table["deployment"], f"{where}, [deployment]")
    check_coherence(spec.task, spec.training, spec.merging, spec.attestation, spec.rounds, where)
    check_encoding(spec.encoding, spec.content, where)
    check_privacy(spec.training, spec.merging, spec.attestation, spec.privacy, where)
    return Federation(spec, spec_bytes, deployment, path)


def read_federation(path: Path) -> Federation:
    """Read a federation file from disk; see :func:`parse_federation`."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as cause:
        raise SpecError(f"cannot read the federation file {path}: {cause.strerror}; check the path") from cause
    if len(raw) > MOST_BYTES:
        raise SpecError(f"{path} has more than {MOST_BYTES:,} bytes; expected a federation file; check the path")
    return parse_federation(raw, str(path), path)


def genesis_path(federation_file: Path) -> Path:
    """Where the genesis weights of a federation lie: beside its file."""
    return federation_file.with_name(federation_file.name.removesuffix(".toml") + ".genesis.safetensors")


def deployed_bytes(spec_bytes: bytes, deployment: Deployment) -> bytes:
    """The deployed federation file: the spec's bytes untouched, the marker, the deployment."""
    lines = ["[deployment]"]
    for key, value in deployment.model_dump().items():
        lines.append(f"{key} = {value}" if isinstance(value, int) else f'{key} = "{value}"')
    head = spec_bytes if spec_bytes.endswith(b"\n") else spec_bytes + b"\n"
    if head != spec_bytes:
        raise SpecError("the spec must end with a newline, so that the deployment can follow it unchanged")
    return head + (MARKER + "\n".join(lines) + "\n").encode()


def validated(model: type[T], table: dict[str, Any], where: str) -> T:
    """Validate a TOML table against a model; the message names key, value and what is allowed."""
    try:
        return model.model_validate(_tuples(table))
    except ValidationError as cause:
        raise SpecError("\n".join(_explain(model, error, where) for error in cause.errors())) from cause


def _toml(raw: bytes, where: str) -> dict[str, Any]:
    # A key of n parts costs the parser memory in the order of n squared, and a stranger may have written the file.
    if any(line.count(b".") > _MOST_DOTS for line in raw.split(b"\n")):
        raise SpecError(f"{where} has a line with more than {_MOST_DOTS} dots, which no key or value of a spec needs")
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except ValueError as cause:  # no UTF-8, no TOML, or a number of thousands of digits
        raise SpecError(f"{where} is not valid TOML: {in_words(cause)}") from cause
    except RecursionError as cause:
        raise SpecError(f"{where} is nested too deep; expected tables of plain values") from cause


def _tuples(value: Any) -> Any:
    """TOML arrays as tuples, since strict validation takes no list for a tuple."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return value


def _explain(model: type[BaseModel], error: Any, where: str) -> str:
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        owner: Any = model
        for part in location[:-1]:
            owner = owner.model_fields[part].annotation
        known = sorted(getattr(owner, "model_fields", {}))
        hint = did_you_mean(location[-1], known)
        return f"{where}: unknown key {key} = {_told(error['input'])}{hint} Known here: {', '.join(known)}"
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        allowed = re.findall("'([^']*)'", error["ctx"]["expected"])
        hint = did_you_mean(error["input"], allowed) or ";"
        return f"{where}: {key} = {_told(error['input'])}{hint} expected one of {', '.join(allowed)}"
    return f"{where}: {key} = {_told(error['input'])}: {error['msg'][:1].lower()}{error['msg'][1:]}"


def _told(value: object) -> str:
    """A value as a message tells it: a stranger's may be as long as its file."""
    shown = repr(value)
    return shown if len(shown) <= _LONGEST_TOLD else f"{shown[:_LONGEST_TOLD]}..."
