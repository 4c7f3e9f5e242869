"""A pack's log: its lines read one file at a time, checked for order, and not all in memory where there are many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, overload

from fl_node.errors import MalformedEvidence
from fl_node.evidence.container import Container, Member
from fl_node.evidence.lines import read_log, split
from fl_node.ledger.protocol import RawLog

#: Of log files that are read once and kept; of more, one file at a time is in memory.
_KEPT_BYTES: Final = 64 << 20


class PackLogs(Sequence[RawLog]):
    """The raw logs of all entries, from these files with so many lines each, by the manifest.

    Raises (when read):
        MalformedEvidence: a line that is none, or entries out of order.
    """

    def __init__(self, container: Container, files: Sequence[tuple[Member, int]]) -> None:
        self._container, self._files = container, files
        self._size = sum(count for _, count in files)
        self._keep = sum(member.size for member, _ in files) <= _KEPT_BYTES
        self._read: dict[int, list[RawLog]] = {}

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[RawLog]:
        for number in range(len(self._files)):
            yield from self._file(number)

    @overload
    def __getitem__(self, index: int) -> RawLog: ...

    @overload
    def __getitem__(self, index: slice) -> list[RawLog]: ...

    def __getitem__(self, index: int | slice) -> RawLog | list[RawLog]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(self._size))]
        index = range(self._size)[index]
        for number, (_, count) in enumerate(self._files):
            if index < count:
                return self._file(number)[index]
            index -= count
        raise IndexError(index)

    def _file(self, number: int) -> list[RawLog]:
        """One file's logs."""
        if number in self._read:
            return self._read[number]
        member, count = self._files[number]
        first = sum(many for _, many in self._files[:number])
        logs = []
        for position, line in enumerate(split(self._container.read(member), member.name)):
            where = f"{member.name}, line {position + 1}"
            index, log = read_log(line, where)
            if index != first + position:
                raise MalformedEvidence(f"{where}: got entry {index}, expected entry {first + position}")
            logs.append(log)
        if len(logs) != count:
            raise MalformedEvidence(f"{member.name}: got {len(logs)} lines, expected {count} by the manifest")
        if not self._keep:
            self._read.clear()
        self._read[number] = logs
        return logs
