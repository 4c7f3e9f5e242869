"""Checks 2, 3, 9 and 10: what the log alone tells of an update."""

from __future__ import annotations

from fl_node.audit.means import Means
from fl_node.audit.verdicts import Finding, Result
from fl_node.ledger import tree
from fl_node.merging.aggregation import needs_bytes, rule_of, shares_of
from fl_node.merging.owed import waited
from fl_node.merging.selection import Selection, other_parents, selection_behind
from fl_node.merging.sync import sync_prefix
from fl_node.merging.trust import check_row, recorded_trust
from fl_node.prefix import Prefix, UpdateEntry
from fl_node.records import Parent, Role, Rule
from fl_node.spec import Spec


def grown(means: Means, *, wanted: bool = True) -> tree.Grown:
    """The tree over all entries, for the two checks that follow; none where these are not wanted."""
    return tree.Grown(tree.entry_leaf(entry.topics, entry.data) for entry in means.entries if wanted)


def included(grown: tree.Grown, root: bytes, update: UpdateEntry) -> Finding:
    """Check 2: an inclusion proof of the entry's leaf, made from the log and held against its root."""
    size, leaf = grown.size, grown.subtree(0, update.index)
    proof = tree.inclusion_proof(update.index, size, grown.subtree)
    data = {"size": size, "root": root.hex(), "leaf": leaf.hex(), "proof": [node.hex() for node in proof]}
    if not tree.verify_inclusion(leaf, update.index, size, proof, root):
        text = f"the leaf of entry {update.index} does not lead to the root of {size} entries"
        return Finding("included", Result.FAILED, text, data)
    return Finding("included", Result.OK, f"at {update.index} of {size} entries, {len(proof)} hashes", data)


def consistent(grown: tree.Grown, update: UpdateEntry) -> Finding:
    """Check 3: the log up to what the publisher had seen has the root that it signed."""
    seen, signed = update.update.seen, update.update.seen_root
    data = {"seen": seen, "seen_root": signed.hex()}
    if seen > update.index:
        text = f"claims to have seen {seen} entries before entry {update.index}"
        return Finding("consistent", Result.FAILED, text, data)
    root = tree.root_at(seen, grown.subtree)
    if root != signed:
        text = (
            f"its publisher had seen {seen} entries with root {signed.hex()}; this log's first {seen} have "
            f"{root.hex()}: it is not the history that was signed"
        )
        return Finding("consistent", Result.FAILED, text, {**data, "root": root.hex()})
    return Finding("consistent", Result.OK, f"extends the {seen} entries that its publisher had seen", data)


def membership(means: Means, update: UpdateEntry) -> Finding:
    """Check 10: admitted then, with the role; sequence, round and seen by the rules of contract and spec."""
    prefix, facts = means.prefix, update.update
    data = {"sequence": update.ref.sequence, "round": update.round, "lag": update.index - facts.seen}
    breach = means.breaches.get(update.index)
    if breach is not None:
        return Finding("membership", Result.FAILED, breach, data)
    peer = prefix.upto(update.index).peer(update.ref.peer)
    if not peer.roles & Role.PUBLISH or not peer.active:
        return Finding("membership", Result.FAILED, f"peer {peer.number} was no publishing member then", data)
    if means.federation is None:
        return Finding("membership", Result.UNKNOWN, "by the contract's rules; the ledger's spec is not at hand", data)
    spec = means.federation.spec
    lag = update.index - facts.seen
    if lag > spec.rounds.max_lag:
        text = f"it had seen {facts.seen} entries, {lag} before its own; the spec allows {spec.rounds.max_lag}"
        return Finding("membership", Result.FAILED, text, data)
    why = ignored(spec, prefix, update)
    if why is not None:
        return Finding("membership", Result.OK, f"a member's, by the rules; but it does not count: {why}", data)
    return Finding("membership", Result.OK, f"admitted at entry {peer.admitted}, lags {lag} entries", data)


def ignored(spec: Spec, prefix: Prefix, update: UpdateEntry) -> str | None:
    """Why an update that is on the ledger counts for nobody; ``None`` if it counts."""
    if not prefix.counts(update.ref.peer, update.index):
        retirement = prefix.peer(update.ref.peer).retirement
        assert retirement is not None
        return f"its publisher was retired at entry {retirement.index}, from entry {retirement.from_index} on"
    if spec.rounds.mode == "sync":
        cut = sync_prefix(spec, prefix.upto(update.index), update.round, update.time_s)
        if cut.size is None or update.update.seen < cut.size:
            return f"made before round {update.round} had begun, at log size {update.update.seen}"
        if not waited(spec, prefix, cut, update.update.seen):
            return f"made before others had had time to attest, at log size {update.update.seen}"
    return None


def selection(means: Means, update: UpdateEntry) -> Finding:
    """Check 9: the policy gives these parents, with these shares and this rule, from the log that was seen."""
    if means.federation is None:
        return Finding("selection", Result.UNKNOWN, "the ledger's spec is not at hand, so its policy is not known")
    spec, prefix = means.federation.spec, means.prefix
    data = {"policy": spec.merging.selection, "rule": spec.merging.aggregation}
    try:
        chosen = selection_behind(spec, prefix, update)
    except (ValueError, LookupError) as cause:
        return Finding("selection", Result.FAILED, f"cannot follow from the log that it had seen: {cause}", data)
    trouble = other_parents(chosen, update) or _other_shares(spec, prefix, update, chosen)
    if trouble is not None:
        return Finding("selection", Result.FAILED, trouble, data)
    many = "1 parent" if len(update.parents) == 1 else f"{len(update.parents)} parents"
    if update.update.rule == Rule.TRUST:
        text = f"{many} as the policy says; shares within their bounds, for they follow from "
        return Finding("selection", Result.OK, text + "private rows", {**data, "private_input": True})
    return Finding("selection", Result.OK, f"{many} as the policy says", data)


def _other_shares(spec: Spec, prefix: Prefix, update: UpdateEntry, chosen: Selection) -> str | None:
    recorded = {parent.ref for parent in update.parents}
    if len(recorded) != len(update.parents):
        return f"records a parent more than once: {told(update.parents)}"
    candidates = [entry for entry in chosen.candidates if entry.ref in recorded]
    rule = rule_of(spec, len(candidates))
    if update.update.rule != rule:
        return f"records rule {update.update.rule}, the spec gives {int(rule)} ({rule.name.lower()})"
    if rule is Rule.TRUST:
        faults = check_row(spec, recorded_trust(prefix.upto(update.index), update.ref.peer), update.parents)
        return "; ".join(faults) or None
    if needs_bytes(spec, len(candidates)):
        return None  # the merge finds them
    parents, _ = shares_of(spec, candidates, standing=chosen.standing)
    if parents != update.parents:
        return f"records the shares {told(update.parents)}; the spec gives {told(parents)}"
    return None


def told(parents: tuple[Parent, ...]) -> str:
    """Parents and shares, in short."""
    return ", ".join(f"{parent.ref} {parent.share_ppm}" for parent in parents) or "none"
