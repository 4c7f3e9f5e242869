"""Commands by which a reader repeats what a page says on their own machine, with nothing but common tools."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Final

from pydantic import Field

from fl_node.records import Entry
from ledger_ui.contexts import Context
from ledger_ui.questions.logged import RawEntry
from ledger_ui.registry import Here

#: Longer data than this are told by where to get them instead.
_MOST_DATA: Final = 16_384


class Command(Context):
    """One of them."""

    words: str = Field(description="what it shows")
    command: str = Field(description="for a POSIX shell")


def commands_of(here: Here, entry: Entry, raw: RawEntry) -> list[Command]:
    """How to check an entry: on the chain, as a leaf, under the root."""
    return list(_commands(here, entry, raw))


def own_command(here: Here, *arguments: str) -> str:
    """A command of ``fl-node`` on this federation's file."""
    file = shlex.quote(here.shown.source.file.name)
    return " ".join(("fl-node", *map(shlex.quote, arguments), "--federation", file))


def _commands(here: Here, entry: Entry, raw: RawEntry) -> Iterator[Command]:
    contract, block = here.frame.contract, entry.block_number
    yield Command(
        words="The same log from an endpoint of your own",
        command=f'cast logs --rpc-url "$RPC" --address {contract} --from-block {block} --to-block {block}',
    )
    yield Command(words="The transaction that made it", command=f'cast receipt --rpc-url "$RPC" 0x{raw.transaction}')
    yield Command(
        words="The entry as this software reads it, from an endpoint of your own",
        command=own_command(here, "log", "--from", str(entry.index), "--to", str(entry.index + 1), "--json"),
    )
    if len(entry.data) > _MOST_DATA:
        return
    yield Command(
        words="The leaf, from topics and data",
        command=_python(
            "from hashlib import sha256",
            f'print(sha256(bytes.fromhex("00{"".join(raw.topics)}{raw.data}")).hexdigest())  # {raw.leaf}',
        ),
    )
    if raw.root is not None:
        steps = ", ".join(f'("{step.side}", "{step.hash}")' for step in raw.proof)
        yield Command(
            words=f"The root of {raw.size:,} entries, from the leaf and its proof",
            command=_python(
                "from hashlib import sha256",
                f'node = bytes.fromhex("{raw.leaf}")',
                f"for side, other in [{steps}]:",
                "    other = bytes.fromhex(other)",
                '    pair = node + other if side == "right" else other + node',
                '    node = sha256(b"\\x01" + pair).digest()',
                f"print(node.hex())  # {raw.root}",
            ),
        )


def _python(*lines: str) -> str:
    return "\n".join(("python3 - <<'END'", *lines, "END"))
