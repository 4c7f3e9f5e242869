"""Check 15: what anybody can tell, without a key, of how an update was encrypted and encoded. docs/replay-rules.md,
sections 12 and 13.

An age file's header has one stanza for each recipient and names none. So it can be counted for how many an update is
encrypted, and not for whom.
"""

from __future__ import annotations

from typing import Any, Final

from fl_node.audit.verdicts import Finding, Result
from fl_node.content.unixfs import Buffer
from fl_node.errors import MalformedWeights
from fl_node.merging import weights
from fl_node.merging.encodings import is_delta, kind_for, kind_of, name_of
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.readers import bad_reference, recipients_of
from fl_node.records import ZSTD, Encoding, Flag, UpdateRef
from fl_node.sealing.header import X25519, read_header
from fl_node.spec import Spec

NAME: Final = "sealed"
#: A stanza for nobody, as age asks writers to add some: c2sp.org/age, "Recipient stanza".
_GREASE: Final = "-grease"
_SHOWN: Final = 60


def sealed(spec: Spec, prefix: Prefix, entry: UpdateEntry, content: Buffer | None) -> Finding:
    """What the log and an update's bytes say of its encryption and encoding.

    Args:
        prefix: the whole log as it is known.
        content: its bytes, checked against its CID; ``None`` where they cannot be had.

    Returns:
        ``failed`` where it differs from the spec and the replay rules, or is for fewer than could read it then;
        ``suspicious`` where it is for more; ``unknown`` where its bytes are wanted and not there; else ``ok``.
    """
    facts = entry.update
    encrypted = bool(facts.flags & Flag.ENCRYPTED)
    data: dict[str, Any] = {"encrypted": encrypted, "encoding": name_of(facts.encoding)}
    ref = UpdateRef.unpack(facts.refers_to)
    if ref is not None:
        data["refers_to"] = str(ref)
    fault = _other_than_spec(spec, entry) or bad_reference(prefix, entry, spec.encoding.full_every)
    fault = fault or _other_encoding(spec, prefix, entry)
    if fault is not None:
        return Finding(NAME, Result.FAILED, fault, data)
    how = data["encoding"] + (f", from {ref}" if ref else "")
    if not encrypted:
        return Finding(NAME, Result.OK, f"in the clear, as the spec says; {how}", data)
    data["sealed_at"] = facts.sealed_at
    fault = _other_time(spec, prefix, entry)
    if fault is not None:
        return Finding(NAME, Result.FAILED, fault, data)
    data["readers"] = len(recipients_of(prefix.upto(facts.sealed_at), entry.ref.peer))
    if content is None:
        text = f"encrypted at log size {facts.sealed_at}, {how}; without its bytes nobody can tell for how many"
        return Finding(NAME, Result.UNKNOWN, text, data)
    return _counted(content, how, data)


def _counted(content: Buffer, how: str, data: dict[str, Any]) -> Finding:
    """The header against the readers that the log gives."""
    try:
        kinds = read_header(content).kinds
    except MalformedWeights as cause:
        return Finding(NAME, Result.FAILED, str(cause), data)
    stanzas, readers = kinds.count(X25519), data["readers"]
    data["stanzas"] = stanzas
    others = sorted({kind for kind in kinds if kind != X25519 and not kind.endswith(_GREASE)})
    which = f"the {readers} readers that the log had at size {data['sealed_at']}"
    if stanzas < readers:
        text = f"encrypted for {stanzas} recipients, not for {which}: somebody was left out, and only who was can tell"
        return Finding(NAME, Result.FAILED, text, data)
    if stanzas > readers or others:
        more = f"recipients of type {', '.join(others)[:_SHOWN]}" if others else f"{stanzas} recipients"
        text = f"encrypted for {more} besides {which}" if others else f"encrypted for {more}, more than {which}"
        return Finding(NAME, Result.SUSPICIOUS, f"{text}: somebody else may read it as well", data)
    return Finding(NAME, Result.OK, f"encrypted for {which}; {how}", data)


def _other_than_spec(spec: Spec, entry: UpdateEntry) -> str | None:
    encrypted = bool(entry.update.flags & Flag.ENCRYPTED)
    if encrypted == spec.privacy.encrypt:
        return None
    got, expected = ("encrypted", "in the clear") if encrypted else ("in the clear", "encrypted")
    return f"it is {got}, the spec says {expected} (privacy.encrypt)"


def _other_encoding(spec: Spec, prefix: Prefix, entry: UpdateEntry) -> str | None:
    """Why an update is not encoded as the spec says. Those that nobody trained hold their base, to the bit."""
    facts, wanted = entry.update, spec.encoding
    try:
        kind = kind_of(facts.encoding)
    except MalformedWeights as cause:
        return str(cause)
    got = name_of(kind)
    untrained = entry.final or (entry.round - 1) % spec.training.every
    if untrained and kind is not Encoding.SAFETENSORS:
        what = "a closing update" if entry.final else f"an update of round {entry.round}, in which nobody trains,"
        return f"{what} is its base to the bit, so expected f32; it is written as {got}"
    names = [name_of(kind_for(wanted, delta=delta)) for delta in (True, False)]
    if got not in names and not (kind is Encoding.SAFETENSORS and (untrained or is_its_base(prefix, entry))):
        return f"it is written as {got}, the spec says {' or '.join(dict.fromkeys(names))} (encoding)"
    if facts.encoding & ZSTD and wanted.compress == "never":
        return "it is compressed, the spec says never (encoding.compress)"
    if is_delta(facts.encoding) and not facts.refers_to and kind is not kind_for(wanted, delta=False):
        return f"it is written as {got} and refers to no update that it could be the change of"
    return None


def is_its_base(prefix: Prefix, entry: UpdateEntry) -> bool:
    """Whether the ledger's commitment is to the recorded base."""
    opened, ref = prefix.opened, entry.ref
    made = weights.commitment(opened.chain_id, opened.ledger, ref.peer, ref.sequence, entry.update.base)
    return made == entry.update.weights


def _other_time(spec: Spec, prefix: Prefix, entry: UpdateEntry) -> str | None:
    """Why the log size that fixed the readers is none that an honest publisher can have taken."""
    at = entry.update.sealed_at
    if at > entry.index:
        return f"it says to be encrypted for the readers at log size {at}, which is after its own entry {entry.index}"
    if entry.ref.sequence > 1:
        before = prefix.update(UpdateRef(entry.ref.peer, entry.ref.sequence - 1))
        if at <= before.index:
            return (
                f"it is encrypted for the readers at log size {at}, before its publisher's {before.ref} at entry "
                f"{before.index}: who came since is left out"
            )
    if entry.index - at > spec.rounds.max_lag:
        return (
            f"it is encrypted for the readers at log size {at}, {entry.index - at} entries before its own; the spec "
            f"allows {spec.rounds.max_lag} (rounds.max_lag)"
        )
    return None
