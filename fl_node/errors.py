"""The errors this package raises. A message says what was got, what was expected and what to do next.

Adapters raise only these, ``from`` the cause. There is a subclass wherever a caller acts differently; ``exit_code``
is the status with which ``fl-node`` leaves (documented in docs/cli.md).
"""

from __future__ import annotations


class FlNodeError(Exception):
    """Base of every error of this package."""

    exit_code = 1


class UsageError(FlNodeError):
    """The command line, a configuration value or an argument is wrong."""

    exit_code = 2


class SpecError(UsageError):
    """A federation file or node configuration is malformed: names the key, the value and what is allowed."""

    exit_code = 3


class DataError(FlNodeError):
    """The peer's own data set is missing or does not have the columns or the shape that the spec names."""

    exit_code = 4


class KeystoreError(FlNodeError):
    """A keystore is missing, unreadable, or the password is wrong."""

    exit_code = 5


class LedgerError(FlNodeError):
    """Base of everything that goes wrong with the chain or the contract."""

    exit_code = 10


class ChainUnavailable(LedgerError):
    """The RPC endpoint does not answer now: worth another try."""

    exit_code = 11


class WrongLedger(LedgerError):
    """Other chain id, no code at the address, or a spec digest that differs from the file: never worth another try."""

    exit_code = 12


class NotAMember(LedgerError):
    """This key is not admitted, is retired, or lacks the role."""

    exit_code = 13


class InsufficientFunds(LedgerError):
    """The account cannot pay for the gas."""

    exit_code = 14


class EntryRejected(LedgerError):
    """The contract refused an entry; ``name`` is the contract error, ``arguments`` its arguments by name."""

    exit_code = 15

    def __init__(self, message: str, name: str = "", arguments: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.arguments = dict(arguments or {})


class AlreadyRecorded(EntryRejected):
    """The entry is on the ledger already (a double of a sequence, attestation or objection): the caller is done."""


class KeyInUse(LedgerError):
    """Another process on this machine signs with the same key."""

    exit_code = 16


class InconsistentLog(LedgerError):
    """The entries an endpoint gave do not match the contract's root: never believed."""

    exit_code = 17


class ContentError(FlNodeError):
    """Base of everything that goes wrong with bytes by CID."""

    exit_code = 20


class ContentUnavailable(ContentError):
    """No provider gave the bytes in time."""

    exit_code = 21


class ContentMismatch(ContentError):
    """Bytes arrived that do not match their CID, or break the limits: the provider or the disk is wrong."""

    exit_code = 22


class ContentMalformed(ContentMismatch):
    """The bytes match their CID, but it names no file that may be read: too large, or not cut as the profile says.

    Whoever published it is to blame, not who served it.
    """


class ContentTooLarge(ContentMalformed):
    """The CID names a file of more bytes than the reader set out to take."""


class PortTaken(ContentError):
    """The address that the content gateway should listen on is in use or not this machine's."""

    exit_code = 25


class StoreFull(ContentError):
    """The content store cannot be written: disk full or read-only."""

    exit_code = 23


class StoreUnreachable(ContentError):
    """This peer's own content store (an IPFS daemon, a disk) does not answer now: worth another try. Nobody else is to
    blame."""

    exit_code = 26


class MalformedWeights(FlNodeError):
    """A weights file is not what the spec's model needs: names, shapes, dtypes, finite values, or the container."""

    exit_code = 24


class Unreadable(FlNodeError):
    """Encrypted bytes that none of the keys at hand opens. Whether anybody else's would, nobody can tell."""

    exit_code = 27


class KeyringError(FlNodeError):
    """The private keys that updates are encrypted to, or the vault, cannot be read or written."""

    exit_code = 28


class TrainingFailed(FlNodeError):
    """Local training did not produce a usable model (diverged to NaN, the user's loop raised)."""

    exit_code = 30


class TrainingDiverged(TrainingFailed):
    """Training ended in weights that nobody can use: from another start it may not."""


class BudgetSpent(FlNodeError):
    """Another round of training would spend more privacy than the spec allows, or the account of it is damaged."""

    exit_code = 31


class ChecksFailed(FlNodeError):
    """Something that was checked does not hold: an audit or a pack has a finding at or above ``--fail-on``."""

    exit_code = 40


class NotAllKnown(FlNodeError):
    """Nothing that was checked failed, but not all that was asked for could be known."""

    exit_code = 41


class AlarmRaised(FlNodeError):
    """The monitor found something that a person should look at."""

    exit_code = 42


class MalformedEvidence(FlNodeError):
    """A checkpoint, a tile or an evidence pack cannot be read as such, or breaks its limits."""

    exit_code = 43
