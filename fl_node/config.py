"""One peer's own settings: what differs between sites and is nobody else's business.

Precedence: command-line flag > environment ``FL_NODE_<KEY>`` > ``node.toml`` in the state folder > default.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from fl_node.errors import SpecError
from fl_node.spec import validated
from fl_node.tables import Table

ENV_PREFIX = "FL_NODE_"
FILE_NAME = "node.toml"
#: Addresses to listen on that nobody can ask.
WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104

Seconds = Annotated[float, Field(gt=0.0, le=86_400.0)]


class NodeConfig(Table):
    """Settings of one peer. Paths are relative to the working directory."""

    federation: str = Field("federation.toml", description="the deployed federation file")
    state: str = Field("federation-state", description="folder of this peer's key, index, content and progress")
    rpc: str = Field("", description="JSON-RPC endpoint; empty takes the federation file's hint")
    key: str = Field("", description="keystore file; empty is key.json in the state folder")
    password_file: str = Field("", description="file that holds the keystore's password, for unattended nodes")
    data: str = Field("", description="own data: npz:FILE, csv:FILE, module:callable; empty is the spec's loader")
    data_dir: str = Field("", description="folder in which the spec's loader finds its files")
    host: str = Field("127.0.0.1", description="address that the content gateway listens on")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(0, description="gateway port; 0 takes a free one")
    endpoint: str = Field("", description="URL at which others reach the gateway; empty is http://host:port")
    tls: Literal["auto", "off", "generated", "files"] = Field(
        "auto", description="TLS of the gateway: auto, off, generated (a certificate of its own, pinned), files"
    )
    tls_cert: str = Field("", description="certificate chain of the gateway, PEM, for tls = files")
    tls_key: str = Field("", description="its private key, PEM, mode 0600")
    tls_pinned: bool = Field(False, description="announce the pin of tls_cert's key, which no public authority signed")
    rate_requests: Annotated[float, Field(ge=0.0, le=1e9)] = Field(
        100.0, description="requests a second that one remote address may send to the gateway; 0: any"
    )
    rate_bytes: Annotated[int, Field(ge=0, le=2**50)] = Field(
        50 << 20, description="bytes a second that one remote address may take from the gateway; 0: any"
    )
    rate_exempt: str = Field(
        "127.0.0.0/8,::1/128", description="networks without limits, by commas, besides content.allow_networks"
    )
    content: Literal["embedded", "kubo"] = Field("embedded", description="content store")
    ipfs_api: str = Field("/ip4/127.0.0.1/tcp/5001", description="multiaddr of the Kubo RPC, for content = kubo")
    archive: bool = Field(False, description="keep everything for ever")
    device: str = Field("auto", description="torch device: auto, cpu, cuda, cuda:0, ...")
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(0, description="torch threads; 0 leaves torch's choice")
    allow_code: str = Field("", description="module:callable names, by commas, that the spec may run here")
    rounds: Annotated[int, Field(ge=0, le=2**31)] = Field(0, description="go on to this round; 0 is the spec's plan")
    checkpoint_every: Annotated[int, Field(ge=0, le=2**31)] = Field(
        16, description="entries between two checkpoints of the log that this peer signs; 0 signs none"
    )
    poll_s: Seconds = Field(1.0, description="seconds between looks at the chain")
    retry_s: Seconds = Field(600.0, description="seconds to go on trying an unreachable chain")

    @property
    def state_path(self) -> Path:
        return Path(self.state)

    @property
    def key_path(self) -> Path:
        return Path(self.key) if self.key else self.state_path / "key.json"


def load_config(flags: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> NodeConfig:
    """Merge flags, environment and ``node.toml``. A flag that is ``None`` was not given.

    Raises:
        SpecError: a bad value or unknown key; names where it came from, the key, the value and what is allowed.
    """
    environment = os.environ if environment is None else environment
    given = {key: value for key, value in flags.items() if value is not None}
    from_environment = {
        key: _from_text(key, environment[ENV_PREFIX + key.upper()])
        for key in NodeConfig.model_fields
        if ENV_PREFIX + key.upper() in environment
    }
    state = Path(given.get("state") or from_environment.get("state") or NodeConfig.model_fields["state"].default)
    merged = {**_from_file(state / FILE_NAME), **from_environment, **given}
    return validated(NodeConfig, merged, "node configuration")


def write_config(path: Path, values: Mapping[str, Any]) -> None:
    """Write a ``node.toml`` with the given keys, each checked first."""
    validated(NodeConfig, dict(values), str(path))
    lines = [f"# {NodeConfig.model_fields[key].description}\n{key} = {_toml(value)}\n" for key, value in values.items()]
    path.write_text("\n".join(lines))


def _from_file(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as cause:
        raise SpecError(f"{path} cannot be read as TOML: {cause}") from cause
    table.pop("state", None)
    return validated(NodeConfig, table, str(path)).model_dump(exclude_unset=True)


def _from_text(key: str, text: str) -> Any:
    """An environment variable as the type of its key: lax, since the environment has only strings."""
    field = NodeConfig.model_fields[key]
    try:
        annotation: Any = Annotated[field.annotation, field]
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        return adapter.validate_python(text, strict=False)
    except ValidationError as cause:
        message = cause.errors()[0]["msg"]
        raise SpecError(f"environment variable {ENV_PREFIX}{key.upper()} = {text!r}: {message}") from cause


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
