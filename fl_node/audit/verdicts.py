"""What an audit says: the checks by name, a result for each, and the report that they add up to.

A result is never better than what was seen: where something cannot be known, it is ``unknown``, with the reason.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fl_node.records import UpdateRef


class Result(enum.StrEnum):
    """What a check came to.

    ``OUTLIER`` is advice: a claim far from what others measured. ``CONTRADICTED``: a peer's word that others' entries
    speak against. ``SUSPICIOUS``: looks like a copy, which cannot be proved.
    """

    OK = "ok"
    OUTLIER = "outlier"
    UNKNOWN = "unknown"
    CONTRADICTED = "contradicted"
    SUSPICIOUS = "suspicious"
    FAILED = "failed"


#: From the mildest to the gravest.
SEVERITY: Final = {result: rank for rank, result in enumerate(Result)}

FAIL_ON: Final = ("failed", "suspicious", "incomplete", "unknown", "outlier")


@dataclass(frozen=True, slots=True)
class Check:
    """One kind of check.

    ``proves`` and ``limits`` are for people. ``repeat``: a command by which a person does it again, with ``{...}``
    filled in by :func:`repeat_command`. ``essential``: its ``unknown`` leaves a gap in the record itself; the others
    ask about the world outside it.
    """

    number: int
    name: str
    proves: str
    limits: str
    repeat: str
    essential: bool = True


CHECKS: Final = (
    Check(
        1,
        "canonical",
        "the transaction is in a block of the chain at the wanted depth, signed by the peer's own key, and its call "
        "data say what the entry says",
        "a chain under one operator may still be rewritten; checkpoints and seenRoot show that",
        "cast tx --rpc-url {rpc} {tx}",
    ),
    Check(
        2,
        "included",
        "the entry's leaf stands at its index in the tree under the root that the contract has",
        "the root itself comes from the endpoint that was asked",
        "cast logs --rpc-url {rpc} --address {contract} --from-block {block} --to-block {block}",
    ),
    Check(
        3,
        "consistent",
        "the log extends what this update had seen (seenRoot) and every checkpoint that was given",
        "only as good as the independence of those who signed",
        "fl-node log --to {seen} --json",
    ),
    Check(
        4,
        "bytes",
        "the bytes that somebody serves are those that the entry names",
        "nothing about what they mean",
        "curl -s '{gateway}/ipfs/{cid}?format=raw' | sha256sum",
    ),
    Check(
        5,
        "available",
        "so many peers say now that they have the bytes",
        "a moment's look, and their word",
        "curl -sI '{gateway}/ipfs/{cid}?format=raw'",
        essential=False,
    ),
    Check(
        6,
        "well-formed",
        "the bytes, decrypted and decoded, are weights of the federation's model: names, shapes, types, finite and "
        "within bounds",
        "not that the model is of any use",
        "fl-node model --at {update} --out model.safetensors",
    ),
    Check(
        7,
        "commitment",
        "the decoded weights are those that the publisher committed to under its own name",
        "not that the publisher trained them",
        "fl-node model --at {update} --out model.safetensors",
    ),
    Check(
        8,
        "merge",
        "the recorded base follows, bit for bit, from the recorded parents, shares and rule",
        "that training really started from it cannot be proved",
        "fl-node audit --from {index} --to {next} --checks merge",
    ),
    Check(
        9,
        "selection",
        "the policy, applied to what the log said, gives exactly these parents with these shares",
        "shares that follow from private rows are only held against their bounds",
        "fl-node show {update}",
    ),
    Check(
        10,
        "membership",
        "the publisher was a member with the role; sequence, round and seen follow the rules of contract and spec",
        "not who stands behind a key",
        "cast call --rpc-url {rpc} {contract} 'peer(uint32)((uint32,address,bytes32,uint8,uint32,uint32,uint64,uint64,"
        "uint32,bool,uint64))' {peer}",
    ),
    Check(
        11,
        "score",
        "the claim is a possible one, and other sites measured something like it on their own data",
        "a score is a claim until others attest it, and attesters may err or lie",
        "fl-node show {update}",
        essential=False,
    ),
    Check(
        12,
        "originality",
        "the weights are no copy of another peer's that this check can see",
        "a copy trained on for a while, or disguised well, is not found; honest peers with like data make like models",
        "fl-node audit --from {index} --to {next} --checks originality",
        essential=False,
    ),
    Check(
        13,
        "report",
        "the public report is the one recorded, and what it says of each candidate agrees with log and bytes",
        "metrics in it are the publisher's word",
        "curl -s '{gateway}/ipfs/{report}?format=raw' | sha256sum",
    ),
    Check(
        14,
        "opening",
        "the contract is this version's code, and spec and genesis are those that it was opened with",
        "not that everybody reads the spec as you do",
        "cast call --rpc-url {rpc} {contract} 'specDigest()(bytes32)'",
    ),
    Check(
        15,
        "sealed",
        "the update is encrypted and encoded as the spec says: for as many readers as the log had then, from a "
        "reference that is there",
        "for whom it is encrypted; only who was left out can tell",
        "curl -s '{gateway}/ipfs/{cid}' | head -c 32768 | grep -ac '^-> X25519 '",
    ),
)
BY_NAME: Final[Mapping[str, Check]] = {check.name: check for check in CHECKS}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result and why. ``data``: the same for machines, JSON-ready.

    ``asked``: False where the means to answer were left out on purpose (a pack has no chain): then it does not count.
    """

    check: str
    result: Result
    detail: str
    data: Mapping[str, Any] = field(default_factory=dict)
    asked: bool = True

    def counts(self, fail_on: str) -> bool:
        """Whether this finding makes the exit code other than 0 at this level of ``--fail-on``."""
        if self.result is Result.FAILED:
            return True
        if self.result in (Result.SUSPICIOUS, Result.CONTRADICTED):
            return fail_on != "failed"
        if self.result is Result.UNKNOWN and self.asked:
            return fail_on in ("unknown", "outlier") or (fail_on == "incomplete" and BY_NAME[self.check].essential)
        return self.result is Result.OUTLIER and fail_on == "outlier"


@dataclass(frozen=True, slots=True)
class UpdateVerdict:
    """Everything that was found about one update. ``findings`` are in the order of :data:`CHECKS`."""

    ref: UpdateRef
    index: int
    round: int
    site: str
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Result:
        return worst(self.findings)


@dataclass(frozen=True, slots=True)
class Report:
    """A whole audit. ``findings`` are about the federation, ``updates`` about one update each, by entry.

    ``facts``: what was looked at, JSON-ready: ledger, size, root, block, spec digest, sources. ``notes``: what a reader
    should know besides, such as entries that do not count. ``seconds`` by phase.
    """

    facts: Mapping[str, Any]
    findings: tuple[Finding, ...]
    updates: tuple[UpdateVerdict, ...]
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    def all_findings(self) -> Iterable[Finding]:
        yield from self.findings
        for update in self.updates:
            yield from update.findings

    def counted(self, fail_on: str) -> list[Finding]:
        return [finding for finding in self.all_findings() if finding.counts(fail_on)]


def worst(findings: Sequence[Finding]) -> Result:
    """The gravest result; ``OK`` of none."""
    return max((finding.result for finding in findings), key=SEVERITY.__getitem__, default=Result.OK)
