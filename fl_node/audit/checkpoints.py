"""Check 3 for the federation as a whole: the log extends every checkpoint that was given or that peers serve."""

from __future__ import annotations

from fl_node.audit.means import Means
from fl_node.audit.verdicts import Finding, Result
from fl_node.ledger.checkpoint import holds

NAME = "consistent"


def checkpoints(means: Means) -> list[Finding]:
    """One finding for each checkpoint; one that says so where there is none."""
    if not means.checkpoints:
        text = "nobody's checkpoint was at hand, so only the endpoint vouches that this is all of the log"
        return [Finding(NAME, Result.UNKNOWN, text, {"checkpoints": 0}, asked=False)]
    found = []
    for signed in means.checkpoints:
        said = signed.checkpoint
        who = ", ".join(_named(means, account) for account in signed.signers) or "nobody whose signature verifies"
        data = {"size": said.size, "root": said.root.hex(), "signers": list(signed.signers)}
        trouble = holds(said, means.log) or _other_ledger(means, signed.checkpoint.chain_id, said.contract)
        if trouble is not None:
            found.append(Finding(NAME, Result.FAILED, f"the checkpoint of {who}: {trouble}", data))
        elif not signed.signers:
            found.append(Finding(NAME, Result.UNKNOWN, f"a checkpoint of size {said.size} that nobody signed", data))
        else:
            found.append(Finding(NAME, Result.OK, f"extends the {said.size} entries that {who} signed", data))
    return found


def _other_ledger(means: Means, chain_id: int, contract: str) -> str | None:
    identity = means.identity
    if (chain_id, contract.lower()) == (identity.chain_id, identity.address.lower()):
        return None
    return f"it is of ledger {contract} on chain {chain_id}"


def _named(means: Means, account: str) -> str:
    """A signer as people know it."""
    facts = means.prefix.peer_of(account)
    return f"{account} (no member)" if facts is None else f"{facts.site} (peer {facts.number})"
