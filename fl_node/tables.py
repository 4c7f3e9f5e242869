"""The tables of a spec: every key that a federation agrees on, with its bounds and its default."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1, le=2**31)]
Count = Annotated[int, Field(ge=0, le=2**31)]


def _network(text: str) -> str:
    ipaddress.ip_network(text)
    return text


Network = Annotated[str, AfterValidator(_network)]


class Table(BaseModel):
    """A frozen TOML table: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TaskSpec(Table):
    """What every peer's data look like and what is measured."""

    data: str = Field(
        "digits", description="digits, mnist, fashion-mnist, credit-default, digits-canvas, csv, npz, module:callable"
    )
    input_shape: tuple[Positive, ...] = Field((64,), description="shape of one sample")
    classes: Annotated[int, Field(ge=2, le=100_000)] = Field(10, description="number of classes")
    label: str = Field("", description="csv: name of the label column")
    kind: Literal["classification", "segmentation"] = Field(
        "classification", description="one label a sample, or one a pixel"
    )
    metric: Literal["accuracy", "macro-f1", "auc", "dice"] = Field(
        "accuracy", description="the score; higher is better; dice is for segmentation"
    )
    validation: Fraction = Field(0.1, description="fraction of rows that steers choices, never claims")
    test: Fraction = Field(0.2, description="fraction of rows that scores are measured on")
    split_seed: Count = Field(0, description="seed of the split into train, validation and test")


class ModelSpec(Table):
    """The torch model that everybody trains."""

    name: str = Field("logistic", description="logistic, mlp, cnn, unet, or module:factory")
    hidden: tuple[Positive, ...] = Field((128,), description="mlp: widths; cnn, unet: channels")
    options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="arguments of a module:factory"
    )
    seed: Count = Field(0, description="seed of the genesis weights")


class TrainingSpec(Table):
    """How a peer trains between two merges."""

    optimizer: Literal["sgd", "adam"] = Field("sgd", description="optimiser")
    learning_rate: Annotated[float, Field(gt=0.0, le=1000.0)] = Field(0.1, description="step size")
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.0, description="sgd momentum")
    weight_decay: Annotated[float, Field(ge=0.0, le=1000.0)] = Field(0.0, description="L2 penalty")
    batch_size: Positive = Field(64, description="rows in a step")
    epochs: Positive = Field(1, description="passes over the train split in one round")
    schedule: Literal["constant", "cosine", "step"] = Field(
        "constant", description="learning rate over the planned rounds"
    )
    final_learning_rate: Annotated[float, Field(ge=0.0, le=1000.0)] = Field(
        0.0, description="cosine: the rate at the end"
    )
    decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(0.5, description="step: factor of each step down")
    decay_rounds: Positive = Field(10, description="step: rounds between two steps down")
    proximal: Annotated[float, Field(ge=0.0, le=1e6)] = Field(0.0, description="FedProx: pull towards the base; 0 none")
    clip_gradient: Annotated[float, Field(ge=0.0, le=1e6)] = Field(
        0.0, description="largest L2 norm of a step's gradient; 0 any"
    )
    every: Positive = Field(1, description="train in every k-th round; between them, publish the merged model")
    class_weights: bool = Field(False, description="weight the loss by inverse class frequency")
    reset_optimizer: bool = Field(True, description="start every round with a fresh optimiser state")
    target_score: Fraction = Field(0.0, description="close once the own validation score reaches this; 0 never")
    loop: str = Field("", description="module:callable of your own training loop")
    seed: Count = Field(0, description="seed of batch order; combined with peer number and sequence")


class MergingSpec(Table):
    """Whose updates are merged, and how."""

    selection: Literal["all-latest", "newer-than-merged", "top-k", "best", "above-own", "random-k", "ring", "graph"] = (
        Field("all-latest", description="which updates are candidates")
    )
    k: Annotated[int, Field(ge=1, le=63)] = Field(3, description="top-k, random-k: how many other peers")
    scores: Literal["claimed", "attested"] = Field(
        "claimed", description="whose word on an update's score counts: its publisher's, or that of other sites"
    )
    measure: Literal["score", "improvement"] = Field(
        "score", description="what is compared: the update's score, or how far it is above its base's"
    )
    attesting_sites: Positive = Field(1, description="attested: sites that must have attested an update")
    unattested: Literal["leave-out", "zero"] = Field(
        "leave-out", description="attested: an update that too few sites attested is left out, or counts as score 0"
    )
    min_samples: Count = Field(0, description="training samples that an update must have; fewer is left out")
    graph: Literal["ring", "line", "star", "full", "grid", "random-regular", "small-world", "edges"] = Field(
        "ring", description="graph: who is whose neighbour"
    )
    degree: Positive = Field(4, description="random-regular, small-world: neighbours of each peer")
    rewire: Fraction = Field(0.1, description="small-world: probability that an edge is moved")
    edges: tuple[tuple[Positive, Positive], ...] = Field((), description="graph = edges: pairs of peer numbers")
    rings: tuple[tuple[Positive, ...], ...] = Field(
        (), description="ring: rings of peer numbers, each begun by its first; none: one ring of all peers"
    )
    initiator: Positive = Field(1, description="ring: the peer that begins where no rings are listed")
    silent_s: Annotated[float, Field(gt=0.0, le=1e9)] = Field(
        60.0, description="ring: seconds after which a silent predecessor is skipped"
    )
    aggregation: Literal[
        "fedavg",
        "uniform",
        "score",
        "trust",
        "median",
        "trimmed-mean",
        "krum",
        "multi-krum",
        "geometric-median",
        "centred-clipping",
    ] = Field("fedavg", description="how they combine")
    sample_cap: Count = Field(0, description="samples counted for one peer at most; 0 trusts every claim")
    staleness_discount: bool = Field(
        False, description="fedavg, uniform, score: divide a weight by 1 + own updates since"
    )
    byzantine: Count = Field(1, description="krum, multi-krum, trimmed-mean: hostile peers to withstand")
    keep: Count = Field(0, description="multi-krum: models averaged; 0: all but the hostile")
    iterations: Annotated[int, Field(ge=1, le=1000)] = Field(
        8, description="geometric-median, centred-clipping: steps, always all of them"
    )
    clip: Literal["none", "fixed", "median"] = Field(
        "none", description="bound each model's distance from the own latest one before it is merged"
    )
    clip_norm: Annotated[float, Field(gt=0.0, le=1e12)] = Field(
        1.0, description="clip = fixed and centred-clipping: the largest L2 distance"
    )
    personal: tuple[str, ...] = Field(
        (), description="name patterns of tensors that stay with each peer: neither published nor merged"
    )
    max_staleness: Positive = Field(10, description="own updates since an entry after which it is not merged any more")
    max_magnitude: Annotated[float, Field(gt=0.0)] = Field(1e6, description="largest weight; beyond it is malformed")
    objection_quorum: Positive = Field(2, description="sites that must call an update unavailable")


class TrustSpec(Table):
    """Learned trust: how fast a peer's shares follow what its own validation rows say."""

    learning_rate: Annotated[float, Field(gt=0.0, le=1e6)] = Field(
        0.5, description="step along the gradient of the relative validation loss"
    )
    steps: Annotated[int, Field(ge=1, le=100)] = Field(1, description="gradient steps in one round")
    max_step: Annotated[float, Field(gt=0.0, le=1e6)] = Field(1.0, description="largest step of one logit")
    prior_pull: Fraction = Field(0.1, description="part of the way back to the sample prior in each round")
    floor_ppm: Annotated[int, Field(ge=0, le=500_000)] = Field(10_000, description="least share of a candidate, ppm")
    max_change_ppm: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        250_000, description="most that a peer's share may change from one round to the next, ppm"
    )


class AttestationSpec(Table):
    """Whether peers score what others publish, and how much of that they tell."""

    mode: Literal["none", "all", "sample"] = Field("none", description="which of the others' updates are attested")
    k: Annotated[int, Field(ge=1, le=64)] = Field(3, description="sample: how many in a round")
    coarsen_ppm: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10_000, description="attested scores are rounded to a multiple of this"
    )
    every: Positive = Field(1, description="attest in every k-th round only")


class RoundsSpec(Table):
    """Pace of the federation."""

    planned: Positive = Field(5, description="rounds before a peer closes")
    mode: Literal["async", "sync"] = Field("async", description="never wait, or wait for a quorum")
    quorum: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="sync: share of active peers that completes a round"
    )
    deadline_s: Annotated[float, Field(gt=0.0, le=1e9)] = Field(
        600.0, description="sync: seconds after a round's first update"
    )
    max_lag: Positive = Field(1000, description="entries by which an update's `seen` may lag behind the log")
    min_interval_s: Count = Field(0, description="least seconds between a peer's updates")
    depth: Count = Field(0, description="blocks on top of an entry before it counts as seen")
    linger_s: Annotated[float, Field(ge=0.0, le=1e9)] = Field(60.0, description="seconds a closed peer goes on serving")


class ContentSpec(Table):
    """How long bytes are kept and who may serve them."""

    retention_rounds: Positive = Field(20, description="rounds for which members keep others' updates")
    fetch_timeout_s: Annotated[float, Field(gt=0.0, le=1e6)] = Field(
        60.0, description="total seconds to fetch one update"
    )
    allow_networks: tuple[Network, ...] = Field(
        (), description="private networks (CIDR) from which content may be fetched"
    )


class EncodingSpec(Table):
    """How published weights are written, so that they take fewer bytes."""

    kind: Literal["f32", "f16", "int8-delta", "top-k-delta"] = Field(
        "f32", description="every value, half precision, or what changed since the own update before"
    )
    full: Literal["f32", "f16", "int8"] = Field(
        "int8", description="deltas: how full updates are written; int8: as int8-delta, since the genesis"
    )
    full_every: Annotated[int, Field(ge=1, le=1000)] = Field(
        10, description="deltas: every k-th update is a full one, so that a reader needs at most k"
    )
    block: Annotated[int, Field(ge=8, le=65_536)] = Field(256, description="int8-delta: values that share one scale")
    density: Annotated[float, Field(gt=0.0, le=0.5)] = Field(
        0.42, description="top-k-delta: part of each tensor's values that is sent"
    )
    error_feedback: bool = Field(True, description="deltas: add what the last update could not carry to the next one")
    compress: Literal["auto", "never"] = Field("auto", description="zstd, where it makes the bytes fewer")


class PrivacySpec(Table):
    """Who can read updates, and how much they may tell of the rows behind them."""

    encrypt: bool = Field(
        True, description="only members and auditors can read updates; false: everybody who can reach a peer or IPFS"
    )
    rotate_every: Count = Field(20, description="rounds after which a peer announces a fresh key; 0 never")
    overlap_rounds: Positive = Field(2, description="rounds for which a peer keeps the key before that")
    auditor_rounds: Positive = Field(1000, description="rounds for which auditors keep the keys before")
    key_wait_s: Annotated[float, Field(ge=0.0, le=1e6)] = Field(
        30.0, description="seconds that a peer's first update waits for members who have announced no key yet"
    )
    mechanism: Literal["none", "example", "update"] = Field(
        "none", description="differential privacy: none; example: of each row (DP-SGD); update: of each whole update"
    )
    epsilon: Annotated[float, Field(gt=0.0, le=10_000.0)] = Field(
        8.0, description="budget over the whole federation; a peer that has spent it trains no more"
    )
    delta: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        1e-5, description="probability left to chance; below one in a peer's number of rows"
    )
    clip_norm: Annotated[float, Field(gt=0.0, le=1e9)] = Field(
        1.0, description="largest L2 norm of a row's gradient, or of an update's change"
    )
    noise_multiplier: Annotated[float, Field(ge=0.0, le=1e6)] = Field(
        0.0, description="noise over clip_norm; 0: the least with which the planned rounds stay within epsilon"
    )
    secure_random: bool = Field(False, description="draw noise and batches from the operating system; slower")
    scores: Literal["coarse", "withheld"] = Field(
        "coarse", description="under a mechanism: scores are rounded, or told as zero; other metrics are withheld"
    )
    score_step_ppm: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10_000, description="coarse: scores are rounded to a multiple of this"
    )


class PredecessorSpec(Table):
    """An earlier federation that this one continues."""

    chain_id: Count = Field(0, description="chain of the earlier contract")
    contract: str = Field("", description="address of the earlier contract")
    size: Count = Field(0, description="its log size")
    root: str = Field("", description="its root, hex")
