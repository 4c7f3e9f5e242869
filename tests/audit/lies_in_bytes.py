"""Tamperings of bytes on their way, and of what peers say of each other: objections and reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from given import Given, given, store_of
from playing import Lie
from tampering import begun, case, honest, ref, shown, told

from fl_node.content.cid import Cid
from fl_node.records import Reason

BYTES, WORDS, REPORTS = "Bytes on their way", "Objections", "Reports"
#: What cannot be told of an update whose bytes are not at hand, and of those that merged it.
WITHOUT = ("well-formed", "commitment", "merge", "originality")


# ---- bytes ---------------------------------------------------------------------------------------------------------


def content(name: str) -> Cid:
    return Cid("raw", honest().update(name).content)


def report_of(name: str) -> Cid:
    return Cid("raw", honest().update(name).update.report)


@case(
    BYTES, "a byte flipped in the weights", "bytes", "failed", "a store gave bytes with the CID", on="2#2", also=WITHOUT
)
def flipped() -> Given:
    one = shown()
    data = bytearray(one.blobs[content("2#2")])
    data[-1] ^= 1
    one.blobs[content("2#2")] = bytes(data)
    return one


@case(
    BYTES,
    "the weights of another update served in their place",
    "bytes",
    "failed",
    "a store gave bytes with the CID",
    on="2#2",
    also=WITHOUT,
)
def blob_swapped() -> Given:
    one = shown()
    one.blobs[content("2#2")] = one.blobs[content("3#2")]
    return one


@case(BYTES, "the weights cut short", "bytes", "failed", "a store gave bytes with the CID", on="2#2", also=WITHOUT)
def truncated() -> Given:
    one = shown()
    one.blobs[content("2#2")] = one.blobs[content("2#2")][:-8]
    return one


@case(
    BYTES,
    "the weights served by nobody",
    "bytes",
    "unknown",
    "none of 1 stores has",
    on="2#2",
    also=[*WITHOUT, "2#2 available"],
)
def gone() -> Given:
    one = shown()
    del one.blobs[content("2#2")]
    return one


@case(
    BYTES,
    "the weights not kept by their own publisher, and by nobody else",
    "available",
    "failed",
    "its publisher answers and has not got it",
    on="2#2",
    also=[*WITHOUT, "2#2 bytes"],
)
def not_kept() -> Given:
    one = shown()
    without = {cid: data for cid, data in one.blobs.items() if cid != content("2#2")}
    one.stores = {1: store_of(without), 2: store_of(without)}
    return one


# ---- objections ----------------------------------------------------------------------------------------------------


def objected(reason: Reason, lies: dict[str, Lie] | None = None) -> Given:
    """In round 2 peer 2 objects to 1#2 and leaves it out; 3 and 4 merge it, unless they find it bad."""
    play = begun(lies=lies or {})
    play.turn(1, 2)
    play.ledger.object(2, ref("1#2"), reason)
    for peer in (2, 3, 4):
        play.turn(peer, 2)
    return given(play)


@case(
    WORDS,
    'an untrue "unavailable": others fetched it',
    "report",
    "contradicted",
    "it called unavailable: 1#2 (entry 18), which",
    on="2#2",
)
def untrue_unavailable() -> Given:
    return objected(Reason.UNAVAILABLE)


@case(WORDS, 'an untrue "malformed"', "report", "failed", "it calls 1#2 malformed; its bytes are good", on="2#2")
def untrue_malformed() -> Given:
    return objected(Reason.MALFORMED)


@case(
    WORDS,
    'an untrue "digest mismatch"',
    "report",
    "failed",
    "it calls 1#2 digest-mismatch; its bytes are those",
    on="2#2",
)
def untrue_mismatch() -> Given:
    return objected(Reason.DIGEST_MISMATCH)


@case(
    WORDS,
    'a true "digest mismatch": the base does not follow',
    "report",
    "ok",
    "it agrees with log and replay",
    on="2#2",
    also=["1#2 merge"],
)
def true_mismatch() -> Given:
    honest_base = Lie(base=lambda entries, models, merged: {k: v + 1 for k, v in merged.tensors.items()})
    return objected(Reason.DIGEST_MISMATCH, {"1#2": honest_base})


@case(
    WORDS,
    'a true "malformed"',
    "report",
    "ok",
    "it agrees with log and replay",
    on="3#2",
    also=["1#2 well-formed", "1#2 commitment"],
)
def true_malformed() -> Given:
    play = begun(lies={"1#2": Lie(blob=lambda blob: blob[:-8])})
    for peer in (1, 3, 2):
        play.turn(peer, 2)
    return given(play)


@case(WORDS, 'an untrue "malformed" by who publishes no more', "report", "failed", "peer 2: at entry", also=[])
def loose_word() -> Given:
    play = begun(2)
    play.ledger.object(2, ref("1#2"), Reason.MALFORMED)
    return given(play)


# ---- reports -------------------------------------------------------------------------------------------------------


@case(REPORTS, "a report edited", "report", "failed", "a store gave bytes with the CID", on="2#2")
def report_edited() -> Given:
    one = shown()
    one.blobs[report_of("2#2")] = one.blobs[report_of("2#2")].replace(b'"merged"', b'"stale"', 1)
    return one


def reported(change: Callable[[dict[str, Any]], Any], **more: Any) -> Given:
    """2#2 commits to a report of which something was changed."""

    def rewrite(report: bytes) -> bytes:
        table = json.loads(report)
        return json.dumps(change(table) or table).encode()

    return told({"2#2": Lie(report=rewrite)}, **more)


@case(
    REPORTS,
    "a report that tells another outcome",
    "report",
    "failed",
    "the report says that update 3#1 is 'stale'; log and replay say 'merged'",
    on="2#2",
)
def other_outcome() -> Given:
    return reported(lambda table: table["candidates"][2].update(outcome="stale"))


@case(
    REPORTS,
    "a report that says nothing of a candidate",
    "report",
    "failed",
    "the report says nothing of update 3#1",
    on="2#2",
)
def untold() -> Given:
    return reported(lambda table: table["candidates"].pop(2) and None)


@case(
    REPORTS,
    "a report that tells of an update that nobody considered",
    "report",
    "failed",
    "the report tells of update 9 of peer 3, which the policy did not consider",
    on="2#2",
)
def other_sequence() -> Given:
    return reported(lambda table: table["candidates"].append({**table["candidates"][2], "sequence": 9}))


@case(
    REPORTS,
    "a report that tells of a candidate twice",
    "report",
    "failed",
    "expected each update once, got 2 of peer 1 again",
    on="2#2",
)
def told_twice() -> Given:
    return reported(lambda table: table["candidates"].append(table["candidates"][0]))


@case(REPORTS, "a report that tells of billions of peers", "report", "failed", "expected each peer once", on="2#2")
def billions() -> Given:
    crowd = {"peers": "1-4000000000", "count": 4, "outcome": "stale", "reason": ""}
    return reported(lambda table: table.update(candidates=[crowd]))


@case(REPORTS, "a report of another base than the ledger's", "report", "failed", "the report says base =", on="2#2")
def other_base() -> Given:
    return reported(lambda table: table.update(base="00" * 32))


@case(
    REPORTS,
    "a report of other test rows than the ledger's",
    "report",
    "failed",
    "the report counts 4 samples",
    on="2#2",
)
def other_samples() -> Given:
    return reported(lambda table: table["metrics"].update(samples=4))


@case(REPORTS, "a report that is no JSON object", "report", "failed", "not the JSON that a report is", on="2#2")
def no_report() -> Given:
    return told({"2#2": Lie(report=lambda _: b"[" * 100_000)})


@case(REPORTS, "a report that nobody serves", "report", "unknown", "none of 1 stores has", on="2#2")
def report_gone() -> Given:
    one = shown()
    del one.blobs[report_of("2#2")]
    return one


# ---- accounts of privacy -------------------------------------------------------------------------------------------

ACCOUNTS = "Accounts of differential privacy"


def accounted(**changes: Any) -> Given:
    """2#2 tells another account. An honest one has spent 0.5 before it and 1.0 after it."""
    return reported(lambda table: table["privacy"].update(**changes), mechanism="example")


@case(ACCOUNTS, "less spent than before", "report", "suspicious", "what was spent stays spent", on="2#2")
def spent_less() -> Given:
    return accounted(epsilon=0.25)


@case(ACCOUNTS, "trained for nothing", "report", "suspicious", "was spent already before it", on="2#2")
def spent_nothing() -> Given:
    return accounted(epsilon=0.5)


@case(
    ACCOUNTS, "more spent than the budget", "report", "failed", "the spec's budget is 8", on="2#2", also=["2#3 report"]
)
def overspent() -> Given:
    return accounted(epsilon=8.1)


@case(ACCOUNTS, "another budget than the spec's", "report", "failed", "privacy.budget_epsilon = '80", on="2#2")
def other_budget() -> Given:
    return accounted(budget_epsilon=80.0)


@case(ACCOUNTS, "no account where the spec asks for one", "report", "failed", "nothing of what was spent", on="2#2")
def no_account() -> Given:
    return reported(lambda table: table.pop("privacy") and None, mechanism="example")


@case(
    ACCOUNTS,
    "a score that is not rounded as the spec says",
    "score",
    "failed",
    "it records a score of 624,000 ppm",
    on="2#2",
)
def unrounded() -> Given:
    lie = Lie(scored=lambda found: replace(found, score_ppm=found.score_ppm + 4_000))
    return told({"2#2": lie}, mechanism="example")


@case(REPORTS, "a report of another encoding than the ledger's", "report", "failed", "bytes.encoding = 'f16'", on="2#2")
def other_encoding() -> Given:
    return reported(lambda table: table.update(bytes={"encoding": "f16", "zstd": False, "full": True}))
