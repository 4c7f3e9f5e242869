"""Check 1: each entry's transaction is on the chain, signed by whom it should be, and asks for what the entry says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fl_node.audit.means import Means
from fl_node.audit.verdicts import Finding, Result
from fl_node.errors import ChainUnavailable, MalformedEvidence
from fl_node.ledger.signed_tx import Disagreement, Indirect, SignedCall, check_call, read_signed
from fl_node.records import Entry, PeerAdmitted

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
    together: dict[bytes, list[Entry]] = defaultdict(list)
    accounts: dict[int, str] = {}
    for entry in means.entries:
        together[entry.tx_hash].append(entry)
        if isinstance(entry.body, PeerAdmitted):
            accounts.setdefault(entry.body.peer, entry.body.account)
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
            continue
        account = accounts.get(getattr(entry.body, "peer", 0))
        found[entry.index] = _signed(means, entry, calls.get(entry.tx_hash), account, together[entry.tx_hash], on_chain)
    return Canon(found)


def _signed(
    means: Means,
    entry: Entry,
    call: SignedCall | str | None,
    account: str | None,
    together: Sequence[Entry],
    on_chain: Finding | None,
) -> Finding:
    data = {"tx": "0x" + entry.tx_hash.hex(), "block": entry.block_number, "signer": None}
    if call is None or isinstance(call, str):
        why = call or "no signed transaction of this entry could be had"
        return Finding(NAME, Result.UNKNOWN, why, data, asked=means.blocks is not None or call is not None)
    data["signer"] = call.sender
    identity = means.identity
    try:
        check_call(call, entry, identity.address, identity.chain_id, account, together)
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
            self._hashes = means.blocks.hashes([entry.block_number for entry in entries])
            self._tip = means.blocks.tip()

    def finding(self, entry: Entry) -> Finding | None:
        """``None`` where all is well."""
        if self._blocks is None:
            text = "only a chain could tell whether its block is part of one"
            return Finding(NAME, Result.UNKNOWN, text, asked=False)
        if not any(entry.block_hash):
            return Finding(NAME, Result.UNKNOWN, "the source of the log does not say which block the entry is in")
        block = self._hashes.get(entry.block_number)
        if block is None or block[0] != entry.block_hash:
            got = "no such block" if block is None else f"0x{block[0].hex()}"
            text = f"block {entry.block_number} is {got} on the chain now, expected 0x{entry.block_hash.hex()}"
            return Finding(NAME, Result.FAILED, text)
        if entry.tx_hash not in block[1]:
            text = f"block {entry.block_number} holds no transaction 0x{entry.tx_hash.hex()}"
            return Finding(NAME, Result.FAILED, text)
        deep = self._tip - entry.block_number
        if deep < self._depth:
            return Finding(NAME, Result.UNKNOWN, f"{deep} blocks deep, {self._depth} are asked for; look again later")
        return None


def unreachable(cause: ChainUnavailable) -> Finding:
    """What is found where the chain stops to answer."""
    return Finding(NAME, Result.UNKNOWN, f"the chain does not answer: {cause}")
