"""Packs altered by somebody who makes the manifest fit: each ends in the check that is there for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from given import Given
from given_log import updates_in, with_log
from packs import failed, lines_of, put_together, taken_apart, verified, with_lines

from fl_node.audit.verdicts import Result
from fl_node.content.cid import Cid
from fl_node.content.names import cid_of_update
from fl_node.errors import ChecksFailed, MalformedEvidence
from fl_node.evidence.read import opened
from fl_node.ledger import codec
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import UpdateRef


@pytest.fixture
def files(pack: Path) -> dict[str, bytes]:
    return taken_apart(pack)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "tampered.zip"


def update(played: Given, text: str) -> UpdateEntry:
    ref = UpdateRef.parse(text)
    assert ref is not None
    return played.means().prefix.update(ref)


def blob(played: Given, text: str) -> str:
    return f"blobs/{cid_of_update(update(played, text).update)}.car"


def report(played: Given, text: str) -> str:
    return f"reports/{Cid('raw', update(played, text).update.report)}.json"


def merged_from(prefix: Prefix, ref: str) -> set[str]:
    """Updates that recorded this one as a parent."""
    return {
        str(child.ref)
        for facts in prefix.peers()
        for child in prefix.updates(facts.number)
        if any(str(parent.ref) == ref for parent in child.parents)
    }


def results(path: Path, check: str) -> dict[str, Result]:
    return {
        str(one.ref): finding.result
        for one in verified(path).updates
        for finding in one.findings
        if finding.check == check
    }


def test_an_honest_pack_has_no_failure(pack: Path) -> None:
    found = verified(pack)
    assert failed(found) == set() and len(found.updates) == 18
    for check in ("included", "consistent", "bytes", "well-formed", "commitment", "merge", "selection", "report"):
        assert set(results(pack, check).values()) == {Result.OK}, check
    # Nobody to ask, and no chain: not known, and not asked for.
    for check in ("canonical", "available"):
        findings = [one for update in found.updates for one in update.findings if one.check == check]
        assert {(one.result, one.asked) for one in findings} == {(Result.UNKNOWN, False)}
    assert [one.result for one in found.findings if one.check == "consistent"] == [Result.OK, Result.OK]
    assert any("only the chain" in note for note in found.notes)


def test_a_blob_swapped_for_another(played: Given, files: dict[str, bytes], out: Path) -> None:
    ours, theirs = blob(played, "1#2"), blob(played, "2#2")
    put_together({**files, ours: files[theirs]}, out)
    assert failed(verified(out)) == {("1#2", "bytes")}
    merges = results(out, "merge")
    unknown = {ref for ref, result in merges.items() if result is Result.UNKNOWN}
    assert unknown == merged_from(played.means().prefix, "1#2")


@pytest.mark.parametrize("spoil", [lambda raw: raw[:-1], lambda raw: raw[:60], lambda raw: b"", lambda raw: raw + raw])
def test_a_car_cut_short_or_doubled(
    spoil: Callable[[bytes], bytes], played: Given, files: dict[str, bytes], out: Path
) -> None:
    name = blob(played, "3#1")
    put_together({**files, name: spoil(files[name])}, out)
    assert failed(verified(out)) == {("3#1", "bytes")}


def test_a_byte_of_a_blob(played: Given, files: dict[str, bytes], out: Path) -> None:
    name = blob(played, "4#3")
    raw = files[name]
    put_together({**files, name: raw[:-9] + bytes([raw[-9] ^ 4]) + raw[-8:]}, out)
    assert failed(verified(out)) == {("4#3", "bytes")}


def test_a_report_edited(played: Given, files: dict[str, bytes], out: Path) -> None:
    name = report(played, "2#1")
    table = json.loads(files[name])
    table["metrics"]["accuracy"] = 1.0
    put_together({**files, name: json.dumps(table).encode()}, out)
    assert failed(verified(out)) == {("2#1", "report")}


def test_a_file_left_out_is_not_known(played: Given, files: dict[str, bytes], out: Path) -> None:
    gone = {blob(played, "1#3"), report(played, "2#2"), "checkpoints/000000.txt"}
    kept = {name: raw for name, raw in files.items() if name not in gone}
    kept["checkpoints/000000.txt"] = kept.pop("checkpoints/000001.txt")
    with_log(kept, lines_of(files, "log"), out)
    assert failed(verified(out)) == set()
    assert results(out, "bytes")["1#3"] is Result.UNKNOWN and results(out, "report")["2#2"] is Result.UNKNOWN


def test_proofs_of_two_entries_swapped(played: Given, files: dict[str, bytes], out: Path) -> None:
    one, other = update(played, "1#2").index, update(played, "3#2").index
    proofs = lines_of(files, "proofs/inclusion")
    proofs[one]["path"], proofs[other]["path"] = proofs[other]["path"], proofs[one]["path"]
    put_together(with_lines(files, "proofs/inclusion", proofs), out)
    assert failed(verified(out)) == {("1#2", "included"), ("3#2", "included")}

    proofs = lines_of(files, "proofs/inclusion")
    proofs[3]["path"].append("0" * 64)
    put_together(with_lines(files, "proofs/inclusion", proofs), out)
    found = verified(out)
    assert failed(found) == {("", "included")}
    assert any("entry 3" in one.detail for one in found.findings if one.check == "included")


def test_a_consistency_proof_of_another_size(files: dict[str, bytes], out: Path) -> None:
    proofs = lines_of(files, "proofs/consistency")
    for key in ("path", "old_root"):
        changed = [dict(proof) for proof in proofs]
        changed[1][key] = proofs[2][key]
        put_together(with_lines(files, "proofs/consistency", changed), out)
        found = verified(out)
        assert failed(found) == {("", "consistent")}
        assert any(f"the first {proofs[1]['old']} entries" in one.detail for one in found.findings)


def test_another_transaction_under_its_hash(played: Given, files: dict[str, bytes], out: Path) -> None:
    signed = lines_of(files, "transactions")
    index = update(played, "2#3").index
    position = next(n for n, one in enumerate(signed) if one["hash"] == lines_of(files, "log")[index]["tx"])
    for raw in (signed[position - 1]["raw"], signed[position]["raw"][:-2] + "00"):
        changed = [dict(one) for one in signed]
        changed[position]["raw"] = raw
        put_together(with_lines(files, "transactions", changed), out)
        result = results(out, "canonical")["2#3"]
        assert result is Result.FAILED or (result is Result.UNKNOWN and raw.endswith("00"))


def test_an_entry_altered_and_the_root_left(played: Given, files: dict[str, bytes], out: Path) -> None:
    index = update(played, "2#2").index
    lines = lines_of(files, "log")
    lines[index]["data"] = lines[index]["data"][:-1] + "1"
    put_together(with_lines(files, "log", lines), out)
    with pytest.raises(ChecksFailed, match=f"included: failed.*entry {index} is not the one"), opened(out):
        pass


def test_an_entry_altered_and_all_made_to_fit(played: Given, files: dict[str, bytes], out: Path) -> None:
    """Root and proofs are those of the altered log; whoever saw the log after that entry signed another root."""
    target = update(played, "2#2")
    lines = lines_of(files, "log")
    body = played.body(target.index)
    assert hasattr(body, "update")
    topics, data = codec.encode(target.index, target.time_s, replaced(body, score_ppm=999_000))
    lines[target.index] |= {"topics": [topic.hex() for topic in topics], "data": data.hex()}
    found = verified(with_log(files, lines, out))
    later = {
        str(one.ref)
        for facts in played.means().prefix.peers()
        for one in played.means().prefix.updates(facts.number)
        if one.update.seen > target.index
    }
    assert ("2#2", "canonical") in failed(found) and ("2#2", "report") in failed(found)
    assert {(ref, "consistent") for ref in later} | {("", "consistent")} <= failed(found)


def test_the_last_entries_left_out(played: Given, files: dict[str, bytes], out: Path) -> None:
    """A shorter log is a log; a checkpoint of the longer one says that something was left out."""
    lines = lines_of(files, "log")[:-3]
    hashes = {line["tx"] for line in lines}
    kept = with_lines(files, "transactions", [one for one in lines_of(files, "transactions") if one["hash"] in hashes])
    updates = updates_in(lines)
    named = {str(cid_of_update(one)) for one in updates} | {str(Cid("raw", one.report)) for one in updates}
    kept = {
        name: raw
        for name, raw in kept.items()
        if not name.startswith(("blobs/", "reports/")) or name.partition("/")[2].partition(".")[0] in named
    }
    found = verified(with_log(kept, lines, out))
    assert failed(found) == {("", "consistent")}
    assert any("shorter than signed" in one.detail for one in found.findings)


def test_the_spec_changed_afterwards(files: dict[str, bytes], out: Path) -> None:
    raw = files["federation.toml"].replace(b"planned = 3", b"planned = 4")
    assert raw != files["federation.toml"]
    kept = {name: data for name, data in files.items() if name != "lineage.prov.json"}
    put_together({**kept, "federation.toml": raw}, out)
    assert ("", "opening") in failed(verified(out))


def test_another_genesis(files: dict[str, bytes], out: Path) -> None:
    raw = files["genesis.safetensors"]
    put_together({**files, "genesis.safetensors": raw[:-1] + bytes([raw[-1] ^ 1])}, out)
    assert failed(verified(out)) == {("", "opening")}


def test_a_checkpoint_forged(files: dict[str, bytes], out: Path) -> None:
    note = files["checkpoints/000001.txt"]
    lines = note.split(b"\n")
    other = b"\n".join([lines[0], lines[1], lines[2][::-1], *lines[3:]])
    put_together({**files, "checkpoints/000001.txt": other}, out)
    with pytest.raises(MalformedEvidence, match=r"checkpoints/000001\.txt"), opened(out):
        pass


def replaced(body: Any, **facts: Any) -> Any:
    """A published update with other facts."""
    return replace(body, update=replace(body.update, **facts))
