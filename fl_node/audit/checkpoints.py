"""Check 3 for the federation as a whole: the log extends every checkpoint that was given or that peers serve."""

from __future__ import annotations

from fl_node.audit.means import Means
from fl_node.audit.verdicts import Finding, Result
from fl_node.ledger.checkpoint import SignedCheckpoint, conflicts, holds

NAME = "consistent"


def checkpoints(means: Means) -> list[Finding]:
    """One finding for each checkpoint that counts; one that says so where there is none."""
    counted = [signed for signed in means.checkpoints if not _strangers(means, signed)]
    found = [_held(means, signed) for signed in counted]
    if not counted:
        text = "nobody's checkpoint was at hand, so only the endpoint vouches that this is all of the log"
        found = [Finding(NAME, Result.UNKNOWN, text, {"checkpoints": 0}, asked=False)]
    found += _dropped(means)
    if means.on_chain > means.log.size:
        text = f"the contract has {means.on_chain} entries, of which {means.log.size} could be had"
        found.append(Finding(NAME, Result.UNKNOWN, text, {"on_chain": means.on_chain}))
    for conflict in conflicts(counted):
        text = f"{conflict.text}: two logs were shown"
        found.append(Finding(NAME, Result.FAILED, text, {"equivocators": list(conflict.equivocators)}))
    for signed in means.checkpoints:
        trouble = _held(means, signed) if _strangers(means, signed) else None
        if trouble is not None and trouble.result is not Result.OK:
            text = f"{trouble.detail}; a gateway gave it, and anybody can sign one"
            found.append(Finding(NAME, Result.UNKNOWN, text, trouble.data, asked=False))
    return found


def _held(means: Means, signed: SignedCheckpoint) -> Finding:
    """A checkpoint against the log."""
    said = signed.checkpoint
    who = ", ".join(_named(means, account) for account in signed.signers)
    data = {"size": said.size, "root": said.root.hex(), "signers": list(signed.signers)}
    trouble = holds(said, means.log)
    if trouble is not None:
        return Finding(NAME, Result.FAILED, f"the checkpoint of {who}: {trouble}", data)
    return Finding(NAME, Result.OK, f"extends the {said.size} entries that {who} signed", data)


def _dropped(means: Means) -> list[Finding]:
    """What an earlier audit saw and the chain has not any more. The auditor is a witness as well, but reorganisations
    happen. Transactions that came back do not count."""
    there = {entry.tx_hash for entry in means.entries}
    lost = [orphan.entry for orphan in means.log.orphans() if orphan.entry.tx_hash not in there]
    if not lost:
        return []
    first = min(lost, key=lambda entry: entry.index)
    text = (
        f"the chain dropped {len(lost)} entries that an earlier audit saw, the first of them entry {first.index} of "
        f"block {first.block_number}: it was reorganised, or rewritten. Whoever signed a checkpoint can tell; --fresh "
        "forgets them"
    )
    return [Finding(NAME, Result.UNKNOWN, text, {"dropped": sorted(entry.index for entry in lost)})]


def _strangers(means: Means, signed: SignedCheckpoint) -> bool:
    """Whether a checkpoint was not asked for, and no member signed it."""
    return signed.note in means.served and all(means.prefix.peer_of(one) is None for one in signed.signers)


def _named(means: Means, account: str) -> str:
    """A signer as people know it."""
    facts = means.prefix.peer_of(account)
    return f"{account} (no member)" if facts is None else f"{facts.site} (peer {facts.number})"
