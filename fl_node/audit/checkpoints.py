"""Check 3 for the federation as a whole: the log extends every checkpoint that was given or that peers serve."""

from __future__ import annotations

from fl_node.audit.means import Means
from fl_node.audit.verdicts import Finding, Result
from fl_node.ledger.checkpoint import conflicts, holds

NAME = "consistent"


def checkpoints(means: Means) -> list[Finding]:
    """One finding for each checkpoint; one that says so where there is none."""
    if not means.checkpoints:
        text = "nobody's checkpoint was at hand, so only the endpoint vouches that this is all of the log"
        return [Finding(NAME, Result.UNKNOWN, text, {"checkpoints": 0}, asked=False)]
    found = []
    for signed in means.checkpoints:
        said = signed.checkpoint
        who = ", ".join(_named(means, account) for account in signed.signers)
        data = {"size": said.size, "root": said.root.hex(), "signers": list(signed.signers)}
        trouble = holds(said, means.log)
        if trouble is not None:
            found.append(Finding(NAME, Result.FAILED, f"the checkpoint of {who}: {trouble}", data))
        else:
            found.append(Finding(NAME, Result.OK, f"extends the {said.size} entries that {who} signed", data))
    for conflict in conflicts(means.checkpoints):
        text = f"{conflict.text}: two logs were shown"
        found.append(Finding(NAME, Result.FAILED, text, {"equivocators": list(conflict.equivocators)}))
    return found


def _named(means: Means, account: str) -> str:
    """A signer as people know it."""
    facts = means.prefix.peer_of(account)
    return f"{account} (no member)" if facts is None else f"{facts.site} (peer {facts.number})"
