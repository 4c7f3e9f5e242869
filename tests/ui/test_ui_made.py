"""What becomes of the file that an explorer finds where its index should be."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ui_logs import SPEC, Explored, explored, until
from ui_scribe import Scribe
from wild_logs import fresh, tables

from fl_node.errors import LedgerError
from fl_node.ledger.log_store import SCHEMA as LOG
from fl_node.records import PPM
from fl_node.spec import parse_federation
from ledger_ui import Options, create_app
from ledger_ui.federation import Source
from ledger_ui.index import made
from ledger_ui.index.schema import SCHEMA
from ledger_ui.index.store import Store

DIGEST = parse_federation(SPEC.encode()).digest


def scribe() -> Scribe:
    told = Scribe(DIGEST)
    for site in ("a", "b"):
        told.admit(site)
    told.publish(1, 1, 1)
    told.publish(2, 1, 1, (1, 1, PPM))
    return told


@pytest.fixture
def told() -> Scribe:
    return scribe()


@pytest.fixture
def file(tmp_path: Path, told: Scribe) -> Path:
    """An index that was made here, and is closed."""
    one = explored(tmp_path, told)
    one.stop()
    return one.shown.store.path


def opened(tmp_path: Path, told: Scribe, *, look: bool = True) -> Explored:
    return explored(tmp_path, told, look=look, verify=False)


def changed(file: Path, *statements: str) -> None:
    db = sqlite3.connect(file)
    with db:
        for statement in statements:
            db.execute(statement)
    db.close()


def detail(one: Explored) -> str:
    found: str = one.json("/updates.json")["federation"]["detail"]
    return found


def is_whole(one: Explored, tmp_path: Path, told: Scribe) -> bool:
    with one.shown.store.reading() as db:
        return tables(db) == fresh(tmp_path / "fresh", told)


def settle(one: Explored) -> None:
    """What the thread does where the chain does not answer."""
    follower = one.shown.follower
    assert one.shown.store.claim()
    while follower._level_offline():
        pass
    follower._tell(state="chain-down", detail="no answer")
    one.shown.store.release()


# ---- damaged ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b"this is no database " * 1000),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:4096] + b"\xff" * 60_000),
        lambda file: file.unlink(),
        lambda file: os.truncate(file, 5000),
    ],
    ids=["no database", "empty", "first page only", "gone", "cut off"],
)
def test_a_damaged_index_is_made_again(damage: Callable[[Path], Any], file: Path, tmp_path: Path, told: Scribe) -> None:
    damage(file)
    one = opened(tmp_path, told, look=False)
    assert one.get("/updates").status_code in (200, 503)
    follower = one.shown.follower
    follower.start()
    until(lambda: follower.now.state == "following" and follower.now.folded == told.size)
    assert is_whole(one, tmp_path, told)
    one.stop()


def test_damage_that_a_reader_meets_is_mended(file: Path, tmp_path: Path, told: Scribe) -> None:
    one = opened(tmp_path, told)
    follower = one.shown.follower
    follower._poll_s = 0.02
    follower.start()
    until(lambda: follower.now.heard_at)
    before = file.stat().st_ino
    with pytest.raises(sqlite3.DatabaseError), one.shown.store.reading():
        raise made_up_damage()
    told.publish(1, 2, 2, (1, 1, 400_000), (2, 1, 600_000))
    until(lambda: file.stat().st_ino != before and not one.shown.store.suspect and is_whole(one, tmp_path, told))
    one.stop()


def made_up_damage() -> sqlite3.DatabaseError:
    found = sqlite3.DatabaseError("database disk image is malformed")
    found.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return found


def test_a_log_that_lost_its_root_is_read_again(file: Path, tmp_path: Path, told: Scribe) -> None:
    """A bit of the tree is another: whatever the chain says would seem a lie."""
    changed(file, "UPDATE nodes SET hash = zeroblob(32)", "UPDATE entries SET leaf = zeroblob(32) WHERE idx = 4")
    told.publish(1, 2, 2, (1, 1, 400_000), (2, 1, 600_000))
    one = opened(tmp_path, told, look=False)
    one.shown.follower.start()
    until(lambda: one.shown.follower.now.folded == told.size and one.shown.follower.now.state == "following")
    assert is_whole(one, tmp_path, told)
    one.stop()


def test_pages_go_on_while_the_file_is_replaced(file: Path, tmp_path: Path, told: Scribe) -> None:
    one = opened(tmp_path, told)
    store = one.shown.store
    assert one.json("/updates.json")["paging"]["total"] == 2
    assert store.claim()
    with store.reading() as old:
        store.make_anew("to see")
        assert old.execute("SELECT count(*) FROM updates").fetchone()[0] == 2, "a page is of one state"
    store.release()
    assert one.json("/updates.json")["paging"]["total"] == 0, "the next is of the file that is there now"
    one.look()
    assert one.json("/updates.json")["paging"]["total"] == 2
    one.stop()


# ---- of another ledger, another version ------------------------------------------------------------------------------


def test_an_index_of_another_ledger_is_set_aside(file: Path, tmp_path: Path) -> None:
    other = Scribe(parse_federation(SPEC.replace("four clinics", "others").encode()).digest)
    one = explored(tmp_path, other, SPEC.replace("four clinics", "others").encode(), look=False)
    assert one.json("/updates.json")["paging"]["total"] == 0
    assert (
        "of another ledger" in one.shown.store.note and "federation.toml.explorer.sqlite.aside" in one.shown.store.note
    )
    aside = sqlite3.connect(file.with_name(f"{file.name}.aside"))
    assert aside.execute("SELECT count(*) FROM updates").fetchone()[0] == 2
    aside.close()
    one.look()
    assert one.json("/updates.json")["federation"]["size"] == other.size and detail(one) == ""
    one.stop()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ui_state SET value = 0 WHERE key = 'schema'",
        "DROP INDEX updates_state",
        "ALTER TABLE updates DROP COLUMN children",
        "CREATE TABLE later (x)",
        "DROP TABLE left_out",
    ],
)
def test_tables_of_another_version_are_made_again(statement: str, file: Path, tmp_path: Path, told: Scribe) -> None:
    changed(
        file,
        "INSERT INTO reports (idx, status, body, digest) SELECT 3, 'ok', x'0102', report FROM updates WHERE idx = 3",
        "INSERT INTO transactions (tx_hash, gas_used) VALUES (x'01', 77)",
        "UPDATE ui_state SET value = 40 WHERE key = 'version'",
        statement,
    )
    told.down = True
    one = opened(tmp_path, told, look=False)
    assert "another version" in one.shown.store.note
    settle(one)
    assert is_whole(one, tmp_path, told), "the log is there without the chain"
    with one.shown.store.reading() as db:
        assert db.execute("SELECT body FROM reports").fetchone()[0] == b"\1\2", "what was fetched stays"
        known = dict(db.execute("SELECT key, value FROM ui_state").fetchall())
    assert known["gas"] == 77 and known["gas_of"] == 1 and known["version"] > 40 and "foreign" not in known
    found = made.look_at(file)
    assert found is not None and found.current
    told.down = False
    one.look()
    assert detail(one) == ""
    one.stop()


def test_what_was_fetched_by_another_version_goes(file: Path, tmp_path: Path, told: Scribe) -> None:
    changed(
        file,
        "INSERT INTO transactions (tx_hash, gas_used) VALUES (x'01', 77)",
        "ALTER TABLE reports ADD COLUMN more",
    )
    one = opened(tmp_path, told)
    with one.shown.store.reading() as db:
        known = dict(db.execute("SELECT key, value FROM ui_state").fetchall())
        assert db.execute("SELECT count(*) FROM transactions").fetchone()[0] == 0
    assert "gas" not in known and is_whole(one, tmp_path, told)
    one.stop()


@pytest.mark.parametrize("statement", ["ALTER TABLE entries ADD COLUMN more", "DROP TABLE nodes", "DROP TABLE meta"])
def test_another_log_is_none(statement: str, file: Path, tmp_path: Path, told: Scribe) -> None:
    changed(file, statement)
    one = opened(tmp_path, told)
    assert is_whole(one, tmp_path, told)
    one.stop()


def test_somebody_elses_database_is_not_touched(tmp_path: Path, told: Scribe) -> None:
    precious = tmp_path / "precious.sqlite"
    changed(precious, "CREATE TABLE precious (x)", "INSERT INTO precious VALUES (1)")
    before = precious.read_bytes()
    (tmp_path / "federation.toml.explorer.sqlite").symlink_to(precious)
    one = opened(tmp_path, told)
    assert is_whole(one, tmp_path, told)
    one.stop()
    assert precious.read_bytes() == before and not one.shown.store.path.is_symlink()


def test_a_lock_is_no_way_elsewhere(tmp_path: Path, told: Scribe) -> None:
    (tmp_path / "federation.toml.explorer.sqlite.lock").symlink_to(tmp_path / "made")
    with pytest.raises(LedgerError, match=r"cannot keep the index .* symbolic links"):
        opened(tmp_path, told)
    assert not (tmp_path / "made").exists()


# ---- by a stranger ---------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Another user's computer, from here on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("another cache")))


def test_an_index_from_a_stranger_is_shown_as_such(file: Path, tmp_path: Path, told: Scribe, elsewhere: None) -> None:
    changed(
        file,
        "UPDATE updates SET verdict = 'ok', attested_ppm = 999999, attested_sites = 7",
        "INSERT INTO audits (scope, state, verdict) VALUES ('all', 'done', 'ok')",
        "INSERT INTO reports (idx, status, body) VALUES (3, 'ok', x'0102')",
        "UPDATE sites SET name = 'made up' WHERE site = 1",
        "CREATE TRIGGER evil AFTER INSERT ON entries BEGIN DELETE FROM updates; END",
        "CREATE VIEW trap AS SELECT 1",
    )
    told.down = True
    one = opened(tmp_path, told, look=False)
    settle(one)
    assert is_whole(one, tmp_path, told), "the tables follow from the log that is there"
    assert "not made on this computer" in detail(one) and "nothing of them is checked" in detail(one)
    with one.shown.store.reading() as db:
        for table in ("audits", "reports", "verdicts"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 0, table
        assert not db.execute("SELECT 1 FROM sqlite_master WHERE name IN ('evil', 'trap')").fetchall()
    again = opened(tmp_path, told, look=False)
    assert again.json("/updates.json")["paging"]["total"] == 2, "it is not worked through at each start"
    again.stop()
    before = file.stat().st_ino
    told.down = False
    one.look()
    assert detail(one) == "" and file.stat().st_ino != before, "made again from the chain"
    assert is_whole(one, tmp_path, told)
    one.stop()
    known = opened(tmp_path, told, look=False)
    assert not known.shown.store.foreign
    known.stop()


def test_a_made_up_log_goes_when_the_chain_answers(file: Path, tmp_path: Path, told: Scribe, elsewhere: None) -> None:
    """The same chain, the same blocks, but other words in an entry."""
    changed(file, "UPDATE entries SET data = (SELECT data FROM entries WHERE idx = 1) WHERE idx = 2")
    one = opened(tmp_path, told)
    assert is_whole(one, tmp_path, told)
    one.stop()


def test_a_copy_on_the_same_computer_is_ones_own(file: Path, tmp_path: Path, told: Scribe) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / file.name).write_bytes(file.read_bytes())
    told.down = True
    one = opened(copy, told, look=False)
    assert not one.shown.store.foreign and one.json("/updates.json")["paging"]["total"] == 2
    one.stop()


def test_a_user_without_a_home_trusts_no_index(
    file: Path, tmp_path: Path, told: Scribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger_ui.federation.own_folder", lambda *_: None)
    one = opened(tmp_path, told, look=False)
    assert one.shown.store.foreign
    one.look()
    assert not one.shown.store.foreign and is_whole(one, tmp_path, told)
    one.stop()


# ---- where nothing can be written ------------------------------------------------------------------------------------


def test_an_index_that_cannot_lie_beside_the_file(
    tmp_path: Path, told: Scribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger_ui.federation.os.access", lambda *_: False)
    one = opened(tmp_path, told)
    assert one.shown.store.path.is_relative_to(os.environ["XDG_CACHE_HOME"])
    assert is_whole(one, tmp_path, told) and not list(tmp_path.glob("*.explorer.sqlite*"))
    one.stop()


def test_options_name_a_place(tmp_path: Path, told: Scribe) -> None:
    first = opened(tmp_path, told)
    first.stop()
    place = tmp_path / "else" / "where.sqlite"
    place.parent.mkdir()
    source = Source(first.file, index=place, connect=lambda: told)
    app = create_app(Options(sources=(source,), hosts=(), harvest=False), start=False)
    next(iter(app.extensions["federations"].values())).follower.look()
    assert place.is_file()


def test_every_statement_of_the_schema_is_made() -> None:
    statements = made._statements(SCHEMA)
    assert len(statements) == SCHEMA.count("CREATE ") and "".join(statements).split() == SCHEMA.split()
    assert {f"updates_{name}" for name in ("index", "state", "score", "time")} <= made.objects_of(LOG + SCHEMA).keys()


def test_a_page_that_nobody_reads_to_its_end_blocks_nothing(file: Path) -> None:
    """Python may come to tidy it up while a connection is being taken."""
    store = Store(file)

    def page() -> Iterator[int]:
        with store.reading() as db:
            yield from (row[0] for row in db.execute("SELECT 1 UNION SELECT 2"))

    left = page()
    assert next(left) == 1
    with store.reading() as db:
        assert db.execute("SELECT 1").fetchone()[0] == 1
    with store._lock:
        left.close()
    with store.reading() as db:
        assert db.execute("SELECT 2").fetchone()[0] == 2
    assert len(store._idle) == 2
    store.close()
