"""Strangers' text: nothing in it can hide, steer, or become something else where it is shown."""

from __future__ import annotations

import csv
import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_node.times import duration
from ledger_ui.respond import as_json, csv_cell
from ledger_ui.strange import json_of
from ledger_ui.text import LONGEST, bytes_words, iso, percent, short, storable, utc, visible, whole
from ledger_ui.urls import as_format, asked, dashed, undashed

FORMULAS = "=+-@＝＋－＠"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("clinic-a", "clinic-a"),
        ("Häuser & Höfe", "Häuser & Höfe"),
        ("日本病院", "日本病院"),
        ("नमस्ते", "नमस्ते"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("a\u2066b\u2069", "a⟨U+2066⟩b⟨U+2069⟩"),
        ("a\u200bb", "a⟨U+200B⟩b"),
        ("a\u00adb", "a⟨U+00AD⟩b"),
        ("a\ufeffb", "a⟨U+FEFF⟩b"),
        ("a\nb\tc\x1b[2J\x00", "a⟨U+000A⟩b⟨U+0009⟩c⟨U+001B⟩[2J⟨U+0000⟩"),
        ("a\u2028b", "a⟨U+2028⟩b"),
        ("a\u00a0b", "a⟨U+00A0⟩b"),
        ("a\u3164b", "a⟨U+3164⟩b"),
        ("a\u2800b", "a⟨U+2800⟩b"),
        ("a\ufe0fb", "a⟨U+FE0F⟩b"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("\ue000", "⟨U+E000⟩"),
        ("\ud800", "⟨U+D800⟩"),
        (" a", "⟨U+0020⟩a"),
        ("a ", "a⟨U+0020⟩"),
        ("a  b", "a ⟨U+0020⟩b"),
        ("a b", "a b"),
        ("z\u0335\u0336\u0337\u0338", "z\u0335\u0336⟨U+0337⟩⟨U+0338⟩"),
        ("", ""),
        ("x" * (LONGEST + 1), "x" * LONGEST + "…"),
    ],
)
def test_what_hides_is_spelled_out(given: str, shown: str) -> None:
    assert visible(given) == shown


@given(st.text(max_size=60))
def test_nothing_that_steers_gets_through(text: str) -> None:
    shown = visible(text)
    assert not [one for one in shown if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")]
    assert "  " not in shown and shown == shown.strip()
    assert len(shown) <= 9 * len(text)
    shown.encode()


@given(st.text(max_size=40), st.text(max_size=40))
def test_two_texts_look_the_same_only_if_they_are(one: str, other: str) -> None:
    if one != other and "⟨" not in one + other:
        assert visible(one) != visible(other)


def test_lines_stay_lines_where_all_is_shown() -> None:
    assert whole("a \n\tb\u202e") == "a⟨U+0020⟩\n⟨U+0009⟩b⟨U+202E⟩"
    assert whole("x" * 10, 4) == "xxxx…"


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"{before}{sign}1+1"
            for sign in FORMULAS
            for before in ("", " ", "\t", "\r", "\n", "\x00", "\u200b", "\u00a0 ")
        ),
        "\tharmless",
        "\rharmless",
        "'quoted",
    ],
)
def test_no_cell_is_a_formula(text: str) -> None:
    cell = csv_cell(text)
    assert cell == f"'{text}"
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow([cell, "next"])
    assert next(csv.reader(io.StringIO(out.getvalue(), newline=""))) == [cell, "next"]


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("3#12", "3#12"),
        ("0x5F", "0x5F"),
        (-3, "-3"),
        (0.5, "0.5"),
        (None, ""),
        (True, "true"),
        ([1, "=2"], '[1, "=2"]'),
    ],
)
def test_other_cells_are_as_they_are(value: object, cell: str) -> None:
    assert csv_cell(value) == cell


@given(st.text(max_size=20))
def test_cells_keep_their_text(text: str) -> None:
    cell = csv_cell(text)
    assert cell in (text, f"'{text}")
    first = next((one for one in cell if unicodedata.category(one)[0] not in "CZM"), "")
    assert first not in FORMULAS or first == ""


def test_json_carries_any_text() -> None:
    body = as_json({"a": "\ud800", "b": "é\u2028<"}).get_data()
    assert body == b'{"a": "\\ud800", "b": "\xc3\xa9\xe2\x80\xa8<"}'
    assert storable("\ud800x") == "\\ud800x"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 65 + b"]" * 65,
        b"[" * 500_000,
        b'{"a":' * 70 + b"1" + b"}" * 70,
        b'["' * 40 + b"[" * 100,
    ],
)
def test_json_of_a_stranger_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):
        json_of(raw)


def test_json_of_a_stranger_is_read() -> None:
    for told in ([[]] * 5000, {"a": "[" * 5000 + '\\"]'}, [[[1, 2]] * 50] * 50, None, 3):
        assert json_of(json.dumps(told).encode()) == told


def test_numbers_in_words() -> None:
    assert (percent(None), percent(1), percent(-1), percent(-123_456, 1)) == ("–", "0.00 %", "0.00 %", "-12.3 %")
    assert percent(2**32 - 1) == "429496.73 %"
    assert (utc(2**63), iso(2**63), utc(None), iso(None)) == ("time 9223372036854775808", "", "–", "")
    assert iso(1) == "1970-01-01T00:00:01Z"
    assert (bytes_words(None), bytes_words(0), bytes_words(2_500_000_000)) == ("–", "0 B", "2.5 GB")
    assert (duration(119), duration(120), duration(3 * 86_400)) == ("119 s", "2 min", "3 days")
    assert short("0123456789abcdef") == "01234567…abcdef"


def test_addresses_have_one_spelling() -> None:
    assert dashed("3#12") == "3-12"
    assert str(undashed("3-12")) == "3#12"
    for wrong in ("3", "3#12", "03-12", "3-012", "3-12-1", "-1-2", "3-", "٣-1", "3-12\n", " 3-12", "9" * 19 + "-1"):
        assert undashed(wrong) is None, wrong
    assert as_format("/a/updates/?x=1&y=2", "json") == "/a/updates.json?x=1&y=2"
    assert asked({"q": "a&b=c#d", "n": 0, "none": None, "empty": ""}) == "?q=a%26b%3Dc%23d&n=0"
