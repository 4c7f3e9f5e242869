"""Times and lengths of time in words."""

from __future__ import annotations

import datetime as dt


def utc(time_s: float) -> str:
    """A time, in seconds since 1970, as a date; as it is where there is no such date, since a log may hold any number.

    >>> utc(0), utc(2**62)
    ('1970-01-01 00:00:00Z', 'time 4611686018427387904')
    """
    try:
        return dt.datetime.fromtimestamp(time_s, dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"time {time_s}"


def duration(seconds: float) -> str:
    """A length of time in its largest unit of which there are two or more.

    >>> duration(59), duration(7200), duration(400_000)
    ('59 s', '2 h', '4 days')
    """
    for unit, name in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{int(seconds // unit):,} {name}"
    return f"{int(seconds)} s"
