"""What the explorer keeps of selections and rounds is what completeness derives, however the log grew."""

from __future__ import annotations

import json
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent.parent / "merging"))
sys.path.append(str(Path(__file__).parent.parent / "lineage"))

from federations import Played
from logs import Log, spec
from random_logs import SELECTIONS, orderly_log, random_log, random_spec
from ui_logs import digest
from ui_scribe import Scribe

from fl_node.completeness import completeness
from fl_node.completeness.choices import candidates_of
from fl_node.errors import SpecError
from fl_node.ledger import codec
from fl_node.ledger.index import LedgerIndex
from fl_node.merging import selection
from fl_node.prefix import Prefix
from fl_node.presets import PRESETS
from fl_node.records import Entry, UpdatePublished, UpdateRef
from fl_node.simulation.batches import Batcher
from fl_node.simulation.deal import Source, deal
from fl_node.simulation.faults import Faults, cast
from fl_node.simulation.federation import in_memory
from fl_node.simulation.settings import Settings
from fl_node.simulation.ticks import Ticks
from fl_node.spec import Spec
from ledger_ui.index import replayed
from ledger_ui.index.fold import Fold
from ledger_ui.index.replayed import Replayed
from ledger_ui.index.store import Store
from ledger_ui.questions.ranges import worked


class Grown:
    """An index over a log that grows entry by entry, and may be cut back."""

    def __init__(self, folder: Path, rules: Spec, **replay: Any) -> None:
        self.rules, self._replay = rules, replay
        self.ledger = Scribe(digest("spec"))
        self.store = Store(folder / "index.sqlite")
        self.store.prepare()
        self.log = LedgerIndex(self.store.path, self.ledger)
        self.db = self.store.writer()
        self.fold = Fold(self.db, self.log)
        self.restart()

    def restart(self) -> None:
        """As if another process went on."""
        self.step = Replayed(self.rules, **self._replay)

    def write(self, entries: list[Entry]) -> None:
        """The entries of a log written by hand that the ledger does not have yet."""
        for entry in entries[self.ledger.size :]:
            self.ledger.raw(codec.encode(entry.index, entry.time_s, entry.body))

    def follow(self, once: bool = False) -> None:
        synced = self.log.sync()
        if synced.orphaned:
            self.fold.back_to(min(entry.index for entry in synced.orphaned))
        while self.fold.advance():
            pass
        while self.step(self.log, self.db) and not once:
            pass

    @property
    def prefix(self) -> Prefix:
        return Prefix(self.log.entries())

    def grow(self, entries: list[Entry], size: int) -> None:
        self.write(entries[:size])
        self.follow()

    def ask(self, query: str, *values: object) -> list[Any]:
        return self.db.execute(query, values).fetchall()

    def agree(self) -> None:
        """Everything that is kept is as it is derived from the whole log at once."""
        prefix = self.prefix
        told = completeness(self.rules, prefix).as_json()
        numbers = {row["round"] for row in told["rounds"]}
        kept = {row[0]: json.loads(row[1]) for row in self.ask("SELECT round, told FROM rounds")}
        assert kept == {row["round"]: {**row, "exact": True} for row in told["rounds"]}
        states = {(row[0], row[1]): row[2] for row in self.ask("SELECT round, peer, state FROM absences")}
        came = {(row[0], row[1]): row[2] for row in self.ask("SELECT round, peer, state FROM updates")}
        assert not states.keys() & came.keys()
        states |= came
        for site in told["sites"]:
            for peer in site["peers"]:
                mine = [states.pop((number, peer["peer"]), "not-expected") for number in sorted(numbers)]
                assert mine == peer["states"], (prefix.size, peer["peer"])
        assert not states
        self._agree_on_updates(prefix, told)

    def _agree_on_updates(self, prefix: Prefix, told: dict[str, Any]) -> None:
        names = {row[0]: f"{row[1]}#{row[2]}" for row in self.ask("SELECT idx, peer, sequence FROM updates")}
        left: dict[str, dict[tuple[str, str], list[str]]] = {}
        for idx, by, outcome, reason in self.ask("SELECT * FROM left_out ORDER BY by_idx"):
            who = left.setdefault(names[idx], {}).setdefault((outcome, reason), [])
            who += [] if by < 0 else [names[by]]
        for one in told["updates"]:
            found = left.pop(one["update"], {})
            assert found == {(item["outcome"], item["reason"]): item["by"] for item in one["left_out"]}
            (counted,) = self.ask("SELECT left_out_by FROM updates WHERE idx = ?", one["entry"])[0]
            assert counted == sum(map(len, found.values()))
        assert not left
        ignored = dict(self.ask("SELECT idx, ignored FROM updates WHERE ignored IS NOT NULL"))
        assert ignored == {one["entry"]: one["why"] for one in told["ignored"] if one["update"]}
        choices = dict(self.ask("SELECT idx, outcomes FROM choices"))
        assert set(choices) == set(names)
        for idx, outcomes in choices.items():
            update = prefix.update(_ref(names[idx]))
            assert (None if outcomes is None else json.loads(outcomes)) == candidates_of(self.rules, prefix, update)

    def close(self) -> None:
        self.db.close()
        self.log.close()
        self.store.close()


def _ref(name: str) -> UpdateRef:
    peer, _, sequence = name.partition("#")
    return UpdateRef(int(peer), int(sequence))


@pytest.fixture
def grown(tmp_path: Path) -> Iterator[Callable[..., Grown]]:
    made: list[Grown] = []

    def make(rules: Spec, **replay: Any) -> Grown:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Grown(folder, rules, **replay))
        return made[-1]

    yield make
    for one in made:
        one.close()


def some(dice: random.Random, most: int, many: int = 7) -> list[int]:
    """Sizes at which to look, the whole among them."""
    return sorted({*(dice.randint(1, most) for _ in range(many)), most})


@pytest.mark.parametrize("seed", range(32))
def test_random_logs_at_every_stage(grown: Callable[..., Grown], seed: int) -> None:
    """All selections, both paces; members come, are retired from earlier entries on, close, object and attest."""
    dice = random.Random(seed)
    rules = random_spec(dice, SELECTIONS[seed % len(SELECTIONS)])
    log = random_log(dice, 6, 90) if seed % 2 else orderly_log(dice, 6, 7)
    one = grown(rules, budget_s=dice.choice((0.0, 1.0)))
    for size in some(dice, len(log.entries)):
        one.grow(log.entries, size)
        one.agree()
        if dice.random() < 0.3:
            one.restart()


@pytest.mark.parametrize("mode", ["async", "sync"])
@pytest.mark.parametrize("seed", range(6))
def test_a_reorganised_log(grown: Callable[..., Grown], seed: int, mode: str) -> None:
    """Entries go, others come instead; nothing of those that went is left over."""
    dice = random.Random(100 + seed)
    rules = random_spec(dice, SELECTIONS[seed], mode)
    one = grown(rules)
    for _ in range(3):
        log = orderly_log(dice, 5, 6)
        kept = dice.randint(1, min(one.ledger.size, len(log.entries) - 1))
        one.ledger.cut(1 if one.ledger.size == 1 else kept)
        one.ledger.cut(1)  # another history altogether
        for size in some(dice, len(log.entries), 3):
            one.grow(log.entries, size)
        one.agree()
        size = len(log.entries)
        back = dice.randint(size // 2, size - 1)
        one.ledger.cut(back)
        one.follow()
        one.agree()
        if dice.random() < 0.5:
            one.restart()
        one.grow(log.entries, size)
        one.agree()


def test_what_was_undone_before_it_was_replayed(grown: Callable[..., Grown]) -> None:
    """The fold is ahead of the replay when the chain takes entries back: the open rounds are told all the same."""
    log = orderly_log(random.Random(3), 5, 6)
    one = grown(spec(), budget_s=0.0)
    one.write(log.entries)
    one.follow(once=True)
    assert 0 < worked(one.db).size < 5
    one.ledger.cut(len(log.entries) - 3)
    one.follow()
    one.agree()


def test_stragglers_dropouts_and_retirement_as_they_happen(grown: Callable[..., Grown]) -> None:
    rules = spec(rounds={"mode": "sync", "deadline_s": 30.0}, merging={"max_staleness": 2})
    game = Played(rules, Log(4))
    one = grown(rules)

    def so_far() -> None:
        one.grow(game.log.entries, len(game.log.entries))
        one.agree()

    game.round(1, 1, 2, 3, 4)
    so_far()
    game.round(2, 1, 2, 4)
    so_far()
    assert one.ask("SELECT peer, state FROM absences WHERE round = 2") == [(3, "awaited")]
    game.wait(40)
    so_far()
    assert one.ask("SELECT peer, state FROM absences WHERE round = 2") == [(3, "missing")]
    late = game.play(3, 2)
    so_far()
    (state, by) = one.ask("SELECT state, left_out_by FROM updates WHERE peer = 3 AND sequence = ?", late.sequence)[0]
    assert (state, by) == ("left-out", 0)
    game.round(3, 1, 2, 3, 4)
    so_far()
    game.log.retire(4, from_index=game.prefix.latest(4).index)  # type: ignore[union-attr]
    so_far()
    assert one.ask("SELECT state FROM updates WHERE peer = 4 ORDER BY idx DESC LIMIT 1") == [("ignored",)]
    game.round(4, 1, 2)
    so_far()
    assert one.ask("SELECT peer, state FROM absences WHERE round = 4") == [(3, "awaited"), (4, "retired")]
    for number in (5, 6, 7):
        game.wait(40)
        game.round(number, 1, 2)
        so_far()
    game.round(8, 1, 2, final=True)
    so_far()


def test_a_restart_replays_nothing_twice(grown: Callable[..., Grown], monkeypatch: pytest.MonkeyPatch) -> None:
    log = orderly_log(random.Random(5), 5, 6)
    one = grown(spec())
    half = len(log.entries) // 2
    one.grow(log.entries, half)
    calls: list[UpdateRef] = []

    def counted(rules: Spec, prefix: Prefix, entry: Any) -> Any:
        calls.append(entry.ref)
        return selection.selection_behind(rules, prefix, entry)

    monkeypatch.setattr(replayed, "selection_behind", counted)
    one.restart()
    one.grow(log.entries, half)
    assert not calls
    one.grow(log.entries, len(log.entries))
    fresh = [entry.body.ref for entry in log.entries[half:] if isinstance(entry.body, UpdatePublished)]
    assert calls == fresh
    one.agree()


def test_a_crash_between_two_steps_loses_nothing(grown: Callable[..., Grown], monkeypatch: pytest.MonkeyPatch) -> None:
    log = orderly_log(random.Random(6), 5, 6)
    one = grown(spec())
    one.grow(log.entries, 20)
    one.write(log.entries)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(replayed, "recount", full)
        with pytest.raises(sqlite3.OperationalError):
            one.follow()
    assert worked(one.db).size == 20
    one.follow()
    one.agree()


def test_beyond_the_bound_nobody_is_said_to_be_left_out(grown: Callable[..., Grown]) -> None:
    """Absences follow from members and updates; in a federation without early births they are the same."""
    log = orderly_log(random.Random(8), 6, 8)
    one = grown(spec(), most=30)
    for size in some(random.Random(1), len(log.entries)):
        one.grow(log.entries, size)
    known = worked(one.db)
    assert (known.size, known.exact, known.trouble) == (len(log.entries), 30, "")
    assert "not replayed on a log this long" in known.words(known.size)
    assert one.ask("SELECT max(idx) FROM choices")[0][0] < 30
    assert one.ask("SELECT count(*) FROM left_out WHERE by_idx >= 30") == [(0,)]
    told = completeness(one.rules, one.prefix).as_json()
    kept = {row[0]: json.loads(row[1]) for row in one.ask("SELECT round, told FROM rounds")}
    assert [kept[row["round"]]["missing"] for row in told["rounds"]] == [row["missing"] for row in told["rounds"]]
    assert [kept[row["round"]]["awaited"] for row in told["rounds"]] == [row["awaited"] for row in told["rounds"]]
    assert [kept[row["round"]]["expected"] for row in told["rounds"]] == [
        None if row["expected"] is None else row["expected"] for row in told["rounds"]
    ]
    assert not kept[max(kept)]["exact"] and kept[max(kept)]["late"] is None
    # A version that holds more goes on from there.
    one._replay = {}
    one.restart()
    one.follow()
    one.agree()


def test_a_replay_that_fails_stops_nothing(grown: Callable[..., Grown], monkeypatch: pytest.MonkeyPatch) -> None:
    log = orderly_log(random.Random(9), 5, 6)
    one = grown(spec())

    def broken(_: Spec, prefix: Prefix, entry: Any) -> Any:
        raise ZeroDivisionError("by a number that nobody expected")

    with monkeypatch.context() as patch:
        patch.setattr(replayed, "selection_behind", broken)
        one.grow(log.entries, 30)
    known = worked(one.db)
    assert known.size == known.exact == 30 and "ZeroDivisionError" in known.words(30)
    one.grow(log.entries, len(log.entries))
    assert worked(one.db).size == len(log.entries)


def test_a_log_that_no_contract_wrote(grown: Callable[..., Grown]) -> None:
    """The replay ends where the log cannot be folded; rounds are told from the tables from there on."""
    one = grown(spec())
    for site in ("a", "b", "c"):
        one.ledger.admit(site)
    one.ledger.publish(1, 1, 1)
    one.ledger.publish(2, 1, 1, (1, 1, 1_000_000))
    one.ledger.publish(1, 7, 2)  # after its first
    one.ledger.publish(2, 2, 2**31, (1, 7, 1_000_000), seen=2**60)
    one.ledger.publish(3, 1, 3)
    one.follow()
    known = worked(one.db)
    assert known.exact == 6 and known.size == one.ledger.size and "InconsistentLog" in known.trouble
    assert "beyond entry 6" in known.words(known.size)
    kept = [row[0] for row in one.ask("SELECT round FROM rounds ORDER BY round")]
    assert kept == [1, 2, 3, 2**31]
    one.restart()
    one.follow()
    assert worked(one.db) == known


def test_following_fifty_peers_costs_little(grown: Callable[..., Grown]) -> None:
    """Some milliseconds for a new update, whatever lies before it."""
    rules = spec(merging={"selection": "top-k", "k": 5})
    game = Played(rules, Log(50))
    for number in range(1, 9):
        game.round(number, *range(1, 51))
    one = grown(rules)
    one.grow(game.log.entries, len(game.log.entries) - 40)
    one.write(game.log.entries)
    one.log.sync()
    while one.fold.advance():
        pass
    began = time.monotonic()
    while one.step(one.log, one.db):
        pass
    took = time.monotonic() - began
    assert took / 40 < 0.05  # about three milliseconds on an idle core
    one.agree()


@pytest.fixture(scope="module")
def source() -> Source:
    return Source.load(Settings(preset="fedavg").federation(6, 0).spec.task, None)


@pytest.mark.parametrize("mode", ["async", "sync"])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_with_dropouts_stragglers_and_churn(
    grown: Callable[..., Grown], source: Source, name: str, mode: str
) -> None:
    """Federations that peers played in memory, followed in three stretches."""
    faults = Faults(dropout=0.15, stragglers=1, churn=2)
    settings = Settings(preset=name, peers=(6,), rounds=4, mode=mode, seed=3, faults=faults, epochs=1)
    if name in ("ring", "hybrid-rings") and mode == "sync":
        with pytest.raises(SpecError):
            settings.federation(6, 3)
        return
    federation = settings.federation(6, 3)
    dealt = deal(source, federation.spec.task, 6, "iid", 3, test_rows="own")
    played = in_memory(federation, dealt, cast(faults, 6, 4, 3))
    for _ in Ticks(played, Batcher(federation.spec, dealt.splits, "never", 1)).run():
        pass
    played.follow()
    entries = played.index.entries()
    one = grown(federation.spec)
    for size in (len(entries) // 3, 2 * len(entries) // 3, len(entries)):
        one.ledger.raw(*((entry.topics, entry.data) for entry in entries[one.ledger.size : size]))
        one.follow()
        one.agree()
    assert one.ask("SELECT count(*) FROM choices WHERE outcomes IS NOT NULL")[0][0] > 12
    assert worked(one.db).words(len(entries)) == ""


def test_many_that_leave_an_update_out_are_kept_up_to_a_bound(
    grown: Callable[..., Grown], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among many peers there are many more of those than updates. What became of each update stays true."""
    rules = spec(merging={"selection": "random-k", "k": 1})
    game = Played(rules, Log(12))
    for number in range(1, 6):
        game.round(number, *range(1, 13))
    one = grown(rules)
    monkeypatch.setattr(replayed, "MOST_LEAVERS", 5)
    for size in range(20, len(game.log.entries), 5):
        one.grow(game.log.entries, size)
    told = completeness(rules, one.prefix).as_json()
    kept = dict(one.ask("SELECT update_idx, count(*) FROM left_out GROUP BY 1"))
    for update in told["updates"]:
        many = sum(len(item["by"]) for item in update["left_out"])
        assert min(many, 5) <= kept.get(update["entry"], 0) <= many
    assert max(kept.values()) <= 12
    states = dict(one.ask("SELECT idx, state FROM updates"))
    assert states == {update["entry"]: update["state"] for update in told["updates"]}
