from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from ui_logs import HOSTILE, Explored

from ledger_ui.charts.bars import Bar, bars, cell
from ledger_ui.charts.frame import around, ticks
from ledger_ui.charts.lines import MOST_MARKED, Band, Point, Series, lines, spread
from ledger_ui.charts.scatter import Dot, scatter

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ElementTree.Element:
    """As XML, which HTML's SVG must be as well; no namespace is declared within HTML."""
    return ElementTree.fromstring(str(svg))


def line(*values: tuple[float, float | None], name: str = "peer 1", **more: object) -> Series:
    return Series(name, "c0", tuple(Point(x, y, f"round {x}") for x, y in values), **more)  # type: ignore[arg-type]


def test_a_chart_names_itself_and_what_it_shows() -> None:
    root = parsed(lines("scores", "Scores", "Three rounds.", [line((1, 80.0), (2, 82.0), (3, 81.0))]))
    assert root.get("role") == "img"
    ids = {one.get("id"): one.text for one in root if one.get("id")}
    assert [ids[name] for name in root.get("aria-labelledby", "").split()] == ["Scores", "Three rounds."]
    assert {one.text for one in root.iter("title")} >= {"Scores", "round 1", "round 2", "round 3"}


def test_axes_say_what_they_count_and_ticks_hold_all_values() -> None:
    root = parsed(lines("a", "t", "d", [line((1, 71.3), (9, 94.9))]))
    texts = [one.text for one in root.iter("text")]
    assert "round" in texts and "score, %" in texts
    numbers = [float(text) for text in texts if text and re.fullmatch(r"[0-9.]+", text)]
    assert min(numbers[: numbers.index(max(numbers)) + 1]) <= 71.3 and max(numbers) >= 94.9


def test_higher_scores_are_drawn_higher_and_later_rounds_further_right() -> None:
    root = parsed(lines("a", "t", "d", [line((1, 70.0), (2, 90.0))]))
    first, second = root.iter("circle")
    assert float(first.get("cx", "")) < float(second.get("cx", ""))
    assert float(first.get("cy", "")) > float(second.get("cy", ""))


def test_nothing_one_point_and_equal_points_are_drawn() -> None:
    assert "Nothing to draw yet." in lines("a", "t", "d", [])
    for values in ([(5, 50.0)], [(5, 100.0)], [(5, 0.0)], [(1, 42.0), (2, 42.0)]):
        root = parsed(lines("a", "t", "d", [line(*values)]))
        marks = list(root.iter("circle"))
        assert len(marks) == len(values)
        assert all(0 <= float(mark.get("cy", "")) <= 280 for mark in marks)
    assert "Nothing to draw yet." in bars("b", "t", "d", [], x_label="x", y_label="y")
    assert "Nothing to draw yet." in scatter("s", "t", "d", [], x_label="x", y_label="y", equal="same")


def test_values_that_no_score_can_have_are_left_out() -> None:
    root = parsed(lines("a", "t", "d", [line((1, 50.0), (2, 429_496.0), (3, -1.0), (4, None), (5, 60.0))]))
    assert len(list(root.iter("circle"))) == 2
    assert "Nothing" in lines("a", "t", "d", [line((1, 429_496.0))])
    dots = [Dot(50, 60, "in", "c1"), Dot(50, 600, "out", "c1")]
    assert len(list(parsed(scatter("s", "t", "d", dots, x_label="x", y_label="y", equal="same")).iter("circle"))) == 1


def test_attested_values_stand_apart_with_a_shape_of_their_own() -> None:
    series = Series(
        "peer 1", "c0", (Point(1, 80.0, "both", 78.0), Point(2, 81.0, "claim only"), Point(3, None, "word", 7.0))
    )
    root = parsed(lines("a", "t", "d", [series]))
    hollow = [one for one in root.iter("path") if one.get("class") == "hollow"]
    assert len(list(root.iter("circle"))) == 2 and len(hollow) == 2


def test_names_beside_lines_do_not_overlap() -> None:
    many = [line((1, 50.0 + number / 100), name=f"peer {number}") for number in range(12)]
    root = parsed(lines("a", "t", "d", many))
    places = sorted(float(one.get("y", "")) for one in root.iter("text") if "name" in (one.get("class") or ""))
    assert len(places) == 12
    assert all(after - before >= 11.9 for before, after in pairwise(places))
    assert spread([5, 5, 5], 0, 24) == [0, 12, 24]


def test_a_chart_of_very_many_points_has_lines_only() -> None:
    many = line(*((number, 50.0) for number in range(MOST_MARKED + 1)))
    root = parsed(lines("a", "t", "d", [many]))
    assert not list(root.iter("circle"))
    assert [one for one in root.iter("path") if "series" in (one.get("class") or "")]


def test_a_band_lies_between_its_edges() -> None:
    root = parsed(lines("a", "t", "d", [line((1, 50.0), (2, 60.0))], [Band("all", ((1, 40.0, 55.0), (2, 45.0, 65.0)))]))
    band = next(one for one in root.iter("path") if "band" in (one.get("class") or ""))
    heights = [float(part.split(" ")[1]) for part in re.findall(r"[\d.]+ [\d.]+", band.get("d", ""))]
    upper, lower = heights[:2], heights[2:][::-1]
    assert all(high < low for high, low in zip(upper, lower, strict=True))


@pytest.mark.parametrize("text", HOSTILE)
def test_strangers_text_is_escaped_and_made_visible(text: str) -> None:
    drawn = [
        lines("a", text, text, [Series(text, "c0", (Point(1, 50.0, text, 49.0),))]),
        scatter("s", text, text, [Dot(1, 2, text, "c0")], x_label=text, y_label=text, equal=text, offset=1.0),
        bars("b", text, text, [Bar(text, text, (("k-updates", 1.0),))], x_label=text, y_label=text),
    ]
    for one in drawn:
        root = parsed(one)
        assert {part.tag for part in root.iter()} <= {"svg", "title", "desc", "g", "path", "rect", "circle", "text"}
        for name in ("style", "onload", "href"):
            assert all(part.get(name) is None for part in root.iter())
        assert not re.search("[\x00-\x1f\u202e\u2028]", str(one))


def test_stacked_bars_add_up() -> None:
    bar = Bar("10:00", "all of it", (("k-updates", 30.0), ("k-attestations", 60.0), ("k-objections", 0.0)))
    root = parsed(bars("b", "t", "d", [bar], x_label="time", y_label="entries"))
    heights = [float(one.get("height", "")) for one in root.iter("rect")]
    assert len(heights) == 2 and heights[1] == pytest.approx(2 * heights[0], abs=0.3)


def test_a_cell_keeps_within_its_bounds() -> None:
    wide = [list(parsed(cell(part, "c1")).iter("rect"))[1].get("width") for part in (-1.0, 0.0, 0.25, 7.0)]
    assert wide == ["0", "0", "25", "100"]


def test_ticks_and_bounds() -> None:
    assert ticks(0, 3, whole=True) == (0, 1, 2, 3)
    assert len(ticks(0, 2**62, 10, whole=True)) <= 12
    low, high = around([33.0, 33.1], 0, 100)
    assert low <= 33.0 < 33.1 <= high and high - low >= 2


def test_the_same_record_gives_the_same_chart(world: Explored) -> None:
    first, second = (re.findall("<svg.*?</svg>", world.get("").text, re.DOTALL) for _ in range(2))
    assert first == second and len(first) >= 3
    assert not [one for one in first if "style=" in one]
