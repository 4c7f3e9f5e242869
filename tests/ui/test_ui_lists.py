from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from ui_logs import Explored

from ledger_ui.lists import ListQuery, Order, Select

VALUES = st.lists(st.one_of(st.none(), st.integers(-3, 3), st.just(2**63 - 1), st.just(-(2**63))), max_size=40)


def table(values: list[int | None]) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.row_factory = sqlite3.Row
    db.execute("CREATE TABLE t (idx INTEGER PRIMARY KEY, v INTEGER, odd INTEGER, other INTEGER)")
    db.execute("CREATE INDEX t_v ON t (v, idx, odd)")
    db.execute("CREATE TABLE names (other INTEGER PRIMARY KEY, name TEXT)")
    db.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", [(n, v, n % 2, n // 2) for n, v in enumerate(values)])
    db.executemany("INSERT INTO names VALUES (?, ?)", [(n, f"name {n}") for n in range(0, len(values), 3)])
    return db


def select(odd: int | None = None) -> Select:
    found = Select("t.v, n.name", "t", key="t.idx", beside="LEFT JOIN names n ON n.other = t.other")
    found.only("t.odd = ?", odd)
    return found


def pages(db: sqlite3.Connection, one: Select, sort: str, order: Order, limit: int) -> Iterator[list[sqlite3.Row]]:
    after: str | None = None
    while True:
        rows, after = one.page(db, sort, order, after, limit)
        yield rows
        if after is None:
            return
        ListQuery(after=after)  # what an address may hold


def in_order(values: list[int | None], odd: int | None, order: Order) -> list[int]:
    wanted = [(v, n) for n, v in enumerate(values) if odd is None or n % 2 == odd]
    there = sorted([(v, n) for v, n in wanted if v is not None], reverse=order == "desc")
    without = sorted([n for v, n in wanted if v is None], reverse=order == "desc")
    return [n for _, n in there] + without


@given(VALUES, st.sampled_from([None, 0, 1]), st.sampled_from(["asc", "desc"]), st.integers(1, 7))
def test_pages_together_are_the_list(values: list[int | None], odd: int | None, order: Order, limit: int) -> None:
    db = table(values)
    cut = list(pages(db, select(odd), "t.v", order, limit))
    expected = in_order(values, odd, order)
    assert [row["key"] for rows in cut for row in rows] == expected
    assert all(len(rows) == limit for rows in cut[:-1])
    assert len(cut[-1]) > 0 or not expected
    assert [row["sorted"] for rows in cut for row in rows] == [values[n] for n in expected]
    assert [row["key"] for row in select(odd).all(db, "t.v", order)] == expected
    assert select(odd).count(db) == len(expected)


@given(VALUES, st.sampled_from(["asc", "desc"]), st.integers(1, 7))
def test_pages_by_the_key(values: list[int | None], order: Order, limit: int) -> None:
    db = table(values)
    expected = sorted(range(len(values)), reverse=order == "desc")
    assert [row["key"] for rows in pages(db, select(), "t.idx", order, limit) for row in rows] == expected


def test_a_page_stays_while_the_log_grows() -> None:
    db = table([random.Random(1).randint(0, 5) for _ in range(30)])
    first, after = select().page(db, "t.idx", "desc", None, 10)
    before = select().page(db, "t.idx", "desc", after, 10)
    db.executemany("INSERT INTO t VALUES (?, 3, 0, 0)", [(n,) for n in range(30, 50)])
    assert [r["key"] for r in select().page(db, "t.idx", "desc", after, 10)[0]] == [r["key"] for r in before[0]]
    assert [r["key"] for r in first] == list(range(29, 19, -1))


def test_joins_beside_are_no_filter() -> None:
    db = table([1, 2, 3, 4])
    rows, _ = select().page(db, "t.v", "asc", None, 10)
    assert [row["name"] for row in rows] == ["name 0", "name 0", None, None]


def test_a_count_that_takes_long_is_none() -> None:
    db = table(list(range(3000)))
    one = Select("1", "t a, t b", key="a.idx")
    assert one.count(db) is None
    assert one.count(db, most_steps=10**9) == 9_000_000
    assert select().count(db) == 3000, "the bound is gone with the count"


def test_a_broken_query_is_no_long_one() -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        Select("1", "nowhere").count(table([]))


@pytest.mark.parametrize(
    "after", ["9999999999999999999", "-9999999999999999999.1", "9999999999999999999.999999999999999999", ".5", "7"]
)
@pytest.mark.parametrize("sort", ["t.v", "t.idx"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_any_place_may_be_asked_for(after: str, sort: str, order: Order) -> None:
    ListQuery(after=after)
    select().page(table([1, None, 3]), sort, order, after, 2)


@pytest.mark.parametrize("after", ["x", "1.", ".", "1.2.3", "1e5", "1.-2", " 1", "1" * 65])
def test_what_is_no_place_is_refused(after: str) -> None:
    with pytest.raises(ValidationError):
        ListQuery(after=after)


def test_lists_of_a_federation(world: Explored) -> None:
    for sort in ("index", "round", "claimed", "attested", "time"):
        for order in ("asc", "desc"):
            whole = [row["update"] for row in world.json(f"/updates.json?sort={sort}&order={order}&limit=500")["rows"]]
            seen, url = [], f"/{world.shown.slug}/updates?sort={sort}&order={order}&limit=4"
            while url:
                told = world.client.get(url.replace("/updates?", "/updates.json?")).get_json()
                seen += [row["update"] for row in told["rows"]]
                url = told["paging"]["next_url"]
            assert seen == whole and len(set(whole)) == told["paging"]["total"], (sort, order)
