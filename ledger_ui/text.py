"""Values as people read them. Whatever comes from the chain is a stranger's text: it can neither steer nor disguise."""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from fl_node import times
from fl_node.records import PPM

#: Longer text is cut where it is one value among others; its own page shows all of it.
LONGEST: Final = 80
#: Even where all of a text is shown.
LONGEST_WHOLE: Final = 4000
#: Nothing to see, though they count as letters, marks or symbols: fillers, variation selectors, an empty Braille cell.
_UNSEEN: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
#: Marks over one letter, as far as writing systems need them.
_MOST_MARKS: Final = 2
_PLAIN: Final = re.compile("[!-~]+(?: [!-~]+)*")


def visible(text: str, longest: int = LONGEST) -> str:
    """The text with everything made visible that could steer or hide: control, format, private and direction
    characters, blanks that a page would swallow, letters that show nothing, heaps of marks. Cut after so many
    characters.

    >>> visible("ab\\u202ecd"), visible("x" * 100, 5), visible("two  blanks ")
    ('ab⟨U+202E⟩cd', 'xxxxx…', 'two ⟨U+0020⟩blanks⟨U+0020⟩')
    """
    cut = text[:longest]
    if not _PLAIN.fullmatch(cut):
        cut = "".join(_spelled(cut))
    return cut + ("…" if len(text) > longest else "")


def _spelled(text: str) -> Iterator[str]:
    before, marks = " ", 0
    for at, one in enumerate(text):
        kind = unicodedata.category(one)
        marks = marks + 1 if kind in ("Mn", "Me") else 0
        if one == " ":
            hidden = before == " " or at == len(text) - 1
        else:
            hidden = kind[0] in "CZ" or one in _UNSEEN or marks > _MOST_MARKS
        yield f"⟨U+{ord(one):04X}⟩" if hidden else one
        before = one


def whole(text: str, longest: int = LONGEST_WHOLE) -> str:
    """All of a text of several lines, each made visible, for ``<pre>``.

    >>> whole("a\\n\\tb")
    'a\\n⟨U+0009⟩b'
    """
    lines = "\n".join(visible(line, longest) for line in text[:longest].split("\n"))
    return lines + ("…" if len(text) > longest else "")


def storable(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can name and UTF-8 cannot carry.

    >>> storable("a\\ud800b")
    'a\\\\ud800b'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def percent(ppm: int | None, places: int = 2) -> str:
    """A score as a percentage.

    >>> percent(873_500), percent(None), percent(-3)
    ('87.35 %', '–', '0.00 %')
    """
    return "–" if ppm is None else f"{round(ppm * 100 / PPM, places) + 0.0:.{places}f} %"


def utc(time_s: float | None) -> str:
    """A time as a date, a dash where there is none; see :func:`fl_node.times.utc`."""
    return "–" if time_s is None else times.utc(time_s)


def iso(time_s: float | None) -> str:
    """A time for ``<time datetime>``; empty where there is no such date."""
    if time_s is None:
        return ""
    try:
        return dt.datetime.fromtimestamp(time_s, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return ""


def short(text: str, head: int = 8, tail: int = 6) -> str:
    """An address or digest, shortened in the middle.

    >>> short("0x5FbDB2315678afecb367f032d93F642f64180aa3")
    '0x5FbDB2…180aa3'
    """
    return text if len(text) <= head + tail + 1 else f"{text[:head]}…{text[-tail:]}"


def bytes_words(size: float | None) -> str:
    """A size in its largest unit.

    >>> bytes_words(999), bytes_words(1_234_567)
    ('999 B', '1.2 MB')
    """
    if size is None:
        return "–"
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{int(size)} B"


def many(number: int, one: str, more: str = "") -> str:
    """A count with its word.

    >>> many(1, "round"), many(2, "entry", "entries")
    ('1 round', '2 entries')
    """
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def nth(number: int) -> str:
    """A place in an order.

    >>> nth(1), nth(12), nth(23)
    ('1st', '12th', '23rd')
    """
    last = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number:,}{last}"


def part(fraction: float) -> str:
    """A fraction as a percentage, to three digits.

    >>> part(0.05)
    '5 %'
    """
    return f"{100 * fraction:.3g} %"
