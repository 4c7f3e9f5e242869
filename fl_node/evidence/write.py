"""Writing a pack: what an audit has means to look at, put into one file that needs none of them."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from fl_node.audit.means import Means, Progress
from fl_node.content import car
from fl_node.content.cid import Cid
from fl_node.content.names import cid_of_genesis
from fl_node.content.protocol import Held
from fl_node.content.unixfs import CHUNK_BYTES, Buffer, build
from fl_node.decoding import most_payload_bytes
from fl_node.errors import (
    ChainUnavailable,
    ContentError,
    ContentUnavailable,
    LedgerError,
    MalformedEvidence,
    MalformedWeights,
    SpecError,
    Unreadable,
    UsageError,
)
from fl_node.evidence import layout, limits, lines
from fl_node.evidence.container import Packer
from fl_node.evidence.derived import lineage_bytes
from fl_node.evidence.in_clear import encrypted, in_clear
from fl_node.evidence.layout import Listed, Manifest, Scope
from fl_node.evidence.proofs import Tree, sizes_to_prove
from fl_node.evidence.readme import readme
from fl_node.evidence.scope import Chosen, choose, report_cids, weights_cids
from fl_node.ledger import tree
from fl_node.ledger.protocol import RawLog
from fl_node.ledger.transport import place_of
from fl_node.merging import weights
from fl_node.records import UpdateRef
from fl_node.sealing import age
from fl_node.spec import Deployment, deployed_bytes, parse_federation
from fl_node.unwritable import unwritable

T = TypeVar("T")
#: Of weights whose model is not known, for want of the genesis.
_UNSIZED_BYTES: Final = 1 << 30
_TRANSACTIONS_AT_ONCE: Final = 500
_TOLD_EVERY: Final = 50
#: What stands around a transaction's bytes in its line.
_LINE_FRAME: Final = 100


@dataclass(frozen=True, slots=True)
class Exported:
    """A pack that was written.

    Attributes:
        digest: SHA-256 of its manifest, which names all that is in it.
        updates: how many updates it is about.
        blobs: how many files of weights it holds, as they were published.
        plain: how many updates' weights it holds in the clear that are encrypted.
        missing: what could not be had and so is not in it, in words.
    """

    path: Path
    digest: bytes
    size: int
    files: int
    entries: int
    updates: int
    blobs: int
    plain: int
    missing: tuple[str, ...]


def export(
    means: Means,
    scope: Scope,
    out: Path,
    *,
    blobs: bool = False,
    plain: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Write a pack. Equal means give equal bytes.

    Args:
        blobs: with weights, as they were published; without, bases cannot be recomputed from the pack alone.
        plain: with the weights of encrypted updates IN THE CLEAR, as far as ``means.opener`` opens them. Whoever has
            the pack can read them.
        force: overwrite ``out``.

    Raises:
        UsageError: ``out`` exists or cannot be written, or the scope names nothing.
        StoreFull: no room for it.
        ContentUnavailable: weights were asked for and none at all could be had.
        Unreadable: weights in the clear were asked for and no key opens any.
        MalformedEvidence: more than a pack may hold.
    """
    check_free(out, force)
    chosen = choose(means, scope)
    if len(means.entries) > limits.MOST_ENTRIES:
        raise MalformedEvidence(f"the log has {len(means.entries)} entries, a pack {limits.MOST_ENTRIES} at most")
    writer = _Writer(means, scope, chosen, blobs, plain, progress or (lambda phase, done, total: None))
    with _whole(out) as sink:
        manifest = writer.write(Packer(sink))
        size = sink.seek(0, os.SEEK_END)
    return Exported(
        path=out,
        digest=hashlib.sha256(manifest.encode()).digest(),
        size=size,
        files=len(manifest.files) + 2,
        entries=len(means.entries),
        updates=len(chosen.updates),
        blobs=writer.blobs_written,
        plain=writer.plain_written,
        missing=tuple(writer.missing),
    )


def check_free(out: Path, force: bool) -> None:
    """That a pack may be written there. A device or a folder is never replaced.

    Raises:
        UsageError: it may not.
    """
    if out.exists() and not (force and out.is_file()):
        more = ", or overwrite it with --force" if out.is_file() else ""
        raise UsageError(f"{out} exists; expected a new file: name another with --out{more}")
    if not out.parent.is_dir():
        raise UsageError(f"cannot write {out}: there is no folder {out.parent}; name another file with --out")


class _Writer:
    """One pack, file after file in the order that the format asks for."""

    def __init__(self, means: Means, scope: Scope, chosen: Chosen, blobs: bool, plain: bool, tell: Progress) -> None:
        self._means, self._scope, self._chosen, self._tell = means, scope, chosen, tell
        self._blobs, self._plain = blobs, plain
        self._listed: list[Listed] = []
        self.missing: list[str] = []
        self.blobs_written = 0
        self.plain_written = 0

    def write(self, packer: Packer) -> Manifest:
        self._packer = packer
        means, chosen = self._means, self._chosen
        head = means.log.head
        manifest = Manifest(
            chain_id=means.identity.chain_id,
            contract=means.identity.address,
            first_block=means.entries[0].block_number,
            spec_digest=means.prefix.opened.spec_digest,
            head=head,
            scope=self._scope,
            blobs=self._blobs,
            files=(),
            plain=self._plain,
        )
        whole = Tree(tree.entry_leaf(entry.topics, entry.data) for entry in means.entries)
        if (whole.size, whole.root) != (head.size, head.root):
            raise LedgerError("the log moved while it was exported; expected it to stay as it was read: export again")
        genesis = self._genesis()
        notes = {signed.note: signed for signed in means.checkpoints}
        checkpoints = sorted(notes.values(), key=lambda signed: (signed.checkpoint.size, signed.note))
        if len(checkpoints) > limits.MOST_CHECKPOINTS:
            raise MalformedEvidence(f"got {len(checkpoints)} checkpoints, a pack has {limits.MOST_CHECKPOINTS} at most")

        self._add(layout.README, readme(manifest))
        if self._blobs:
            self._add_blobs(genesis)
        for number, signed in enumerate(checkpoints):
            self._add(layout.numbered(layout.CHECKPOINTS, number, "txt"), signed.note)
        federation = self._federation()
        if federation is not None:
            self._add(layout.FEDERATION, federation)
        if genesis is not None:
            self._add(layout.GENESIS, genesis.data)
        spec = None if means.federation is None else means.federation.spec
        lineage = lineage_bytes(means.prefix, self._scope, spec)
        if lineage is not None:
            self._add(layout.LINEAGE, lineage)
        self._add_lines(layout.LOG, self._log())
        if self._plain:
            self._add_plain()
        sizes = sizes_to_prove(chosen.updates, checkpoints, whole.size)
        self._add_lines(layout.CONSISTENCY, (lines.consistency_line(whole.consistency(size)) for size in sizes))
        proofs = (whole.inclusion(index) for index in self._told("proofs", chosen.entries))
        self._add_lines(layout.INCLUSION, map(lines.inclusion_line, proofs))
        self._add_reports()
        self._add_lines(layout.TRANSACTIONS, self._transactions())

        manifest = replace(manifest, files=tuple(self._listed))
        raw = manifest.encode()
        layout.parse_manifest(raw)  # whatever is beyond a limit is found out here, not by who reads it
        packer.add(layout.MANIFEST, [raw], len(raw))
        line = layout.digest_line(raw)
        packer.add(layout.MANIFEST_DIGEST, [line], len(line))
        packer.finish()
        return manifest

    # ---- files -------------------------------------------------------------------------------------------------

    def _add(self, path: str, data: Buffer) -> None:
        self._add_pieces(path, [data], memoryview(data).nbytes)

    def _add_pieces(self, path: str, pieces: Iterable[Buffer], size: int, marks: bytes | None = None) -> None:
        written = self._packer.add(path, pieces, size)
        self._listed.append(Listed(path, written.size, written.sha256, marks))

    def _add_lines(self, folder: str, every: Iterable[bytes]) -> None:
        for number, file in enumerate(lines.in_files(every)):
            size = sum(map(len, file))
            self._add_pieces(layout.numbered(folder, number), file, size, lines.marks_of(file))

    def _add_blobs(self, genesis: Held | None) -> None:
        """Weights by CID, each as a CAR."""
        most = self._most_bytes(genesis)
        wanted = sorted(weights_cids(self._chosen.needed).items(), key=lambda item: str(item[0]))
        for cid, ref in self._told("weights", wanted):
            held = self._held(cid, most, ref, f"weights of {ref}")
            if held is None:
                continue
            data, dag = memoryview(held.data).cast("B"), build(held.data)
            pieces = car.write(dag, _leaves_of(data))
            self._add_pieces(f"{layout.BLOBS}/{cid}.car", pieces, car.length(dag, dag.walk()))
            self.blobs_written += 1
            held.forget()
        if wanted and not self.blobs_written:
            raise ContentUnavailable(
                f"none of {len(wanted)} updates' weights can be had: {self.missing[-1]}; name who has them with "
                "--content, or leave them out: export without --blobs"
            )

    def _add_plain(self) -> None:
        """Weights of encrypted updates in the clear, each as one canonical file."""
        wanted = sorted(encrypted(self._chosen.needed), key=lambda update: layout.plain(update.ref))
        refused = ""
        for done, (update, found) in enumerate(in_clear(self._means, wanted)):
            self._tell("weights in the clear", done, len(wanted))
            if isinstance(found, str):
                refused = f"weights of {update.ref} in the clear: {found}"
                self.missing.append(refused)
                continue
            self._add_pieces(layout.plain(update.ref), found, sum(memoryview(piece).nbytes for piece in found))
            self.plain_written += 1
        if wanted and not self.plain_written:
            raise Unreadable(
                f"none of {len(wanted)} encrypted updates can be read: {refused}; name the keys of a member or auditor "
                "with --identity, or export without keys"
            )

    def _add_reports(self) -> None:
        for cid, ref in sorted(report_cids(self._chosen.needed).items(), key=lambda item: str(item[0])):
            held = self._held(cid, limits.MOST_REPORT_BYTES, ref, f"report of {ref}")
            if held is not None:
                self._add(f"{layout.REPORTS}/{cid}.json", held.data)

    def _genesis(self) -> Held | None:
        cid = cid_of_genesis(self._means.prefix.opened)
        return self._held(cid, limits.MOST_WEIGHTS_BYTES, None, "the genesis")

    def _federation(self) -> bytes | None:
        """The deployed federation file: the spec, byte for byte, and where its contract is."""
        federation, identity = self._means.federation, self._means.identity
        if federation is None:
            self.missing.append("the spec: nobody gives the bytes that entry 0 has the digest of")
            return None
        deployment = federation.deployment or Deployment(
            chain_id=identity.chain_id,
            contract=identity.address,
            first_block=self._means.entries[0].block_number,
            rpc="",
        )
        trouble = ""
        # Keys are found in user, path and query; and what somebody wrote there may not even be a URL.
        for rpc in (place_of(deployment.rpc), ""):
            try:
                raw = deployed_bytes(federation.spec_bytes, deployment.model_copy(update={"rpc": rpc}))
                parse_federation(raw)
                return raw
            except SpecError as cause:
                trouble = str(cause)
        self.missing.append(f"the spec: {trouble}")
        return None

    # ---- lines -------------------------------------------------------------------------------------------------

    def _log(self) -> Iterator[bytes]:
        for entry in self._told("log", self._means.entries):
            where = entry.block_number, entry.block_hash, entry.tx_hash
            yield lines.log_line(entry.index, RawLog(*where, entry.topics, entry.data))

    def _transactions(self) -> Iterator[bytes]:
        """By the first entry that each made; those that the source lacks are told."""
        entries = self._means.entries
        hashes = list(dict.fromkeys(entries[index].tx_hash for index in self._chosen.entries))
        lacking = 0
        for start in range(0, len(hashes), _TRANSACTIONS_AT_ONCE):
            some = hashes[start : start + _TRANSACTIONS_AT_ONCE]
            try:
                found = self._means.transactions.signed(some)
            except ChainUnavailable as cause:
                self.missing.append(f"signed transactions: {cause}")
                return
            for tx_hash in some:
                raw = found.get(tx_hash)
                if raw is None or 2 * len(raw) + _LINE_FRAME > limits.MOST_LINE_BYTES:
                    lacking += 1
                else:
                    yield lines.transaction_line(lines.Transaction(tx_hash, raw))
            self._tell("transactions", start + len(some), len(hashes))
        if lacking:
            self.missing.append(f"{lacking} of {len(hashes)} signed transactions: the source does not have them")

    # ---- bytes -------------------------------------------------------------------------------------------------

    def _held(self, cid: Cid, most: int, ref: UpdateRef | None, what: str) -> Held | None:
        try:
            return self._means.blobs.hold(cid, most, ref)
        except ContentError as cause:
            self.missing.append(f"{what}: {cause}")
            return None

    def _most_bytes(self, genesis: Held | None) -> int:
        """What an update's weights can take, by the model that the genesis is of."""
        if genesis is None:
            return _UNSIZED_BYTES
        try:
            return age.sealed_size(most_payload_bytes(weights.schema_of(weights.decode(genesis.data).tensors)))
        except MalformedWeights:
            return _UNSIZED_BYTES
        finally:
            genesis.forget()

    def _told(self, phase: str, items: Sequence[T]) -> Iterator[T]:
        for done, item in enumerate(items):
            if done % _TOLD_EVERY == 0:
                self._tell(phase, done, len(items))
            yield item


def _leaves_of(data: memoryview) -> Callable[[Cid, int], Iterable[Buffer]]:
    """Gives a file's leaves from its bytes."""

    def leaf(cid: Cid, index: int) -> Iterable[Buffer]:
        return [data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]]

    return leaf


@contextmanager
def _whole(out: Path) -> Iterator[BinaryIO]:
    """A new file that appears under its name only when it is whole and on the disk."""
    scratch = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        try:
            with scratch.open("xb") as sink:
                yield sink
                sink.flush()
                os.fsync(sink.fileno())
            scratch.replace(out)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as cause:
        raise unwritable(out, cause, "name another file with --out") from cause
