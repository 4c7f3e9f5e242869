"""Check 1: each entry's transaction is on the chain, signed by whom it should be, and asks for what the entry says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fl_node.audit.means import Means
from fl_node.audit.verdicts import Finding, Result
from fl_node.errors import ChainUnavailable, MalformedEvidence
from fl_node.ledger.signed_tx import Disagreement, Indirect, SignedCall, check_call, read_signed
from fl_node.records import Entry, LedgerOpened, OwnerChanged, PeerAdmitted

NAME = "canonical"


@dataclass(frozen=True, slots=True)
class Canon:
    """Findings by entry index, of all entries that were asked for."""

    by_index: Mapping[int, Finding]

    def summary(self, others: Iterable[int]) -> Finding:
        """One finding for entries that are no updates: the gravest of them, and how many are well."""
        found = {index: self.by_index[index] for index in others if index in self.by_index}
        bad = {index: one for index, one in found.items() if one.result is Result.FAILED}
        open_ = {index: one for index, one in found.items() if one.result is Result.UNKNOWN}
        data = {"entries": len(found), "failed": sorted(bad), "unknown": sorted(open_)}
        for group in (bad, open_):
            if group:
                index, first = next(iter(sorted(group.items())))
                more = f" (and {len(group) - 1} more entries)" if len(group) > 1 else ""
                return Finding(NAME, first.result, f"entry {index}: {first.detail}{more}", data, first.asked)
        return Finding(NAME, Result.OK, f"all {len(found)} entries that are no updates", data)


def canonical(means: Means, entries: Sequence[Entry]) -> Canon:
    """Check these entries, all in one go.

    Raises:
        ChainUnavailable: the endpoint does not answer.
    """
    if not entries:
        return Canon({})
    log = _Log(means.entries)
    raws = means.transactions.signed([entry.tx_hash for entry in entries])
    calls: dict[bytes, SignedCall | str] = {}
    for tx_hash, raw in raws.items():
        try:
            calls[tx_hash] = read_signed(raw)
        except MalformedEvidence as cause:
            calls[tx_hash] = str(cause)
    place = _Place(means, entries)
    found = {}
    for entry in entries:
        on_chain = place.finding(entry)
        if on_chain is not None and on_chain.result is Result.FAILED:
            found[entry.index] = on_chain
        else:
            found[entry.index] = _signed(means, entry, calls.get(entry.tx_hash), log, on_chain)
    for index, text in _out_of_order(entries, calls).items():
        if found[index].result is not Result.FAILED:
            found[index] = Finding(NAME, Result.FAILED, text, found[index].data)
    return Canon(found)


class _Log:
    """What the log says of its own entries: which came of one transaction, whose account a peer's is, who owned the
    ledger before each."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.together: dict[bytes, list[Entry]] = defaultdict(list)
        self._accounts: dict[int, str] = {}
        self._owners: list[tuple[int, str]] = []
        for entry in entries:
            self.together[entry.tx_hash].append(entry)
            body = entry.body
            if isinstance(body, PeerAdmitted):
                self._accounts.setdefault(body.peer, body.account)
            elif isinstance(body, LedgerOpened | OwnerChanged):
                self._owners.append((entry.index, body.owner if isinstance(body, LedgerOpened) else body.current))

    def account(self, entry: Entry) -> str | None:
        """Of the peer that an entry is by, or about."""
        return self._accounts.get(getattr(entry.body, "peer", 0))

    def owner(self, entry: Entry) -> str:
        """Of the ledger, before an entry; empty where nobody is known to be."""
        return next((owner for index, owner in reversed(self._owners) if index < entry.index), "")


def _out_of_order(entries: Sequence[Entry], calls: Mapping[bytes, SignedCall | str]) -> dict[int, str]:
    """Entries whose transaction an account signed before that of an earlier one, or instead of it: a chain takes an
    account's transactions by rising nonces."""
    found = {}
    last: dict[str, tuple[int, Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.index):
        call = calls.get(entry.tx_hash)
        if not isinstance(call, SignedCall):
            continue
        nonce, before = last.get(call.sender, (-1, entry))
        if call.nonce < nonce or (call.nonce == nonce and entry.tx_hash != before.tx_hash):
            found[entry.index] = (
                f"nonce {call.nonce} of {call.sender} comes after its nonce {nonce} at entry {before.index}: not the "
                "order of the chain"
            )
        else:
            last[call.sender] = call.nonce, entry
    return found


def _signed(means: Means, entry: Entry, call: SignedCall | str | None, log: _Log, on_chain: Finding | None) -> Finding:
    data = {"tx": "0x" + entry.tx_hash.hex(), "block": entry.block_number, "signer": None}
    if call is None or isinstance(call, str):
        why = call or "no signed transaction of this entry could be had"
        return Finding(NAME, Result.UNKNOWN, why, data)
    data["signer"] = call.sender
    identity = means.identity
    try:
        place = identity.address, identity.chain_id
        check_call(call, entry, *place, log.account(entry), log.owner(entry), log.together[entry.tx_hash])
    except Disagreement as cause:
        return Finding(NAME, Result.FAILED, str(cause), data)
    except Indirect as cause:
        return Finding(NAME, Result.UNKNOWN, f"{cause}, so its call data say nothing of this entry", data)
    if on_chain is not None:
        text = f"signed by the account that it should be; {on_chain.detail}"
        return Finding(NAME, on_chain.result, text, data, on_chain.asked)
    return Finding(NAME, Result.OK, f"signed by {call.sender}, in block {entry.block_number}", data)


class _Place:
    """Whether entries are in blocks of the chain, deep enough."""

    def __init__(self, means: Means, entries: Sequence[Entry]) -> None:
        self._blocks = means.blocks
        self._depth = means.depth
        if means.blocks is not None:
            self._there = means.blocks.of([entry.block_number for entry in entries])
            self._tip = means.blocks.tip()

    def finding(self, entry: Entry) -> Finding | None:
        """``None`` where all is well."""
        if self._blocks is None:
            text = "only a chain could tell whether its block is part of one"
            return Finding(NAME, Result.UNKNOWN, text, asked=False)
        if not any(entry.block_hash):
            return Finding(NAME, Result.UNKNOWN, "the source of the log does not say which block the entry is in")
        block = self._there.get(entry.block_number)
        if block is None or block.hash != entry.block_hash:
            got = "no such block" if block is None else f"0x{block.hash.hex()}"
            text = f"block {entry.block_number} is {got} on the chain now, expected 0x{entry.block_hash.hex()}"
            return Finding(NAME, Result.FAILED, text)
        if entry.tx_hash not in block.transactions:
            text = f"block {entry.block_number} holds no transaction 0x{entry.tx_hash.hex()}"
            return Finding(NAME, Result.FAILED, text)
        if block.time_s != entry.time_s:
            text = f"block {entry.block_number} is of time {block.time_s}, the entry says {entry.time_s}"
            return Finding(NAME, Result.FAILED, text)
        deep = self._tip - entry.block_number
        if deep < self._depth:
            return Finding(NAME, Result.UNKNOWN, f"{deep} blocks deep, {self._depth} are asked for; look again later")
        return None


def unreachable(cause: ChainUnavailable) -> Finding:
    """What is found where the chain stops to answer."""
    return Finding(NAME, Result.UNKNOWN, f"the chain does not answer: {cause}")
