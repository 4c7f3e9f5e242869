"""Private keys that an audit may use: from files of identities, and those of a peer whose state folder it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fl_node.content.unixfs import Buffer
from fl_node.decoding import Opening
from fl_node.errors import Unreadable
from fl_node.sealing.age import Identity


@dataclass(frozen=True, slots=True)
class AtHand:
    """Several :class:`fl_node.decoding.Opening` as one.

    ``own``: the key to which results are encrypted that are kept on disk.
    """

    openers: Sequence[Opening]
    own: Identity

    def open(self, content: bytes, data: Buffer, most_bytes: int) -> tuple[Buffer, int | None]:
        """As :class:`fl_node.decoding.Opening` says: by the first that can."""
        why: Unreadable | None = None
        for opener in self.openers:
            try:
                return opener.open(content, data, most_bytes)
            except Unreadable as cause:
                why = why or cause
        raise why or Unreadable("there is no key here to try")

    def holds(self, content: bytes) -> bool:
        """Whether one of them needs no ciphertext."""
        return any(opener.holds(content) for opener in self.openers)
