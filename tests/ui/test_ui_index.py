"""What entries make of the explorer's tables."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
from ui_logs import Explored, explored
from ui_scribe import Scribe
from wild_logs import Folded, fresh, write

from fl_node.ledger import codec
from fl_node.merging.scores import attested_ppm
from fl_node.prefix import Prefix
from fl_node.records import PPM, Flag, Reason, UpdatePublished, UpdateRef
from fl_node.spec import Spec

sys.path.append(str(Path(__file__).parent.parent / "merging"))

from random_logs import random_log


def scribe() -> Scribe:
    return Scribe(b"\1" * 32)


def row(one: Folded, ref: str) -> dict[str, Any]:
    """An update's row."""
    peer, sequence = ref.split("#")
    found = one.db.execute("SELECT * FROM updates WHERE peer = ? AND sequence = ?", (peer, sequence))
    names = [column[0] for column in found.description]
    return dict(zip(names, found.fetchone(), strict=True))


# ---- whole federations -----------------------------------------------------------------------------------------------


def test_a_played_federation_is_indexed(world: Explored) -> None:
    told = world.json("/updates.json?order=asc&limit=500")
    assert told["federation"]["state"] == "following" and told["federation"]["detail"] == ""
    assert told["paging"]["total"] == len(told["rows"])
    assert {row["state"] for row in told["rows"]} >= {"merged", "closing", "ignored"}


def test_small_and_hostile_ones_answer(empty: Explored, lonely: Explored, hostile: Explored, unseen: Explored) -> None:
    for one in (empty, lonely, hostile, unseen):
        for path in ("/updates", "/updates.json", "/updates.csv"):
            assert one.get(path).status_code == 200, path


@pytest.mark.parametrize("seed", range(12))
def test_rows_are_what_the_prefix_says(seed: int, tmp_path: Path) -> None:
    """Logs that a contract takes, against the package's own fold."""
    dice = random.Random(seed)
    log = random_log(dice, peers=dice.randint(2, 6), steps=80)
    told = scribe()
    del told.logs_made[:], told._sizes[:], told._hashes[:]
    for entry in log.entries:
        told.raw(codec.encode(entry.index, entry.time_s, entry.body))
    one = Folded(tmp_path / "log.sqlite", told)
    one.follow(dice.choice((1, 7, 1000)))
    prefix, spec = Prefix(one.log.entries()), Spec.model_validate({})
    children: dict[UpdateRef, list[UpdateRef]] = {}
    updates = [entry for facts in prefix.peers() for entry in prefix.updates(facts.number)]
    for entry in updates:
        for parent in {parent.ref for parent in entry.parents if parent.share_ppm}:
            children.setdefault(parent, []).append(entry.ref)
    for entry in updates:
        got, counts = row(one, str(entry.ref)), prefix.counts(entry.ref.peer, entry.index)
        score, sites = attested_ppm(spec, prefix, entry)
        objections = prefix.objections(entry.ref)
        merged_by = {
            ref.peer
            for ref in children.get(entry.ref, ())
            if ref.peer != entry.ref.peer and prefix.counts(ref.peer, prefix.update(ref).index)
        }
        assert (got["idx"], got["round"], got["time_s"]) == (entry.index, entry.round, entry.time_s)
        assert (got["attested_ppm"], got["attested_sites"]) == (score, sites)
        assert got["attestations"] == len(prefix.attestations(entry.ref))
        assert got["objections"] == len(objections)
        withdrawn = [word for word in objections if word.reason is Reason.WITHDRAWN and word.peer == entry.ref.peer]
        assert got["withdrawn"] == len(withdrawn)
        assert (got["ignored"] is None) == counts
        assert (got["children"], got["merged_by"]) == (len(children.get(entry.ref, ())), len(merged_by))
        expected = "ignored" if not counts else "closing" if entry.final else "merged" if merged_by else "submitted"
        assert got["state"] == expected
    for facts in prefix.peers():
        found = one.db.execute(
            "SELECT p.account, s.name, p.roles, p.admitted, p.round_at_admission, p.retired, p.retired_from "
            "FROM peers p JOIN sites s ON s.site = p.site WHERE p.peer = ?",
            (facts.number,),
        ).fetchone()
        end = facts.retirement
        assert found == (
            *(facts.account, facts.site, int(facts.roles), facts.admitted, facts.round_at_admission),
            *((None, None) if end is None else (end.index, end.from_index)),
        )
    kinds = dict(one.db.execute("SELECT kind, entries FROM kinds").fetchall())
    assert sum(kinds.values()) == prefix.size and kinds.get("UpdatePublished", 0) == len(updates)
    one.close()


# ---- whatever comes, in whatever pieces ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_reorganisations_leave_what_a_fresh_fold_has(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    told = scribe()
    one = Folded(tmp_path / "log.sqlite", told)
    for part in range(6):
        write(dice, told, dice.randint(0, 25))
        if dice.random() < 0.7:
            told.cut(dice.randint(1, told.size))
            write(dice, told, dice.randint(0, 12))
        one.follow(dice.choice((1, 2, 5, 1000)))
        assert one.fold.agrees()
        if part % 2:
            assert one.tables() == fresh(tmp_path / "fresh", told), (seed, part)
    one.close()


@pytest.mark.parametrize("seed", range(4))
def test_every_shorter_log_can_be_gone_back_to(seed: int, tmp_path: Path) -> None:
    dice = random.Random(1000 + seed)
    told, shorter = scribe(), scribe()
    write(dice, told, 45)
    one, other = Folded(tmp_path / "log.sqlite", told), Folded(tmp_path / "other.sqlite", shorter)
    one.follow()
    other.follow()
    forth = {}
    for log in told.logs_made[1:]:
        forth[shorter.size] = other.tables()
        shorter.raw((log.topics, log.data))
        other.follow(1)
    assert one.tables() == other.tables(), "entry by entry it is the same"
    for size in range(told.size - 1, 0, -1):
        told.cut(size)
        one.follow()
        assert one.tables() == forth[size], (seed, size)
    one.close()
    other.close()


@pytest.mark.parametrize("seed", range(4))
def test_batches_do_not_matter(seed: int, tmp_path: Path) -> None:
    dice = random.Random(2000 + seed)
    told = scribe()
    write(dice, told, 80)
    expected = fresh(tmp_path / "a", told)
    for batch in (1, 7):
        assert fresh(tmp_path / "b", told, batch) == expected


def test_a_fold_goes_all_the_way_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = scribe()
    one = Folded(tmp_path / "log.sqlite", told)
    told.admit("a")
    one.follow()
    before = one.tables()
    told.publish(1, 1, 1)
    one.log.sync()
    with monkeypatch.context() as patch:
        patch.setattr("ledger_ui.index.fold.recount", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            one.fold.advance()
    assert one.tables() == before
    one.follow()
    assert one.tables() == fresh(tmp_path / "fresh", told)
    one.close()


def test_a_crash_between_log_and_tables_is_found_out(tmp_path: Path) -> None:
    """The log was reorganised, and the process ended before the tables were."""
    told = scribe()
    for site in ("a", "b", "c"):
        told.admit(site)
    told.publish(1, 1, 1)
    told.publish(2, 1, 1)
    one = Folded(tmp_path / "log.sqlite", told)
    one.follow()
    told.cut(4)
    told.publish(3, 1, 1)
    told.publish(1, 1, 1, (3, 1, PPM))
    one.log.sync()
    assert one.fold.size == one.log.size and not one.fold.agrees(), "as many entries, but others"
    one.close()
    again = explored(tmp_path / "shown", told)
    again.shown.store.path.unlink()
    again.shown.store.path.hardlink_to(tmp_path / "log.sqlite")
    again.look()
    with again.shown.store.reading() as db:
        assert [row["state"] for row in db.execute("SELECT state FROM updates ORDER BY idx")] == ["merged", "submitted"]
    again.stop()


# ---- one by one ------------------------------------------------------------------------------------------------------


def test_a_retirement_counts_from_where_it_says(tmp_path: Path) -> None:
    told = scribe()
    for site in ("a", "b", "c"):
        told.admit(site)
    told.publish(1, 1, 1)
    told.publish(2, 1, 1, (1, 1, PPM))
    told.attest(2, (1, 1, 600_000))
    told.attest(3, (1, 1, 700_000))
    told.object(2, UpdateRef(1, 1))
    one = Folded(tmp_path / "log.sqlite", told)
    one.follow()
    assert [row(one, "1#1")[key] for key in ("attested_ppm", "attested_sites", "objections", "merged_by", "state")] == [
        *(600_000, 2, 1, 1, "merged"),
    ]
    told.retire(2, 5)
    one.follow()
    assert [row(one, "1#1")[key] for key in ("attested_ppm", "attested_sites", "objections", "merged_by", "state")] == [
        *(700_000, 1, 0, 0, "submitted"),
    ]
    assert row(one, "2#1")["ignored"] == "its writer was retired from entry 5 on, at entry 9"
    told.publish(2, 2, 2)
    one.follow()
    assert row(one, "2#2")["state"] == "ignored", "a contract would have refused it"
    one.close()


def test_the_same_site_attests_nothing(tmp_path: Path) -> None:
    told = scribe()
    for site in ("a", "a", "b"):
        told.admit(site)
    told.publish(1, 1, 1)
    told.attest(2, (1, 1, 990_000))
    told.attest(1, (1, 1, 999_999))
    told.attest(77, (1, 1, 100_000))
    one = Folded(tmp_path / "log.sqlite", told)
    one.follow()
    assert [row(one, "1#1")[key] for key in ("attestations", "attested_sites", "attested_ppm")] == [2, 0, None]
    told.attest(3, (1, 1, 500_000))
    one.follow()
    assert [row(one, "1#1")[key] for key in ("attestations", "attested_sites", "attested_ppm")] == [3, 1, 500_000]
    one.close()


def test_words_before_an_admission_do_not_count(tmp_path: Path) -> None:
    told = scribe()
    told.admit("a")
    told.publish(1, 1, 1)
    told.attest(2, (1, 1, 100_000))
    told.object(2, UpdateRef(1, 1))
    told.publish(2, 1, 1, (1, 1, PPM))
    told.admit("b")
    one = Folded(tmp_path / "log.sqlite", told)
    one.follow()
    found = row(one, "1#1")
    assert [found[key] for key in ("attestations", "objections", "merged_by", "children")] == [0, 0, 0, 1]
    assert row(one, "2#1")["ignored"] == "its writer was never admitted" and row(one, "2#1")["site"] is None
    one.close()


def test_doubles_and_loops_change_nothing(tmp_path: Path) -> None:
    told = scribe()
    told.admit("a")
    told.admit("b")
    told.publish(1, 1, 1)
    told.publish(1, 1, 9, (2, 1, PPM), score_ppm=1)
    told.publish(2, 1, 1, (2, 1, PPM), (2, 2, PPM), (1, 1, 1), (1, 1, 2))
    told.publish(2, 2, 2, flags=Flag.FINAL)
    one = Folded(tmp_path / "log.sqlite", told)
    one.follow()
    assert row(one, "1#1")["round"] == 1 and row(one, "1#1")["score_ppm"] == 800_000
    assert [row(one, "1#1")[key] for key in ("children", "merged_by")] == [1, 1], "listed twice, merged once"
    assert one.db.execute("SELECT parent FROM parents ORDER BY position").fetchall() == [(None,), (None,), (3,), (3,)]
    one.close()


def test_numbers_beyond_sqlite_are_held(hostile: Explored) -> None:
    with hostile.shown.store.reading() as db:
        seen, sealed = db.execute("SELECT seen, sealed_at FROM updates WHERE peer = 4").fetchone()
        assert seen == sealed == 2**63 - 1
        retired = db.execute("SELECT retired_from FROM peers WHERE peer = 2").fetchone()[0]
        assert retired == 0, "the last retirement is in force"
        unknown = db.execute("SELECT entries FROM kinds WHERE kind = 'UnknownEntry'").fetchone()[0]
    body = hostile.ledger.logs_made  # type: ignore[attr-defined]
    kinds = [type(codec.decode(log.topics, log.data)[2]) for log in body]
    assert unknown == sum(1 for kind in kinds if kind.__name__ == "UnknownEntry") >= 3
    assert UpdatePublished in kinds
