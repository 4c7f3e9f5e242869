"""Tamperings of an evidence pack, by one who makes the manifest fit afterwards, and by one who does not."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from given_log import with_log
from packs import lines_of, put_together, taken_apart, verified, with_lines, write
from tampering import ALL, Found, case, honest, shown

from fl_node.audit.verdicts import Finding, Result
from fl_node.content.cid import Cid
from fl_node.errors import ChecksFailed
from fl_node.evidence import layout
from fl_node.evidence.write import export
from fl_node.ledger import codec
from fl_node.records import UpdatePublished

PACKS = "An evidence pack"
#: What is not known of an update whose weights are not at hand, and of those merged from it.
WITHOUT = ("well-formed", "commitment", "merge", "originality")
Files = dict[str, bytes]


@contextmanager
def packed() -> Iterator[tuple[Files, Path]]:
    """The files of a pack of everything, and a path for another one."""
    with tempfile.TemporaryDirectory() as folder:
        whole, other = Path(folder) / "whole.zip", Path(folder) / "other.zip"
        means = shown().means()
        with means.log:
            export(means, layout.ALL, whole, blobs=True)
        yield taken_apart(whole), other


def verify(change: Callable[[Files], Files], *, fitting: bool = True) -> Found:
    """What ``fl-node verify`` finds."""
    with packed() as (files, other):
        changed = change(files)
        put_together(changed, other) if fitting else write(changed, other)
        return found_in(other)


def found_in(pack: Path) -> Found:
    try:
        report = verified(pack)
    except ChecksFailed as cause:  # refused before anything in it is looked at
        return [(ALL, Finding("included", Result.FAILED, str(cause)))]
    return [(ALL, finding) for finding in report.findings] + [
        (str(update.ref), finding) for update in report.updates for finding in update.findings
    ]


def blob(name: str) -> str:
    return f"blobs/{Cid('raw', honest().update(name).content)}.car"


@case(
    PACKS, "a file of it altered", "included", "failed", "1 of its files were altered; nothing else in it was looked at"
)
def bit_in_pack() -> Found:
    def flip(files: Files) -> Files:
        raw = files[blob("2#2")]
        return {**files, blob("2#2"): raw[:-1] + bytes([raw[-1] ^ 1])}

    return verify(flip, fitting=False)


@case(
    PACKS,
    "a CAR cut short, the manifest made to fit",
    "bytes",
    "failed",
    "the CAR is cut short",
    on="2#2",
    also=WITHOUT,
)
def car_cut_in_pack() -> Found:
    return verify(lambda files: {**files, blob("2#2"): files[blob("2#2")][:-50]})


@case(
    PACKS,
    "the proof of another entry",
    "included",
    "failed",
    "does not lead from its leaf to the root",
    on="3#1",
    also=["included"],
)
def proof_of_another() -> Found:
    one, other = (honest().update(name).index for name in ("3#1", "4#1"))

    def swap(files: Files) -> Files:
        proofs = lines_of(files, "proofs/inclusion")
        proofs[one]["path"], proofs[other]["path"] = proofs[other]["path"], proofs[one]["path"]
        return with_lines(files, "proofs/inclusion", proofs)

    return verify(swap)


@case(
    PACKS,
    "the last update altered, its signed transaction left out, all else made to fit",
    "canonical",
    "unknown",
    "no signed transaction of this entry could be had",
    on="4#4",
    also=["4#4 report", "4#4 score"],
)
def unsigned_in_pack() -> Found:
    index = honest().update("4#4").index

    with packed() as (files, other):
        log, transactions = lines_of(files, "log"), lines_of(files, "transactions")
        body = shown().body(index)
        assert isinstance(body, UpdatePublished)
        time_s = shown().time_s(index)
        topics, data = codec.encode(index, time_s, replace(body, update=replace(body.update, score_ppm=996_000)))
        log[index] |= {"topics": [topic.hex() for topic in topics], "data": data.hex()}
        kept = [line for line in transactions if line["hash"] != log[index]["tx"]]
        assert len(kept) == len(transactions) - 1
        with_log(with_lines(files, "transactions", kept), log, other)
        return found_in(other)
