"""Reading a pack of a stranger: every file checked against the manifest, then the whole turned into an audit's means.

Nothing is unpacked to disk by name; large files are spooled to nameless ones while they are in use.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fl_node.audit.means import Means, Progress
from fl_node.audit.open_means import folded
from fl_node.audit.verdicts import Finding
from fl_node.content.cid import Cid
from fl_node.content.names import cid_of_genesis, cid_of_update
from fl_node.errors import ChecksFailed, InconsistentLog, MalformedEvidence, SpecError, UsageError
from fl_node.evidence import layout, limits, lines
from fl_node.evidence.container import Container, Member
from fl_node.evidence.contents import PackBlobs, PackInClear, PackTransactions
from fl_node.evidence.derived import lineage_bytes
from fl_node.evidence.digests import Altered, altered_files
from fl_node.evidence.layout import Listed, Manifest
from fl_node.evidence.logs import PackLogs
from fl_node.evidence.proofs import Tree, sizes_to_prove, wrong_consistency, wrong_inclusion
from fl_node.evidence.readme import readme
from fl_node.evidence.scope import Chosen, choose
from fl_node.ledger import codec, tree
from fl_node.ledger.breaches import breaches
from fl_node.ledger.checkpoint import SignedCheckpoint, parse
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.kept_log import KeptLog
from fl_node.ledger.protocol import LedgerIdentity
from fl_node.prefix import Prefix
from fl_node.records import Entry, Flag, LedgerOpened, UpdatePublished, UpdateRef
from fl_node.spec import Federation, parse_federation

_MOST_TOLD: Final = 50
#: Of a log whose index is not worth a file.
_IN_MEMORY_BYTES: Final = 16 << 20
#: What it is, and its index.
_FEWEST_TOPICS: Final = 2


class AlteredEvidence(ChecksFailed):
    """Files of a pack are not those that its manifest names. ``altered`` has them all."""

    def __init__(self, path: Path, altered: Sequence[Altered]) -> None:
        told = "".join(f"\n  {one}" for one in altered[:_MOST_TOLD])
        more = f"\n  ... and {len(altered) - _MOST_TOLD} more" if len(altered) > _MOST_TOLD else ""
        super().__init__(
            f"{path}: {len(altered)} of its files were altered; nothing else in it was looked at:{told}{more}"
        )
        self.altered = tuple(altered)


@dataclass(frozen=True, slots=True)
class OpenedPack:
    """A pack whose files are those of its manifest.

    Attributes:
        digest: SHA-256 of the manifest, which names the pack.
        means: what an audit looks at.
        refs: the updates that the pack is about; ``None``: all.
        by_entry: what is wrong with inclusion proofs, by entry.
        findings: what is wrong with other proofs.
        notes: what a reader should know besides.
    """

    manifest: Manifest
    digest: bytes
    means: Means
    refs: frozenset[UpdateRef] | None
    by_entry: Mapping[int, Finding]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


@contextmanager
def open_pack(path: Path) -> Iterator[Means]:
    """What an audit looks at, from a pack. See :func:`opened`."""
    with opened(path) as pack:
        yield pack.means


@contextmanager
def opened(path: Path, progress: Progress | None = None) -> Iterator[OpenedPack]:
    """Read a pack: digests first, then the rest.

    Raises:
        AlteredEvidence: files are not those that the manifest names; says which, and what they are about.
        ChecksFailed: the files are the manifest's, and the log does not have the root that it is said to have.
        MalformedEvidence: no pack, or one that breaks the format or its limits.
    """
    tell = progress or (lambda phase, done, total: None)
    with ExitStack() as stack:
        container = stack.enter_context(Container(path))
        manifest, digest = _manifest(container)
        altered = altered_files(container, manifest, tell)
        if altered:
            raise AlteredEvidence(path, altered)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fl-node-pack-")))
        with _Reader(container, manifest, scratch).read() as (means, chosen, log):
            kinds = layout.by_kind(manifest.files)
            sizes = sizes_to_prove(chosen.updates, means.checkpoints, log.size)
            yield OpenedPack(
                manifest=manifest,
                digest=digest,
                means=means,
                refs=None if manifest.scope.kind == "all" else frozenset(update.ref for update in chosen.updates),
                by_entry=wrong_inclusion(_lines(container, kinds[layout.INCLUSION]), chosen.entries, log),
                findings=tuple(wrong_consistency(_lines(container, kinds[layout.CONSISTENCY]), sizes, log)),
                notes=tuple(_notes(container, manifest)),
            )


def _manifest(container: Container) -> tuple[Manifest, bytes]:
    """The manifest, and its digest; the container holds exactly the files that it names, with these sizes."""
    members = dict(container.members)
    names = list(members)
    if names[-2:] != [layout.MANIFEST, layout.MANIFEST_DIGEST]:
        raise MalformedEvidence(f"{container.path}: expected {layout.MANIFEST} and {layout.MANIFEST_DIGEST} at its end")
    listed, line = members.pop(layout.MANIFEST), members.pop(layout.MANIFEST_DIGEST)
    if listed.size > limits.MOST_MANIFEST_BYTES or line.size > limits.MOST_PATH_BYTES:
        raise MalformedEvidence(f"{container.path}: {layout.MANIFEST} has {listed.size} bytes, more than it may")
    raw = container.read(listed)
    expected = layout.digest_line(raw)
    if container.read(line) != expected:
        both = f"{layout.MANIFEST} or {layout.MANIFEST_DIGEST}"
        raise AlteredEvidence(
            container.path, [Altered(both, ("the one does not have the digest that the other says",))]
        )
    for member, data in ((listed, raw), (line, expected)):
        if zlib.crc32(data) != member.crc:
            raise MalformedEvidence(f"{container.path}: {member.name}: its CRC-32 in the ZIP file is wrong")
    manifest = layout.parse_manifest(raw)
    given = [(member.name, member.size) for member in members.values()]
    if given != (wanted := [(file.path, file.size) for file in manifest.files]):
        odd = sorted({name for name, _ in set(given) ^ set(wanted)}) or ["their order"]
        raise MalformedEvidence(
            f"{container.path}: its files are not exactly those of {layout.MANIFEST}: {', '.join(odd[:10])}"
        )
    return manifest, bytes.fromhex(expected[:64].decode())


class _Reader:
    """Turns a pack's files into means."""

    def __init__(self, container: Container, manifest: Manifest, scratch: Path) -> None:
        self._container, self._manifest, self._scratch = container, manifest, scratch
        self._kinds = layout.by_kind(manifest.files)

    @contextmanager
    def read(self) -> Iterator[tuple[Means, Chosen, Tree]]:
        logs = PackLogs(self._container, [(self._member(file), _lines_in(file)) for file in self._kinds[layout.LOG]])
        log = self._tree(logs)
        identity = self._identity(logs)
        kept = KeptLog(identity, replace(self._manifest.head, highest_round=self._highest_round), logs)
        small = sum(file.size for file in self._kinds[layout.LOG]) <= _IN_MEMORY_BYTES
        with LedgerIndex(":memory:" if small else self._scratch / "index.sqlite", kept) as index:
            index.sync()
            entries = index.entries()
            prefix = _prefix(entries)
            federation = self._federation()
            means = Means(
                identity=identity,
                federation=federation,
                log=index,
                prefix=prefix,
                entries=entries,
                breaches=breaches(entries),
                transactions=PackTransactions(self._container, {}),
                blocks=None,
                blobs=self._blobs(entries),
                in_clear=self._in_clear(entries),
                checkpoints=tuple(self._checkpoints()),
                depth=federation.spec.rounds.depth if federation else 0,
            )
            try:
                chosen = choose(means, self._manifest.scope)
            except UsageError as cause:
                raise MalformedEvidence(f"{layout.MANIFEST}: {cause}") from cause
            hashes = dict.fromkeys(entries[number].tx_hash for number in chosen.entries)
            transactions = PackTransactions(self._container, self._transactions(hashes))
            self._check_lineage(prefix, federation)
            yield replace(means, transactions=transactions), chosen, log

    def _member(self, file: Listed) -> Member:
        return self._container.members[file.path]

    def _tree(self, logs: PackLogs) -> Tree:
        """The tree over all entries, which must be the one that the manifest says."""
        head = self._manifest.head
        if len(logs) != head.size or not 1 <= head.size <= limits.MOST_ENTRIES:
            raise MalformedEvidence(
                f"{layout.MANIFEST}: got {len(logs)} entries, expected the {head.size} that it says, and 1 to "
                f"{limits.MOST_ENTRIES}"
            )
        leaves, block, self._highest_round = [], 0, 0
        for number, log in enumerate(logs):
            if len(log.topics) < _FEWEST_TOPICS or codec.index_of(log.topics) != number:
                raise MalformedEvidence(f"log: entry {number} is no event log of a ledger, or another entry's")
            if log.block_number < block:
                raise MalformedEvidence(f"log: entry {number} is of block {log.block_number}, before that of the last")
            block = log.block_number
            leaves.append(tree.entry_leaf(log.topics, log.data))
            _, _, body = codec.decode(log.topics, log.data)
            if isinstance(body, UpdatePublished):
                self._highest_round = max(self._highest_round, body.update.round)
        if block > head.block_number:
            raise MalformedEvidence(f"{layout.MANIFEST}: read at block {head.block_number}, with entries of {block}")
        found = Tree(leaves)
        if found.root != head.root:
            raise ChecksFailed(
                f"{self._container.path}: included: failed: its {head.size} entries have the root {found.root.hex()}, "
                f"its manifest says {head.root.hex()}: {self._culprit(found)}"
            )
        return found

    def _culprit(self, log: Tree) -> str:
        """Which entry is not the one that the pack's own proofs are of."""
        for where, line in _lines(self._container, self._kinds[layout.INCLUSION]):
            proof = lines.read_inclusion(line, where)
            if proof.index < log.size and log.leaves[proof.index] != proof.leaf:
                return f"entry {proof.index} is not the one that its proof is of"
        return "entries were altered, added or left out"

    def _identity(self, logs: PackLogs) -> LedgerIdentity:
        """Entry 0 names the ledger, as the manifest does."""
        manifest, first = self._manifest, logs[0]
        _, _, body = codec.decode(first.topics, first.data)
        if not isinstance(body, LedgerOpened):
            raise MalformedEvidence("log: entry 0 does not open a ledger; expected a log of this project's contract")
        said = manifest.chain_id, manifest.contract, manifest.first_block, manifest.spec_digest
        if said != (body.chain_id, body.ledger, first.block_number, body.spec_digest):
            raise MalformedEvidence(f"{layout.MANIFEST}: its ledger is not the one that entry 0 of its log opens")
        return LedgerIdentity(
            *said, body.genesis_content, body.genesis_weights, body.genesis_flags, body.min_interval_s
        )

    def _federation(self) -> Federation | None:
        for file in self._kinds[layout.FEDERATION]:
            try:
                found = parse_federation(self._container.read(self._member(file)), file.path)
            except (SpecError, RecursionError) as cause:
                raise MalformedEvidence(f"{file.path}: cannot be read: {str(cause)[:1000]}") from cause
            where = found.deployment
            if where is None or (where.chain_id, where.contract) != (self._manifest.chain_id, self._manifest.contract):
                raise MalformedEvidence(f"{file.path}: its [deployment] is not the ledger that the pack is of")
            return found
        return None

    def _checkpoints(self) -> Iterator[SignedCheckpoint]:
        before: tuple[int, bytes] | None = None
        for file in self._kinds[layout.CHECKPOINTS]:
            try:
                signed = parse(self._container.read(self._member(file)))
            except MalformedEvidence as cause:
                raise MalformedEvidence(f"{file.path}: {cause}") from cause
            order = signed.checkpoint.size, signed.note
            if before is not None and before >= order:
                raise MalformedEvidence(f"{file.path}: expected checkpoints by size, each once")
            before = order
            yield signed

    def _blobs(self, entries: Sequence[Entry]) -> PackBlobs:
        """Bytes by CID; each is the content or the report of some update, or the genesis."""
        updates = [entry.body.update for entry in entries if isinstance(entry.body, UpdatePublished)]
        contents = {cid_of_update(update) for update in updates}
        reports = {Cid("raw", update.report) for update in updates}
        whole: dict[Cid, Member] = {}
        cars: dict[Cid, Member] = {}
        for kind, known, found in ((layout.REPORTS, reports, whole), (layout.BLOBS, contents, cars)):
            for file in self._kinds[kind]:
                cid = _cid(file)
                if cid not in known:
                    raise MalformedEvidence(f"{file.path}: no update of the log names it; expected nothing else")
                found[cid] = self._member(file)
        opened = entries[0].body
        assert isinstance(opened, LedgerOpened)
        for file in self._kinds[layout.GENESIS]:
            whole[cid_of_genesis(opened)] = self._member(file)
        return PackBlobs(self._container, whole, cars, self._scratch)

    def _in_clear(self, entries: Sequence[Entry]) -> PackInClear | None:
        """Weights in the clear, each of an encrypted update of the log."""
        updates = (entry.body for entry in entries if isinstance(entry.body, UpdatePublished))
        encrypted = {body.ref for body in updates if body.update.flags & Flag.ENCRYPTED}
        found: dict[UpdateRef, Member] = {}
        for file in self._kinds[layout.PLAIN]:
            ref = layout.plain_ref(file.path)
            if ref not in encrypted:
                raise MalformedEvidence(f"{file.path}: the log has no such update that is encrypted")
            found[ref] = self._member(file)
        return PackInClear(self._container, found, self._scratch) if found else None

    def _transactions(self, hashes: Mapping[bytes, None]) -> dict[bytes, tuple[Member, int, int]]:
        """Where the line of each is; they come in the order of the entries that they made."""
        order = {one: number for number, one in enumerate(hashes)}
        places: dict[bytes, tuple[Member, int, int]] = {}
        last = -1
        for file in self._kinds[layout.TRANSACTIONS]:
            offset = 0
            for number, line in enumerate(lines.split(self._container.read(self._member(file)), file.path)):
                where = f"{file.path}, line {number + 1}"
                one = lines.read_transaction(line, where)
                if order.get(one.hash, -1) <= last:
                    raise MalformedEvidence(
                        f"{where}: a transaction of no entry that the pack is about, or not in their order"
                    )
                last = order[one.hash]
                places[one.hash] = self._member(file), offset, len(line)
                offset += len(line)
        return places

    def _check_lineage(self, prefix: Prefix, federation: Federation | None) -> None:
        for file in self._kinds[layout.LINEAGE]:
            spec = None if federation is None else federation.spec
            if lineage_bytes(prefix, self._manifest.scope, spec) != self._container.read(self._member(file)):
                raise AlteredEvidence(
                    self._container.path, [Altered(file.path, ("it does not follow from the log and the spec",))]
                )


def _lines(container: Container, files: Sequence[Listed]) -> Iterator[tuple[str, bytes]]:
    """Every line of some files, with where it stands."""
    for file in files:
        raw = container.read(container.members[file.path])
        for number, line in enumerate(lines.split(raw, file.path)):
            yield f"{file.path}, line {number + 1}", line


def _notes(container: Container, manifest: Manifest) -> Iterator[str]:
    if container.read(container.members[layout.README]) != readme(manifest):
        yield f"{layout.README} is not the text that this version of fl-node writes: believe nothing that it says"
    if manifest.plain:
        yield "the pack holds weights in the clear that are encrypted elsewhere: whoever gets it can read them"
    elif not manifest.blobs:
        yield "the pack was written without weights, so nothing can be said of them; `fl-node export --blobs` has them"


def _prefix(entries: Sequence[Entry]) -> Prefix:
    try:
        return folded(entries)
    except InconsistentLog as cause:
        raise MalformedEvidence(f"log: {cause}") from cause


def _lines_in(file: Listed) -> int:
    return len(file.marks or b"") // layout.MARK_BYTES


def _cid(file: Listed) -> Cid:
    """The CID that a file is named by."""
    try:
        return Cid.parse(file.path.rpartition("/")[2].partition(".")[0])
    except UsageError as cause:
        raise MalformedEvidence(f"{file.path}: {cause}") from cause
