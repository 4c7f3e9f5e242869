"""A log that somebody kept, as a ledger to read from: of tiles, or of an evidence pack.

``LedgerIndex(":memory:", KeptLog(...))`` checks it against a root and answers questions about it, as it does for a
chain. There is one head for ever and no chain behind it: ``depth`` says nothing, balances are 0, and "contract state"
is what the entries come to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fl_node.errors import InconsistentLog, MalformedEvidence
from fl_node.ledger import codec
from fl_node.ledger.abi import address_bytes, checksum_address
from fl_node.ledger.members import peer_states
from fl_node.ledger.protocol import MOST_BLOCKS, LedgerIdentity, News, RawLog, UpdateState
from fl_node.records import Entry, LedgerHead, PeerState, UpdatePublished, UpdateRef


class KeptLog:
    """A :class:`fl_node.ledger.protocol.LedgerReader` over raw logs in memory.

    Only the logs' shape is checked here: whoever reads compares them with the head's root, as with any other source.

    Args:
        identity: the ledger that they are said to be of.
        head: the size and root that they are said to have, at some block.
        logs: in order, from entry 0. A log without a block (number 0, as tiles give it) counts as one of the ledger's
            first block.

    Raises:
        MalformedEvidence: something in it is no event log of a ledger, whatever its root.
    """

    def __init__(self, identity: LedgerIdentity, head: LedgerHead, logs: Sequence[RawLog]) -> None:
        if not (0 <= head.size <= MOST_BLOCKS and 0 <= head.block_number <= MOST_BLOCKS):
            raise MalformedEvidence(f"got a log of {head.size} entries at block {head.block_number}; expected 63 bits")
        for index, log in enumerate(logs):
            if (trouble := log.fault) is not None:
                raise MalformedEvidence(f"entry {index} of the kept log is no event log: {trouble}; get it elsewhere")
        self._identity, self._head, self._logs = identity, head, logs

    @property
    def identity(self) -> LedgerIdentity:
        return self._identity

    def head(self, depth: int = 0, fresh: bool = False) -> LedgerHead:
        return self._head

    def news(self, known: tuple[int, bytes] | None, depth: int = 0) -> News | None:
        """All there is, unless the head is known. A reader that knows another block starts over: where there is no
        chain, nobody can say that this log follows that one."""
        head = self._head
        if known == (head.block_number, head.block_hash):
            return None
        return News(head, known is None, self._logs)

    def block_hash(self, number: int) -> bytes | None:
        if number == self._head.block_number:
            return self._head.block_hash
        return next((log.block_hash for log in self._logs if number and log.block_number == number), None)

    def logs(self, first_block: int, last_block: int) -> Sequence[RawLog]:
        opened = self._identity.first_block
        return [log for log in self._logs if first_block <= (log.block_number or opened) <= last_block]

    def peer(self, number: int) -> PeerState:
        found = self._states().get(number)
        if found is None:
            raise LookupError(f"no peer {number} in the kept log of ledger {self._identity.address}")
        return found

    def peers(self) -> Sequence[PeerState]:
        states = self._states()
        return [states[number] for number in sorted(states)]

    def peer_of(self, account: str) -> PeerState | None:
        address = checksum_address(address_bytes(account))
        return next((state for state in self.peers() if state.account == address), None)

    def update(self, ref: UpdateRef) -> UpdateState:
        for entry in self._entries():
            body = entry.body
            if isinstance(body, UpdatePublished) and body.ref == ref:
                update = body.update
                return UpdateState(
                    *(ref, update.content, entry.index, update.round, update.score_ppm, entry.time_s),
                    *(update.train_samples, update.test_samples, update.flags, update.encoding),
                )
        raise LookupError(f"no update {ref} in the kept log of ledger {self._identity.address}")

    def balance(self, account: str) -> int:
        return 0

    def _states(self) -> dict[int, PeerState]:
        try:
            states = peer_states(self._entries())
        except KeyError as cause:
            raise InconsistentLog(
                f"the kept log speaks of peer {cause} before it admits it; no contract of ours does; get it elsewhere"
            ) from cause
        # The contract keeps the epoch of an announcement, not its endpoint.
        return {number: replace(state, endpoint="") for number, state in states.items()}

    def _entries(self) -> list[Entry]:
        entries = []
        for log in self._logs:
            index, time_s, body = codec.decode(log.topics, log.data)
            where = log.block_number, log.block_hash, log.tx_hash
            entries.append(Entry(index, time_s, *where, log.topics, log.data, body))
        return entries
