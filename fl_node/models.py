"""Getting a federation's model: find it on the ledger, fetch its bytes from any peer, verify, hand it over."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fl_node import keys
from fl_node.access import View, viewing
from fl_node.assembly import load_genesis
from fl_node.config import NodeConfig, load_config
from fl_node.content.cid import Cid
from fl_node.content.factory import open_store
from fl_node.content.fetch import Fetcher
from fl_node.content.fetch_task import TRY_AGAIN
from fl_node.content.memory import MemoryStore
from fl_node.content.names import cid_of_update
from fl_node.content.protocol import ContentStore
from fl_node.content.unixfs import Buffer
from fl_node.decoding import Decoder, Opening, most_content_bytes
from fl_node.errors import ContentError, ContentUnavailable, FlNodeError, MalformedWeights, Unreadable, UsageError
from fl_node.key_keeping import GivenKeys, Secrecy
from fl_node.merging import weights
from fl_node.merging.personal import published, shared_schema
from fl_node.merging.weights import Tensors
from fl_node.own_layers import OwnLayers
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import Flag, UpdateRef
from fl_node.retention import past_retention
from fl_node.sealing.identities import read_identities
from fl_node.spec import Spec, check_code
from fl_node.suggest import update_meant
from fl_node.supply import providers

if TYPE_CHECKING:
    import torch

_LATEST = 2**32 - 1
_WITH_KEYS = (
    "name a file of keys that may read it with --identity (`fl-node keys export` writes one), or the state folder of a "
    "member with --state"
)


@dataclass(frozen=True, slots=True)
class Obtained:
    """A verified model: its file, its tensors, and the ledger's entry.

    ``personal``: where the tensors come from that its publisher keeps to itself (``merging.personal``): ``genesis``, or
    ``state``, this peer's own; empty where there are none, and ``data`` is the file as published.
    """

    entry: UpdateEntry
    data: Buffer
    tensors: Tensors
    personal: str = ""


def choose(prefix: Prefix, at: str) -> list[UpdateEntry]:
    """The updates that ``at`` names, the most wanted first: ``3#12`` is one; ``latest`` are the peers' latest updates
    and ``final`` the newest closing one of each, newest entry first.

    Raises:
        UsageError: none such.
    """
    ref = UpdateRef.parse(at)
    if ref is not None:
        try:
            return [prefix.update(ref)]
        except LookupError as cause:
            raise UsageError(f"--at {at}: {cause}; `fl-node log` lists the updates") from cause
    if at not in ("latest", "final"):
        shown = at if len(at) < 100 else f"{at[:20]}..."
        raise UsageError(
            f"--at {shown or repr(at)}: expected an update such as 3#12, latest or final{update_meant(at)}"
        )
    newest = prefix.latest if at == "latest" else partial(_closing, prefix)
    candidates = [entry for facts in prefix.peers() if (entry := newest(facts.number)) is not None]
    if not candidates:
        hint = (
            "no peer has closed yet; --at latest takes a model under way" if at == "final" else "nothing is published"
        )
        raise UsageError(f"--at {at}: {hint}")
    return sorted(candidates, key=lambda entry: -entry.index)


def _closing(prefix: Prefix, peer: int) -> UpdateEntry | None:
    """A peer's newest closing update that counts. It may have gone on since, with more rounds."""
    closing = (entry for entry in reversed(prefix.updates(peer)) if entry.final and prefix.counts(peer, entry.index))
    return next(closing, None)


def obtain_model(
    view: View,
    at: str,
    stores: Sequence[ContentStore] = (),
    state: Path | None = None,
    opener: Opening | None = None,
) -> Obtained:
    """Fetch and verify the first model of those that ``at`` names which somebody has: each from the given stores, then
    from the peers' gateways. Where peers keep tensors to themselves, they are filled in, so that the model is whole.

    Args:
        state: a peer's state folder, whose own personal tensors are used; else those of the genesis.
        opener: keys that open encrypted updates.

    Raises:
        UsageError: no such update.
        Unreadable: encrypted, and no key at hand opens it.
        ContentUnavailable: nobody gives its bytes now.
        ContentMismatch, MalformedWeights: what the publisher put there is not what the ledger names.
    """
    spec, prefix = view.federation.spec, view.prefix
    wanted = choose(prefix, at)
    scratch = MemoryStore()
    with Fetcher(spec.content.allow_networks, timeout_s=spec.content.fetch_timeout_s) as fetcher:
        genesis = load_genesis(view.federation, prefix, scratch, fetcher)
        schema = shared_schema(spec, weights.schema_of(genesis))
        most = most_content_bytes(spec, schema)

        def bytes_of(entry: UpdateEntry) -> Buffer:
            if opener is not None and opener.holds(entry.content):
                return b""
            return stored_or_fetched(entry, prefix, stores, fetcher, most, spec)

        decoder = Decoder(spec, schema, lambda: published(spec, genesis), bytes_of, opener)
        trouble: FlNodeError | None = None
        for entry in wanted:
            try:
                data = bytes_of(entry)
                tensors = decoder.tensors(entry, prefix, data)
                if entry.update.flags & Flag.ENCRYPTED or entry.update.encoding:
                    data = canonical_file(prefix, entry, tensors)
                found = Obtained(entry, data, tensors)
                return _filled(spec, prefix, found, genesis, state) if spec.merging.personal else found
            except (ContentError, MalformedWeights, Unreadable) as cause:
                trouble = trouble if isinstance(trouble, Unreadable) else cause
    if isinstance(trouble, Unreadable):
        raise Unreadable(f"{trouble}; {_WITH_KEYS}") from trouble
    assert trouble is not None  # there is one wanted at least
    raise trouble


def _filled(spec: Spec, prefix: Prefix, found: Obtained, genesis: Tensors, state: Path | None) -> Obtained:
    """The whole model: what was published, with personal tensors of this peer's latest update, or of the genesis."""
    opened = prefix.opened
    layers = OwnLayers(spec, lambda: genesis, state, f"{opened.chain_id}/{opened.ledger}")
    number = layers.newest(_LATEST) if state else 0
    tensors = layers.join(found.tensors, number)
    data = canonical_file(prefix, found.entry, tensors)
    return Obtained(found.entry, data, tensors, "state" if number else "genesis")


def canonical_file(prefix: Prefix, entry: UpdateEntry, tensors: Tensors) -> bytes:
    """The canonical file of an update's weights."""
    opened = prefix.opened
    origin = weights.origin(opened.chain_id, opened.ledger, entry.ref.peer, entry.ref.sequence)
    return b"".join(bytes(buffer) for buffer in weights.encode(tensors, origin))


def stored_or_fetched(
    entry: UpdateEntry,
    prefix: Prefix,
    stores: Sequence[ContentStore],
    fetcher: Fetcher,
    most: int,
    spec: Spec,
) -> Buffer:
    """An update's content, of at most ``most`` bytes: from the first store that has it undamaged, or from any peer.

    Raises:
        ContentUnavailable: nobody gives it now, or any more.
        ContentMismatch: it is larger, or no file that may be read.
    """
    cid = cid_of_update(entry.update)
    data = _kept(stores, cid, most)
    if data is not None:
        return data
    endpoints = providers(prefix, entry.ref, own=0)
    past = past_retention(spec, prefix, entry)
    if not endpoints and past:
        raise ContentUnavailable(f"{entry.ref} ({cid}) {past}")
    if not endpoints:
        raise ContentUnavailable(
            f"no peer has announced where it serves content, so {entry.ref} ({cid}) cannot be fetched; "
            "try again when a peer is up, or name the state folder of one with --state"
        )
    try:
        return fetcher.fetch(cid, most, endpoints)
    except ContentUnavailable as cause:
        if not past:
            raise
        raise ContentUnavailable(f"{entry.ref} {past}; {str(cause).removesuffix(f'. {TRY_AGAIN}')}") from cause


def _kept(stores: Sequence[ContentStore], cid: Cid, most: int) -> Buffer | None:
    """The bytes from the first store that has them undamaged."""
    for store in stores:
        with suppress(ContentError):
            if store.has(cid):
                return store.get(cid, most)
    return None


def load_model(
    federation: str | Path,
    at: str = "final",
    *,
    rpc: str = "",
    state: str | Path = "",
    identity: str | Path = "",
    allow_code: str = "",
) -> torch.nn.Module:
    """A federation's model as a torch module in ``eval`` mode.

    Args:
        federation: the deployed federation file.
        at: ``3#12``, ``latest`` or ``final``: the newest (closing) model that somebody has.
        rpc: JSON-RPC endpoint; empty takes the file's hint.
        state: a peer's state folder to look for the bytes first, and for personal tensors; empty asks the peers'
            gateways only, and takes personal tensors from the genesis. Where updates are encrypted and no ``identity``
            is given, that peer's keys open them, and its password is asked for.
        identity: a file of private age keys that open encrypted updates; empty: none.
        allow_code: ``module:callable`` names, by commas, that the spec may run here.

    Raises:
        SpecError: the spec names code that is not allowed.
        FlNodeError: as :func:`obtain_model`.

    Example::

        from fl_node.models import load_model

        model = load_model("federation.toml")
        logits = model(torch.from_numpy(features))
    """
    from fl_node.learning import models

    config = load_config({"federation": str(federation), "rpc": rpc or None, "state": str(state) or None})
    with viewing(config) as view:
        spec = view.federation.spec
        check_code(spec, allow_code)
        opener = _opener(config, identity, bool(state)) if spec.privacy.encrypt else None
        stores = tuple(own_stores(config) if state else ())
        found = obtain_model(view, at, stores, config.state_path if state else None, opener)
        return models.load_model(spec, found.tensors)


def _opener(config: NodeConfig, identity: str | Path, own: bool) -> Opening | None:
    """The keys of a file, or a peer's own."""
    if identity:
        return GivenKeys(read_identities(Path(identity)))
    if not own or not config.key_path.is_file():
        return None
    signer = keys.unlock(config.key_path, Path(config.password_file) if config.password_file else None)
    return Secrecy.of(config.state_path, signer)


def own_stores(config: NodeConfig) -> list[ContentStore]:
    """The content store of the configured state folder, if there is one."""
    folder = config.state_path / "content"
    if config.content == "embedded" and not folder.is_dir():
        return []
    return [open_store(config.content, folder, config.ipfs_api)]
