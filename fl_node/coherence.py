"""What no single key of a spec can say: keys that do not go together. Checked when a federation file is read."""

from __future__ import annotations

from typing import Final

from fl_node.errors import SpecError
from fl_node.tables import (
    AttestationSpec,
    ContentSpec,
    EncodingSpec,
    MergingSpec,
    PrivacySpec,
    RoundsSpec,
    TaskSpec,
    TrainingSpec,
)

#: What it means that updates are not encrypted.
IN_THE_CLEAR: Final = (
    "privacy.encrypt = false: everybody who can reach a peer's gateway or the content network can read the weights of "
    "every update, now and for ever; leave the key out, and only members and auditors can"
)
#: Keys of [privacy] that mean something under a mechanism of differential privacy only.
_OF_A_MECHANISM: Final = (
    "epsilon",
    "delta",
    "clip_norm",
    "noise_multiplier",
    "secure_random",
    "scores",
    "score_step_ppm",
)
#: Keys of [encoding] that mean nothing, by kind. A full update of a top-k-delta may be written in blocks.
_OF_DELTAS: Final = ("full", "full_every", "block", "density", "error_feedback")
_IDLE: Final = {"f32": _OF_DELTAS, "f16": _OF_DELTAS, "int8-delta": ("density",), "top-k-delta": ()}


def check_coherence(
    task: TaskSpec,
    training: TrainingSpec,
    merging: MergingSpec,
    attestation: AttestationSpec,
    rounds: RoundsSpec,
    where: str,
) -> None:
    """Refuse tables that contradict each other.

    Raises:
        SpecError: naming the keys, what they are, and what goes together.
    """
    if task.validation + task.test >= 1.0:
        raise SpecError(
            f"{where}: task.validation + task.test = {task.validation + task.test:g}; "
            "expected below 1, so that rows are left to train on"
        )
    if (task.kind == "segmentation") != (task.metric == "dice"):
        raise SpecError(
            f"{where}: task.kind = {task.kind!r} with task.metric = {task.metric!r}; expected metric dice for "
            "segmentation, and another for classification"
        )
    if merging.scores == "attested" and attestation.mode == "none":
        raise SpecError(
            f"{where}: merging.scores = 'attested' with attestation.mode = 'none': nobody would attest; expected "
            "attestation.mode = 'all' or 'sample'"
        )
    for key, asked in (
        ("attestation.mode", attestation.mode != "none"),
        ("merging.aggregation = 'trust'", merging.aggregation == "trust"),
    ):
        if asked and task.validation == 0.0:
            raise SpecError(
                f"{where}: {key} looks at validation rows, and task.validation = 0 sets none aside; expected above 0"
            )
    if merging.selection == "ring" and rounds.mode != "async":
        raise SpecError(
            f"{where}: merging.selection = 'ring' with rounds.mode = {rounds.mode!r}: in a ring one peer works at a "
            "time; expected mode async"
        )
    if merging.selection == "ring" and merging.aggregation == "trust":
        raise SpecError(
            f"{where}: merging.selection = 'ring' with merging.aggregation = 'trust': in a ring the model that goes "
            "round is taken as it is, and trust has nobody to choose among; expected another aggregation, such as "
            "'uniform'"
        )
    if (merging.graph == "edges") != bool(merging.edges):
        raise SpecError(
            f"{where}: merging.graph = {merging.graph!r} with {len(merging.edges)} merging.edges; expected edges for "
            "graph = 'edges', and only there"
        )


def check_privacy(
    training: TrainingSpec, merging: MergingSpec, attestation: AttestationSpec, privacy: PrivacySpec, where: str
) -> None:
    """Refuse tables that take back what a mechanism of differential privacy promises, choose by what it hides, or have
    a budget and no mechanism.

    Raises:
        SpecError: naming the keys, what they are, and what goes together.
    """
    if privacy.mechanism == "none":
        _check_named(privacy, where)
        return
    asked = f"{where}: privacy.mechanism = {privacy.mechanism!r}"
    if privacy.mechanism == "example" and training.loop:
        raise SpecError(
            f"{asked} with training.loop = {training.loop!r}: in a loop of one's own nobody can vouch for how much a "
            "row changes; expected no loop, or mechanism 'update', which bounds what comes out"
        )
    if privacy.mechanism == "example" and training.class_weights:
        raise SpecError(
            f"{asked} with training.class_weights = true: one row more changes the weight of all the others, so that "
            "clipping each does not bound what it changes; expected class_weights = false"
        )
    if merging.aggregation == "trust":
        raise SpecError(
            f"{asked} with merging.aggregation = 'trust': its shares, public to the millionth, follow what each peer's "
            "validation rows say, and no accountant counts that; expected another aggregation, such as 'fedavg'"
        )
    if privacy.scores == "coarse":
        return
    if attestation.mode != "none":
        raise SpecError(
            f"{asked} with privacy.scores = 'withheld' and attestation.mode = {attestation.mode!r}: attestations are "
            "scores; expected attestation.mode = 'none', or privacy.scores = 'coarse'"
        )
    by_score = {"top-k", "best", "above-own"}
    for key, name, chooses in (
        ("merging.selection", merging.selection, merging.selection in by_score),
        ("merging.aggregation", merging.aggregation, merging.aggregation == "score"),
    ):
        if chooses:
            raise SpecError(
                f"{asked} with privacy.scores = 'withheld' and {key} = {name!r}, which looks at scores: all would be "
                "zero; expected another, or privacy.scores = 'coarse'"
            )


def check_encoding(encoding: EncodingSpec, content: ContentSpec, where: str) -> None:
    """Refuse deltas that never are any, or that refer to what nobody keeps any more.

    Raises:
        SpecError: naming the keys, what they are, and what goes together.
    """
    if encoding.kind not in ("int8-delta", "top-k-delta"):
        return
    if encoding.full_every == 1:
        raise SpecError(
            f"{where}: encoding.kind = {encoding.kind!r} with encoding.full_every = 1: every update would be a full "
            "one; expected full_every from 2 on, or kind 'f32' or 'f16'"
        )
    if content.retention_rounds < encoding.full_every:
        raise SpecError(
            f"{where}: encoding.full_every = {encoding.full_every} with content.retention_rounds = "
            f"{content.retention_rounds}: a change may refer to updates that nobody keeps any more; expected "
            f"retention_rounds of at least {encoding.full_every}, or a lower full_every"
        )


def warnings_of(encoding: EncodingSpec, privacy: PrivacySpec) -> tuple[str, ...]:
    """What a spec may say, and its writer has perhaps not meant: updates that everybody reads, keys that do nothing."""
    told = [] if privacy.encrypt else [IN_THE_CLEAR]
    if privacy.mechanism == "none":
        idle = _changed(privacy, _OF_A_MECHANISM)
        if idle:
            told.append(f"without a privacy.mechanism these keys protect nothing: {idle}")
    idle = _changed(encoding, _IDLE[encoding.kind])
    if idle:
        told.append(f"with encoding.kind = {encoding.kind!r} these keys do nothing: {idle}")
    return tuple(told)


def _check_named(privacy: PrivacySpec, where: str) -> None:
    """Whoever writes a budget down and no mechanism gets no privacy, and would not hear of it. With mechanism = 'none'
    written as well, they have said so."""
    given = [key for key in _OF_A_MECHANISM if key in privacy.model_fields_set]
    if given and "mechanism" not in privacy.model_fields_set:
        raise SpecError(
            f"{where}: privacy.{given[0]} = {getattr(privacy, given[0])!r} without privacy.mechanism: nothing would be "
            "protected; expected privacy.mechanism = 'example' (differential privacy of each row) or 'update' (of each "
            f"whole update), or else none of {', '.join(given)}"
        )


def _changed(table: EncodingSpec | PrivacySpec, keys: tuple[str, ...]) -> str:
    """Those of some keys that are not at their default, as a spec has them."""
    fields = type(table).model_fields
    return ", ".join(f"{key} = {getattr(table, key)!r}" for key in keys if getattr(table, key) != fields[key].default)
