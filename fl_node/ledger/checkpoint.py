"""Checkpoints: what a log was at one moment, as text that somebody signed and that is kept off the chain.

The format is a C2SP tlog-checkpoint (https://c2sp.org/tlog-checkpoint) inside a C2SP signed note
(https://c2sp.org/signed-note), signed as an EIP-191 message with an Ethereum key::

    eip155:31337:0x5fbdb2315678afecb367f032d93f642f64180aa3
    33
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
    block 34 0x90ca...
    time 1767225600
    spec 3a7f...

    — 0x70997970c51812dc3a010c7d01b50e0d17dc79c8 BASE64

A signature line is the signer's address and base64 of a 4-byte key id and the 65 bytes r, s, v over all lines above
the empty one, line breaks included. Nothing about a log follows from two checkpoints of different size without the log
(or a consistency proof); two of the same size with different roots prove by themselves that two logs were shown.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fl_node.errors import LedgerError, MalformedEvidence
from fl_node.keys import Signer
from fl_node.ledger.abi import address_bytes, checksum_address
from fl_node.ledger.log_store import LogStore
from fl_node.records import LedgerOpened

MAX_NOTE_BYTES: Final = 64 << 10
MAX_SIGNATURES: Final = 64
#: Key ids are computed over the type byte for "no assigned type", this longer name, and the 20 bytes of the address.
SIGNATURE_TYPE: Final = b"\xfffl-node/eip191-secp256k1"

_MOST: Final = 2**63 - 1
_NUMBER: Final = "(0|[1-9][0-9]{0,77})"
_BASE64: Final = "[A-Za-z0-9+/]+={0,2}"
_TEXT: Final = re.compile(
    f"eip155:{_NUMBER}:(0x[0-9a-f]{{40}})\n{_NUMBER}\n({_BASE64})\nblock {_NUMBER} 0x([0-9a-f]{{64}})\n"
    f"time {_NUMBER}\nspec ([0-9a-f]{{64}})\n"
)
_SIGNATURE: Final = re.compile(rf"— ([^\s+]+) ({_BASE64})")
_ADDRESS: Final = re.compile("0x[0-9a-f]{40}")
_CURVE_ORDER: Final = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Size and root of one ledger's log at one block. Digests are 32 raw bytes; ``time_s`` is block time.

    ``contract`` is the mixed-case address, as everywhere in this package; in the text it is in lower case. The block is
    the one that holds the last of these entries.
    """

    chain_id: int
    contract: str
    size: int
    root: bytes
    block_number: int
    block_hash: bytes
    time_s: int
    spec_digest: bytes

    @property
    def origin(self) -> str:
        """Names the ledger, as the text's first line (CAIP-10)."""
        return f"eip155:{self.chain_id}:{self.contract.lower()}"

    @property
    def text(self) -> bytes:
        """What is signed."""
        return (
            f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"
            f"block {self.block_number} 0x{self.block_hash.hex()}\ntime {self.time_s}\nspec {self.spec_digest.hex()}\n"
        ).encode()


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint, its exact note (text and signatures), and the accounts whose signatures verify."""

    checkpoint: Checkpoint
    note: bytes
    signers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two checkpoints of one ledger that cannot both be true, and why. Anybody can check it: :attr:`proof` has all."""

    first: SignedCheckpoint
    second: SignedCheckpoint
    text: str

    @property
    def equivocators(self) -> tuple[str, ...]:
        """Accounts that signed both."""
        return tuple(account for account in self.first.signers if account in self.second.signers)

    @property
    def proof(self) -> bytes:
        """Both notes, one after the other; :func:`parse_all` reads them."""
        return self.first.note + self.second.note


# ---- making ------------------------------------------------------------------------------------------------------


def at(log: LogStore, size: int | None = None) -> Checkpoint:
    """What the first ``size`` entries of a log come to (default: all).

    Raises:
        LookupError: the log is shorter, or empty.
        LedgerError: the log keeps moving.
    """
    for _ in range(_ATTEMPTS):
        before = log.head
        wanted = before.size if size is None else size
        opened = opening(log)
        last, root = log.entry(wanted - 1), log.root(wanted)
        # Another thread may follow a reorganisation between two questions: never sign half of each.
        if log.head == before:
            return Checkpoint(
                *(opened.chain_id, opened.ledger, wanted, root),
                *(last.block_number, last.block_hash, last.time_s, opened.spec_digest),
            )
    raise LedgerError("the log moved under the checkpoint again and again; try it once more")


def whole_block(log: LogStore, size: int) -> int:
    """The least size from this one on at which a block of the log ends: there the contract has the same root.

    Raises:
        LookupError: the log is shorter, or empty.
    """
    last = log.entry(size - 1)
    while size < log.size:
        entry = log.entry(size)
        if (entry.block_number, entry.block_hash) != (last.block_number, last.block_hash):
            break
        size += 1
    return size


def sign(checkpoint: Checkpoint, signer: Signer) -> SignedCheckpoint:
    """The note, with one signature."""
    name = signer.address.lower()
    signature = base64.b64encode(key_id(name) + signer.sign_text(checkpoint.text)).decode()
    note = checkpoint.text + f"\n— {name} {signature}\n".encode()
    return SignedCheckpoint(checkpoint, note, (checksum_address(address_bytes(name)),))


def cosigned(notes: Iterable[SignedCheckpoint]) -> SignedCheckpoint:
    """One note with everybody's signatures, from several of the same text.

    Raises:
        ValueError: none, or different texts.
    """
    given = list(notes)
    texts = {one.checkpoint.text for one in given}
    if len(texts) != 1:
        raise ValueError(f"got {len(given)} notes of {len(texts)} texts, expected one text")
    lines = {line for one in given for line in one.note[len(one.checkpoint.text) + 1 :].splitlines(keepends=True)}
    return parse(texts.pop() + b"\n" + b"".join(sorted(lines)))


def key_id(name: str) -> bytes:
    """First four bytes of SHA-256 over name, line break, signature type and public key (here: the address)."""
    return hashlib.sha256(name.encode() + b"\n" + SIGNATURE_TYPE + address_bytes(name)).digest()[:4]


# ---- reading -----------------------------------------------------------------------------------------------------


def parse(note: bytes) -> SignedCheckpoint:
    """Read and verify one note: exactly the lines above, in canonical form. Signatures of other types are ignored.

    Raises:
        MalformedEvidence: too large, no such note, a signature that does not verify, or none that is known here.
    """
    if len(note) > MAX_NOTE_BYTES:
        raise MalformedEvidence(f"got a note of {len(note)} bytes, expected a checkpoint of at most {MAX_NOTE_BYTES}")
    text, empty, tail = note.partition(b"\n\n")
    checkpoint = _read_text(text + b"\n") if empty else None
    if checkpoint is None:
        raise MalformedEvidence("got text that is no checkpoint; expected what `fl-node checkpoint sign` writes")
    try:
        lines = tail.decode().split("\n")
    except UnicodeDecodeError as cause:
        raise MalformedEvidence("the signatures of a checkpoint are not UTF-8; get it from its signer") from cause
    if lines.pop() or not 1 <= len(lines) <= MAX_SIGNATURES:
        raise MalformedEvidence(f"got a checkpoint with other than 1 to {MAX_SIGNATURES} lines of signatures")
    signers = [account for line in lines if (account := _signer(line, checkpoint.text)) is not None]
    if not signers:
        raise MalformedEvidence("nobody whose kind of signature is known here signed the checkpoint")
    if len(set(signers)) != len(signers):
        raise MalformedEvidence("got a checkpoint with two signatures by one account, expected one each")
    return SignedCheckpoint(checkpoint, note, tuple(signers))


def parse_all(notes: bytes, most: int = 1000) -> list[SignedCheckpoint]:
    """Notes one after the other, with nothing between them: a proof of equivocation, or what a gateway has.

    Raises:
        MalformedEvidence: as :func:`parse`, for any of them; or none, or more than ``most``.
    """
    # A note ends with its last line of signatures; the next begins with an origin.
    found = re.split(rb"(?<=\n)(?=eip155:)", notes) if notes else []
    if not 1 <= len(found) <= most:
        raise MalformedEvidence(f"got {len(found)} checkpoints, expected 1 to {most}")
    return [parse(note) for note in found]


def _read_text(text: bytes) -> Checkpoint | None:
    found = _TEXT.fullmatch(text.decode("latin-1"))
    if found is None:
        return None
    chain_id, contract, size, root, block, block_hash, time_s, spec = found.groups()
    raw = _base64(root)
    if raw is None or len(raw) != 32 or max(int(size), int(block), int(time_s)) > _MOST or int(chain_id) >= 2**256:
        return None
    return Checkpoint(
        *(int(chain_id), checksum_address(address_bytes(contract)), int(size), raw),
        *(int(block), bytes.fromhex(block_hash), int(time_s), bytes.fromhex(spec)),
    )


def _signer(line: str, text: bytes) -> str | None:
    """Who signed; None for a signature of a type or key that this package knows nothing of."""
    found = _SIGNATURE.fullmatch(line)
    raw = _base64(found[2]) if found else None
    if found is None or raw is None or len(raw) < 5 or not line.isprintable():
        raise MalformedEvidence("got a line in a checkpoint that is no signature; expected — NAME BASE64")
    name = found[1]
    if not _ADDRESS.fullmatch(name) or raw[:4] != key_id(name):
        return None
    account = checksum_address(address_bytes(name))
    if _recovered(text, raw[4:]) != account:
        raise MalformedEvidence(f"the signature of {account} does not verify: text or signature were altered")
    return account


def _recovered(text: bytes, signature: bytes) -> str | None:
    """The account that made an EIP-191 signature; None for what is no signature in its one canonical form."""
    from eth_hash.auto import keccak
    from eth_keys.datatypes import Signature

    if len(signature) != 65 or signature[64] not in (27, 28):
        return None
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    if not (0 < r < _CURVE_ORDER and 0 < s <= _CURVE_ORDER // 2):
        return None
    digest = keccak(b"\x19Ethereum Signed Message:\n" + str(len(text)).encode() + text)
    try:
        key = Signature(vrs=(signature[64] - 27, r, s)).recover_public_key_from_msg_hash(digest)
    except Exception:  # the backends of eth_keys raise their own, without a common base
        return None
    return checksum_address(key.to_canonical_address())


def _base64(text: str) -> bytes | None:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return raw if base64.b64encode(raw).decode() == text else None


# ---- judging -----------------------------------------------------------------------------------------------------


def compare(first: SignedCheckpoint, second: SignedCheckpoint) -> Conflict | None:
    """Whether two checkpoints contradict each other by themselves. Those of two ledgers do not."""
    ours, theirs = first.checkpoint, second.checkpoint
    if ours.origin != theirs.origin:
        return None
    who = f"{', '.join(first.signers)} and {', '.join(second.signers)}"
    if ours.spec_digest != theirs.spec_digest:
        text = f"two specs for {ours.origin}: {ours.spec_digest.hex()} and {theirs.spec_digest.hex()}, signed by {who}"
    elif ours.size == theirs.size and ours.root != theirs.root:
        text = f"two roots of {ours.size} entries: {ours.root.hex()} and {theirs.root.hex()}, signed by {who}"
    else:
        return None
    return Conflict(first, second, text)


def conflicts(given: Iterable[SignedCheckpoint]) -> list[Conflict]:
    """Every contradiction among several, each signed text once."""
    unlike: dict[tuple[str, int | bytes], dict[bytes, SignedCheckpoint]] = {}
    for one in given:
        # Those that can contradict each other share a size, or have another spec than the rest.
        checkpoint = one.checkpoint
        unlike.setdefault((checkpoint.origin, checkpoint.size), {}).setdefault(checkpoint.root, one)
        unlike.setdefault((checkpoint.origin, b"spec"), {}).setdefault(checkpoint.spec_digest, one)
    found = {}
    for group in unlike.values():
        first, *others = group.values()
        for other in others:
            if (conflict := compare(first, other)) is not None:
                found[first.note, other.note] = conflict
    return list(found.values())


def holds(checkpoint: Checkpoint, log: LogStore) -> str | None:
    """What is wrong of a checkpoint by a log whose tree was checked; None if the log extends it.

    The block is not looked at: a log says the same wherever it lies.
    """
    try:
        opened = opening(log)
    except LookupError as cause:
        return f"there is no log to hold it against: {cause}"
    origin = f"eip155:{opened.chain_id}:{opened.ledger.lower()}"
    if checkpoint.origin != origin:
        return f"it is of {checkpoint.origin}, not of {origin}"
    if opened.spec_digest != checkpoint.spec_digest:
        return f"it names the spec {checkpoint.spec_digest.hex()}, the log {opened.spec_digest.hex()}"
    try:
        root = log.root(checkpoint.size)
    except LookupError:
        return f"shorter than signed: the log has {log.size} entries, {checkpoint.size} were signed"
    if root != checkpoint.root:
        return f"the first {checkpoint.size} entries have the root {root.hex()}, signed was {checkpoint.root.hex()}"
    return None


def opening(log: LogStore) -> LedgerOpened:
    """Entry 0: which ledger a log is of.

    Raises:
        LookupError: the log is empty, or begins with something else.
    """
    body = log.entry(0).body
    if not isinstance(body, LedgerOpened):
        raise LookupError("entry 0 does not open a ledger")
    return body
