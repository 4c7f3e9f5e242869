"""``fl-node traffic``"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from fl_node.cli.settings import settings_of
from fl_node.cli.state_folder import state_folder
from fl_node.cli.text import safe
from fl_node.content.meter import FILE_NAME, Meter, Row
from fl_node.errors import ContentError
from fl_node.times import utc


def traffic(arguments: argparse.Namespace) -> int:
    """The bytes that a peer sent and received, by counterpart and kind, since it began to count."""
    file = state_folder(settings_of(arguments)) / FILE_NAME
    meter = Meter(file)
    if meter.damage:
        raise ContentError(
            f"the counts {file} are damaged: {meter.damage}; expected what a peer wrote. Move the file away: a peer "
            "counts anew without it, and nothing else depends on it"
        )
    rows = meter.rows()
    if arguments.json:
        each = [
            {
                "direction": row.direction,
                "peer": row.peer,
                "address": row.place,
                "kind": row.kind,
                "bytes": row.num_bytes,
                "wasted_bytes": row.wasted_bytes,
            }
            for row in rows
        ]
        print(json.dumps({"since": int(meter.since), **meter.table(), "rows": each}, indent=1))
        return 0
    if not rows:
        print("nothing was counted yet; a running peer writes its counts every minute, and when it ends")
        return 0
    _print(rows)
    print(
        f"\nsince {utc(int(meter.since))}; bodies only, without heads and TLS. Who was sent to is what they say they "
        "are. A running peer writes its counts every minute."
    )
    return 0


def _print(rows: Sequence[Row]) -> None:
    """A line for each counterpart and kind, then the sums."""
    sums: dict[tuple[bool, int, str, str], list[int]] = {}
    for row in rows:
        who = f"peer {row.peer}" if row.peer is not None else row.place
        line = sums.setdefault((row.peer is None, row.peer or 0, who, row.kind), [0, 0, 0])
        line[1 if row.direction == "received" else 0] += row.num_bytes
        line[2] += row.wasted_bytes
    told = [(safe(who), kind, numbers) for (_, _, who, kind), numbers in sorted(sums.items())]
    total = [sum(numbers[at] for numbers in sums.values()) for at in range(3)]
    width = max(len(who) for who, _, _ in told)
    print(f"{'with':<{width}}  {'kind':<10}  {'sent':>16}  {'received':>16}  {'wasted':>12}")
    for who, kind, (sent, received, wasted) in (*told, ("all", "", total)):
        print(f"{who:<{width}}  {kind:<10}  {sent:>16,}  {received:>16,}  {wasted:>12,}")
