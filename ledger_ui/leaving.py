"""What leaves a peer, in words, as the spec has it: how updates are written, who can read them, what they may tell."""

from __future__ import annotations

from typing import Final

from fl_node.spec import Spec
from ledger_ui.questions.spent import mechanism_of
from ledger_ui.text import many, nth, part

_ENCODINGS: Final = {
    "f32": "Updates are published as float32: every value as it is.",
    "f16": "Updates are published in half precision; their publishers go on from what was published.",
    "int8-delta": "An update says what changed since the one before it, in 8 bits a value with a scale for each block "
    "of {block:,}; its publisher goes on from what was published.",
    "top-k-delta": "An update says of what changed since the one before it only the largest {density} of each tensor; "
    "its publisher goes on from what was published.",
}


def encoding(spec: Spec) -> list[str]:
    """How updates are written."""
    rules = spec.encoding
    sentences = [_ENCODINGS[rules.kind].format(block=rules.block, density=part(rules.density))]
    if rules.kind.endswith("-delta"):
        sentences.append(f"Every {nth(rules.full_every)} one is whole, as {rules.full}.")
        if rules.error_feedback:
            sentences.append("What one could not carry is added to the next.")
    if rules.compress == "auto":
        sentences.append("zstd compresses where that makes fewer bytes.")
    return sentences


def privacy(spec: Spec) -> list[str]:
    """Who can read them, and how much they may tell."""
    rules = spec.privacy
    if not rules.encrypt:
        sentences = [
            "Updates are not encrypted: anybody who can reach a peer, or a copy on IPFS, can read the weights, and "
            "what they tell of the rows behind them."
        ]
    else:
        sentences = [
            "Updates are encrypted for the members and auditors that have a key when they are published. Who is "
            "retired cannot read what comes after; who joins later cannot read what came before, unless a member "
            "shares it.",
            f"A peer announces a fresh key after {many(rules.rotate_every, 'round')}, and keeps the one before for "
            f"{many(rules.overlap_rounds, 'round')}; auditors keep theirs for {many(rules.auditor_rounds, 'round')}."
            if rules.rotate_every
            else "Keys are not changed by themselves.",
        ]
    known = mechanism_of(rules)
    sentences.append(known.words)
    if rules.mechanism != "none":
        noise = "the least noise with which the planned rounds stay within that"
        noise = noise if not rules.noise_multiplier else f"noise of {rules.noise_multiplier:g} times that norm"
        what = "Gradients of rows" if rules.mechanism == "example" else "Changes of whole updates"
        sentences.append(f"{what} are cut to the norm {rules.clip_norm:g}, with {noise}. {known.scores_words}")
    return sentences
