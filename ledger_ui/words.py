"""A spec in words: what its keys have peers do, and what that means for who reads their trail."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from fl_node.presets import PRESETS, Preset, Tables
from fl_node.spec import Spec, named_code
from fl_node.tables import MergingSpec
from fl_node.times import duration
from ledger_ui.contexts import Context
from ledger_ui.leaving import encoding, privacy
from ledger_ui.text import many, nth, part, percent

_LISTED: Final = 12
_LONGEST: Final = 200


class Topic(Context):
    """One part of the spec."""

    topic: str = Field(
        description="task, model, training, merging, rounds, attestation, content, encoding, privacy or predecessor"
    )
    sentences: list[str] = Field(description="what it has peers do; may quote the spec, a stranger's text")


class SpecWords(Context):
    """The whole spec."""

    preset: str | None = Field(description="the preset whose keys these are, by name; none: none of them")
    preset_words: str = Field(description="what that scheme is; empty for none")
    topics: list[Topic]


def spec_words(spec: Spec, peers: int) -> SpecWords:
    """A spec in words.

    Args:
        peers: members of the federation, on whose number the keys of some presets depend.
    """
    known = preset_of(spec, peers)
    topics = (
        ("task", _task(spec)),
        ("model", _model(spec)),
        ("training", _training(spec)),
        ("merging", _merging(spec)),
        ("rounds", _rounds(spec)),
        ("attestation", _attestation(spec)),
        ("content", _content(spec)),
        ("encoding", encoding(spec)),
        ("privacy", privacy(spec)),
        ("predecessor", _predecessor(spec)),
    )
    return SpecWords(
        preset=known.name if known else None,
        preset_words=f"{known.title}: {known.what}." if known else "",
        topics=[Topic(topic=name, sentences=sentences) for name, sentences in topics if sentences],
    )


def preset_of(spec: Spec, peers: int) -> Preset | None:
    """The preset all of whose keys a spec has; for presets that depend on it, with this number of peers."""
    fitting = [one for one in PRESETS.values() if peers >= one.least_peers and _has(spec, one.overrides(peers))]
    return min(fitting, key=lambda one: _beside(spec, one.overrides(peers)), default=None)


def _beside(spec: Spec, tables: Tables) -> int:
    """How many keys of merging are set that a preset does not have: of a ring, those of several rings."""
    others = MergingSpec.model_fields.keys() - tables.get("merging", {}).keys()
    return sum(getattr(spec.merging, key) != MergingSpec.model_fields[key].default for key in others)


def _has(spec: Spec, tables: Tables) -> bool:
    return all(
        getattr(getattr(spec, table), key) == value for table, keys in tables.items() for key, value in keys.items()
    )


# ---- task, model, training -------------------------------------------------------------------------------------------

_METRICS: Final = {
    "accuracy": "accuracy, the part of rows that are labelled right",
    "macro-f1": "the mean over classes of F1",
    "auc": "the area under the ROC curve",
    "dice": "the Dice overlap of what is segmented",
}


def _task(spec: Spec) -> list[str]:
    task = spec.task
    what = "Give each sample one of" if task.kind == "classification" else "Give each pixel one of"
    shape = " x ".join(str(size) for size in task.input_shape[:_LISTED])
    train = max(0.0, 1 - task.validation - task.test)
    return [
        f"{what} {task.classes:,} classes; a sample has the shape {shape}. {_data(spec)}",
        f"The score is {_METRICS[task.metric]}; higher is better. Each peer measures its claims on its own test rows, "
        f"{part(task.test)} of its data. {part(task.validation)} steers choices and attestations, and never makes a "
        f"claim; it trains on the remaining {part(train)}.",
    ]


def _data(spec: Spec) -> str:
    data = spec.task.data
    if data == "csv" or data.startswith("csv:"):
        label = f", labelled by the column {_told(spec.task.label)}" if spec.task.label else ""
        return f"Every peer has rows of its own in a CSV file{label}."
    if data == "npz" or data.startswith("npz:"):
        return "Every peer has arrays of its own in an NPZ file."
    if data in named_code(spec):
        return f"Rows are loaded by {_told(data)}: code that each peer's operator must allow."
    return f"Every peer has a part of the public data set {_told(data)}."


def _model(spec: Spec) -> list[str]:
    name, hidden = spec.model.name, ", ".join(str(width) for width in spec.model.hidden[:_LISTED])
    known = {
        "logistic": "Logistic regression.",
        "mlp": f"A perceptron with hidden layers of {hidden}.",
        "cnn": f"A convolutional network with {hidden} channels.",
        "unet": f"A U-Net with {hidden} channels.",
    }
    words = known.get(name, f"Made by {_told(name)}: code that each peer's operator must allow.")
    start = "Everybody starts from the same genesis weights, whose digests the contract holds."
    personal = spec.merging.personal
    if personal:
        kept = ", ".join(_told(one) for one in personal[:_LISTED])
        start += f" Tensors named like {kept} stay with each peer: they are neither published nor merged."
    return [words, start]


def _training(spec: Spec) -> list[str]:
    training = spec.training
    if training.loop:
        return [f"Peers train by {_told(training.loop)}: code that each operator must allow."]
    how = "Adam" if training.optimizer == "adam" else "stochastic gradient descent"
    momentum = f" with momentum {training.momentum:g}" if training.optimizer == "sgd" and training.momentum else ""
    when = "In each round" if training.every == 1 else f"In every {nth(training.every)} round"
    passes = "once" if training.epochs == 1 else f"{training.epochs:,} times"
    sentences = [
        f"{when} a peer goes {passes} over its train rows, {many(training.batch_size, 'row')} in a step, by "
        f"{how}{momentum}. The learning rate is {_rate(spec)}."
    ]
    extra = [
        (training.every > 1, "Between, it publishes the merged model untrained."),
        (training.weight_decay > 0, f"Weight decay is {training.weight_decay:g}."),
        (training.proximal > 0, f"FedProx pulls towards the base with {training.proximal:g}."),
        (training.clip_gradient > 0, f"A step's gradient is cut to the norm {training.clip_gradient:g}."),
        (training.class_weights, "Rare classes weigh more in the loss."),
        (not training.reset_optimizer, "The optimiser's state is kept from round to round."),
        (
            training.target_score > 0,
            f"A peer closes early once its own validation score reaches {part(training.target_score)}.",
        ),
    ]
    return sentences + [words for told, words in extra if told]


def _rate(spec: Spec) -> str:
    training = spec.training
    rate = f"{training.learning_rate:g}"
    if training.schedule == "cosine":
        return f"{rate}, falling to {training.final_learning_rate:g} along a cosine over the planned rounds"
    if training.schedule == "step":
        return f"{rate}, times {training.decay:g} every {many(training.decay_rounds, 'round')}"
    return rate


# ---- merging ---------------------------------------------------------------------------------------------------------

_AGGREGATIONS: Final = {
    "fedavg": "They are averaged by the training samples that their publishers claim (federated averaging)",
    "uniform": "They are averaged with equal shares",
    "score": "They are averaged by their scores: a better one counts for more",
    "trust": "They are averaged by learned trust: shares follow what each was worth on the merging peer's own "
    "validation rows",
    "median": "Of each weight the median over them is taken",
    "trimmed-mean": "Of each weight the {byzantine} lowest and the {byzantine} highest values are cut away, and the "
    "rest averaged",
    "krum": "Krum takes the one that lies closest to most of the others, made for {byzantine} hostile peers",
    "multi-krum": "Multi-Krum averages {keep} that lie closest to most of the others, made for {byzantine} hostile "
    "peers",
    "geometric-median": "Their geometric median is taken, in {iterations} steps",
    "centred-clipping": "Centred clipping averages how far they are from the own latest one, each distance cut to "
    "{clip_norm:g}, in {iterations} steps",
}


def _merging(spec: Spec) -> list[str]:
    rules = spec.merging
    keep = "all but the hostile of those" if not rules.keep else f"the {rules.keep:,}"
    how = _AGGREGATIONS[rules.aggregation].format(
        byzantine=rules.byzantine, keep=keep, iterations=rules.iterations, clip_norm=rules.clip_norm
    )
    sentences = [_selection(rules)]
    if rules.selection != "best":  # one model has nothing to be averaged with
        sentences.append(f"{how}.")
    if rules.selection in ("top-k", "best", "above-own") or rules.aggregation == "score":
        sentences.append(_scores(rules))
    limits = [
        (
            rules.clip == "median",
            "Before, no model counts from further away than half of them are, measured from the own latest one.",
        ),
        (
            rules.clip == "fixed",
            f"Before, each model's distance from the own latest one is cut to {rules.clip_norm:g}.",
        ),
        (rules.sample_cap > 0, f"Nobody counts for more than {rules.sample_cap:,} samples, whatever is claimed."),
        (rules.staleness_discount, "An update counts for less, the more updates its merger has made since."),
        (rules.min_samples > 0, f"Updates from fewer than {many(rules.min_samples, 'training sample')} are left out."),
    ]
    sentences += [words for told, words in limits if told]
    sentences.append(
        f"An update is too old once its merger has made more than {many(rules.max_staleness, 'update')} of its own "
        f"since, and unavailable for a round once {many(rules.objection_quorum, 'site')} say so."
    )
    sentences.append(_means(rules))
    return sentences


def _selection(rules: MergingSpec) -> str:
    others = many(rules.k, "other peer")
    rings = f"each of {len(rules.rings)} rings of peers" if len(rules.rings) > 1 else "a ring of peers"
    models = "A model" if len(rules.rings) > 1 else "One model"
    words = {
        "all-latest": "A peer merges everybody's latest update, its own among them.",
        "newer-than-merged": "A peer merges what is newer than what it merged before, and its own latest update.",
        "top-k": f"A peer merges the {_of_best(rules.k)} of the others, and its own latest update.",
        "best": "A peer goes on from the one update with the best score of all.",
        "above-own": "A peer merges the updates that score better than its own latest, and that.",
        "random-k": f"A peer merges updates of {others}, drawn anew for each of its own, and its own latest. Nobody "
        "can choose the draw: it follows from the spec, the peer's address and its count of updates.",
        "ring": f"{models} goes round in {rings}: a peer takes its predecessor's, trains it and passes it on. Who "
        f"says nothing for {duration(rules.silent_s)} is skipped.",
        "graph": f"A peer merges the updates of its neighbours in a graph ({_graph(rules)}), and its own latest.",
    }
    return words[rules.selection]


def _of_best(k: int) -> str:
    return "best update" if k == 1 else f"{k:,} best updates"


def _graph(rules: MergingSpec) -> str:
    if rules.graph == "edges":
        return f"{many(len(rules.edges), 'edge')}, listed in the spec"
    degree = f", {rules.degree:,} neighbours each" if rules.graph in ("random-regular", "small-world") else ""
    return f"{rules.graph}{degree}"


def _scores(rules: MergingSpec) -> str:
    what = "the score itself" if rules.measure == "score" else "how far the update is above its base"
    if rules.scores == "claimed":
        return f"What is compared is {what}, as the publisher claims it: who claims much is believed."
    without = "is left out" if rules.unattested == "leave-out" else "counts as zero"
    return (
        f"What is compared is {what}, by the word of other sites: the median over sites, of at least "
        f"{many(rules.attesting_sites, 'site')}. An update that fewer attested {without}."
    )


def _means(rules: MergingSpec) -> str:
    if rules.aggregation == "trust":
        return (
            "What it means: who was looked at follows from the ledger, so anyone can replay it. The shares depend on "
            "private rows; they are recorded and bounded, but cannot be computed again."
        )
    return (
        "What it means: who was merged, who was left out and why follows from the ledger alone, so anyone can replay "
        "it, and compute each recorded base again to the bit."
    )


# ---- rounds, attestation, content ------------------------------------------------------------------------------------


def _rounds(spec: Spec) -> list[str]:
    rounds = spec.rounds
    if rounds.mode == "sync":
        who = "all active peers are" if rounds.quorum >= 1 else f"{part(rounds.quorum)} of the active peers are"
        pace = (
            f"Peers wait for each other: a round is complete when {who} in, or {duration(rounds.deadline_s)} after its "
            "first update. Who comes later is named as late, who does not come as missing."
        )
    else:
        pace = "Nobody waits: each peer merges what is there, trains and publishes at its own pace."
    are = "is" if rounds.planned == 1 else "are"
    sentences = [
        pace,
        f"{many(rounds.planned, 'round')} {are} planned. After them a peer merges once more and publishes a closing "
        "update: its final model, untrained.",
        "When an update is recorded, the log that it has seen may lag by at most "
        f"{many(rounds.max_lag, 'entry', 'entries')}.",
    ]
    if rounds.min_interval_s:
        sentences.append(f"Between a peer's updates lie at least {duration(rounds.min_interval_s)}.")
    if rounds.depth:
        sentences.append(f"An entry counts once {many(rounds.depth, 'block')} lie on top of it.")
    return sentences


def _attestation(spec: Spec) -> list[str]:
    rules = spec.attestation
    if rules.mode == "none":
        return ["Peers do not score each other's updates: every score stays a claim."]
    whom = (
        "every update of the others" if rules.mode == "all" else f"up to {many(rules.k, 'update')} of others in a round"
    )
    when = "" if rules.every == 1 else f", in every {nth(rules.every)} round"
    return [
        f"A peer scores {whom}{when}, on its own validation rows, and says so on the ledger, in steps of "
        f"{percent(rules.coarsen_ppm)}. A score is a claim until other sites have attested it."
    ]


def _content(spec: Spec) -> list[str]:
    content = spec.content
    sentences = [
        f"Members keep and serve each other's updates for {many(content.retention_rounds, 'round')}; a fetch may take "
        f"{duration(content.fetch_timeout_s)} at most."
    ]
    if content.allow_networks:
        shown = ", ".join(content.allow_networks[:_LISTED])
        sentences.append(f"Content may also be fetched from these private networks: {_told(shown)}.")
    return sentences


def _predecessor(spec: Spec) -> list[str]:
    before = spec.predecessor
    if before is None:
        return []
    return [
        f"Continues the ledger at {_told(before.contract)} on chain {before.chain_id}, of "
        f"{many(before.size, 'entry', 'entries')} with the root {_told(before.root)}."
    ]


# ---- pieces ----------------------------------------------------------------------------------------------------------


def _told(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
