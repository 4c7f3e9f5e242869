"""What a simulation does to the rows of some peers after they were dealt out. One grammar for all, joined by ``+``:

none                        nothing
label-noise:FRACTION@PEERS  so many of these peers' labels, chosen anew for each, become another class by chance
wrong-labels@PEERS          every class of these peers is called by another's name, the same one for all of them
clusters:C                  peer n is in cluster (n - 1) mod C; every cluster but the first permutes the classes
rotation:C                  images of cluster c are turned by c quarter turns, C from 2 to 4
rotation:DEGREES@PEERS      images of these peers are turned by 90, 180 or 270 degrees, against the clock

PEERS are numbers and ranges from 1: ``2``, ``2,5``, ``2-4,7``.

Noise is an error of the peer's records: it is in the rows that the peer trains and validates on, and its test rows can
be left clean. The others are what the peer takes for the truth, so they are in all of its rows; how they serve somebody
else is seen on rows that were not shifted. Labels are permuted first and disturbed afterwards, in whatever order the
text says it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fl_node.errors import UsageError
from fl_node.learning.dataset import Dataset
from fl_node.learning.splits import Splits
from fl_node.suggest import did_you_mean
from fl_node.tables import TaskSpec

Indices = NDArray[np.int64]
Kind = Literal["label-noise", "wrong-labels", "clusters", "rotation"]
KINDS: Final[tuple[Kind, ...]] = ("wrong-labels", "clusters", "rotation", "label-noise")
GRAMMAR: Final = (
    "none, or some of label-noise:FRACTION@PEERS, wrong-labels@PEERS, clusters:C, rotation:C and "
    "rotation:DEGREES@PEERS joined by +"
)
_PEERS: Final = re.compile(r"[0-9]{1,9}(-[0-9]{1,9})?(,[0-9]{1,9}(-[0-9]{1,9})?)*")
_MOST_PEERS: Final = 100_000
#: Tells the streams of chance of one seed apart.
_STREAM: Final[dict[str, int]] = {"wrong-labels": 0x5701, "clusters": 0x5702, "label-noise": 0x5703}


@dataclass(frozen=True, slots=True)
class Step:
    """One part of a shift. ``amount``: fraction of the labels; number of clusters; or degrees, where there are peers.
    ``peers``: the numbers that it is for, rising; none: for all."""

    kind: Kind
    amount: float = 0.0
    peers: tuple[int, ...] = ()

    def __str__(self) -> str:
        amount = "" if self.kind == "wrong-labels" else f":{np.format_float_positional(self.amount, trim='-')}"
        return f"{self.kind}{amount}" + (f"@{_ranges(self.peers)}" if self.peers else "")


@dataclass(frozen=True, slots=True)
class Shift:
    """A parsed shift: its steps, in the order in which they are taken."""

    steps: tuple[Step, ...] = ()

    def __str__(self) -> str:
        return "+".join(map(str, self.steps)) or "none"


def parse_shift(text: str) -> Shift:
    """Parse the grammar above. Raises UsageError that names the part that is wrong and what is allowed."""
    if text.strip() in ("", "none"):
        return Shift()
    steps = [_parse_step(part.strip(), text) for part in text.split("+")]
    for number, step in enumerate(steps):
        for other in steps[:number]:
            if step.kind == other.kind and (not (step.peers and other.peers) or set(step.peers) & set(other.peers)):
                raise UsageError(f"shift {text!r}: {step.kind} comes twice for the same peers; expected it once")
    return Shift(tuple(sorted(steps, key=lambda step: KINDS.index(step.kind))))


def check_shift(shift: Shift, task: TaskSpec, peers: int) -> None:
    """Refuse what cannot be done, before anything starts.

    Raises:
        UsageError: a number above ``peers``, more clusters than peers or than permutations of the classes, labels to be
            changed where they are masks, or images to be turned that are not square.
    """
    for step in shift.steps:
        strangers = [number for number in step.peers if number > peers]
        if strangers:
            raise UsageError(
                f"shift {step}: there is no peer {', '.join(map(str, strangers[:5]))}; expected numbers from 1 to "
                f"{peers}"
            )
        if not step.peers and step.amount > peers:
            raise UsageError(f"shift {step}: got {step.amount:g} clusters of {peers} peers; expected at most {peers}")
        if step.kind == "rotation":
            _square(tuple(task.input_shape), step)
        elif task.kind == "segmentation":
            raise UsageError(f"shift {step}: the labels of a segmentation task are masks; expected rotation only")
        if step.kind == "clusters" and task.classes < 10 and step.amount > math.factorial(task.classes):
            raise UsageError(
                f"shift {step}: {task.classes} classes have {math.factorial(task.classes)} permutations; expected no "
                "more clusters"
            )


def cluster_of(shift: Shift, number: int) -> int:
    """The cluster of a peer, from 0; 0 where the shift knows none."""
    clusters = [int(step.amount) for step in shift.steps if not step.peers]
    return (number - 1) % math.lcm(*clusters) if clusters else 0


def shifted(data: Dataset, shift: Shift, number: int, task: TaskSpec, seed: int, *, noise: int | None = 0) -> Dataset:
    """The rows as this peer has them. Nothing is copied where nothing is changed.

    The same arguments give the same rows with the same numpy.

    Args:
        data: rows of the task's shape.
        number: the peer's, from 1.
        seed: any number from 0: of the permutations, the same for all peers of a cluster, and of the noise.
        noise: None leaves label-noise out; else which of the peer's sets this is: each draws on its own.

    Raises:
        UsageError: images are not square.
    """
    for step in shift.steps:
        if step.peers and number not in step.peers:
            continue
        if step.kind == "rotation":
            turns = int(step.amount) // 90 if step.peers else (number - 1) % int(step.amount)
            data = _turned(data, turns, _square(tuple(task.input_shape), step))
        elif step.kind == "wrong-labels":
            data = replace(data, labels=_derangement(task.classes, seed)[data.labels])
        elif step.kind == "clusters":
            cluster = (number - 1) % int(step.amount)
            if cluster:
                data = replace(data, labels=_permutations(task.classes, int(step.amount), seed)[cluster][data.labels])
        elif noise is not None:
            data = replace(data, labels=_noisy(data.labels, step.amount, task.classes, [seed, number, noise]))
    return data


def shifted_splits(splits: Splits, shift: Shift, number: int, task: TaskSpec, seed: int) -> Splits:
    """The three sets of a peer, shifted; the test rows without label noise."""
    return Splits(
        shifted(splits.train, shift, number, task, seed, noise=0),
        shifted(splits.validation, shift, number, task, seed, noise=1),
        shifted(splits.test, shift, number, task, seed, noise=None),
    )


# ---- the changes ----------------------------------------------------------------------------------------------------


def _generator(entropy: Sequence[int], kind: Kind) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([*entropy, _STREAM[kind]]))


def _noisy(labels: Indices, fraction: float, classes: int, entropy: Sequence[int]) -> Indices:
    """round(n * fraction) labels, each moved by 1 to classes - 1 places: never to itself, to every other alike."""
    generator = _generator(entropy, "label-noise")
    chosen = generator.permutation(len(labels))[: round(len(labels) * fraction)]
    found = labels.copy()
    found[chosen] = (found[chosen] + generator.integers(1, classes, size=len(chosen))) % classes
    return found


def _derangement(classes: int, seed: int) -> Indices:
    """One permutation that leaves no class in place: a single cycle through all classes in random order."""
    order = _generator([seed], "wrong-labels").permutation(classes)
    found = np.empty(classes, dtype=np.int64)
    found[order] = np.roll(order, 1)
    return found


def _permutations(classes: int, clusters: int, seed: int) -> list[Indices]:
    """Different permutations, the first leaving everything in place."""
    generator = _generator([seed], "clusters")
    found: list[Indices] = [np.arange(classes, dtype=np.int64)]
    while len(found) < clusters:
        candidate = generator.permutation(classes).astype(np.int64)
        if not any(np.array_equal(candidate, one) for one in found):
            found.append(candidate)
    return found


def _turned(data: Dataset, turns: int, image: tuple[int, ...]) -> Dataset:
    """Images, and masks with them, by so many quarter turns against the clock."""
    if not turns:
        return data
    stacked = data.features.reshape(len(data), *image)
    features = np.ascontiguousarray(np.rot90(stacked, turns, axes=(-2, -1))).reshape(data.features.shape)
    labels = data.labels
    if labels.ndim == 3:
        labels = np.ascontiguousarray(np.rot90(labels, turns, axes=(1, 2)))
    return replace(data, features=features, labels=labels)


def _square(shape: tuple[int, ...], step: Step) -> tuple[int, ...]:
    """The shape of one image, a flat one unfolded. Raises UsageError if it is not square."""
    if len(shape) == 1:
        side = math.isqrt(shape[0])
        shape_of_image: tuple[int, ...] = (side, shape[0] // max(side, 1))
        fits = side * side == shape[0]
    else:
        shape_of_image, fits = shape, len(shape) in (2, 3) and shape[-1] == shape[-2]
    if not fits:
        raise UsageError(
            f"shift {step} with task.input_shape {list(shape)}: expected square images, such as [28, 28], [784] or "
            "[3, 32, 32]"
        )
    return shape_of_image


# ---- the grammar ----------------------------------------------------------------------------------------------------


def _parse_step(part: str, text: str) -> Step:
    head, at, tail = part.partition("@")
    kind, colon, argument = head.partition(":")
    amount = _number(argument) if colon else None
    peers = _peers(tail) if at else ()
    if peers is not None:
        if kind == "label-noise" and peers and amount is not None and 0.0 <= amount <= 1.0:
            return Step("label-noise", amount, peers)
        if kind == "wrong-labels" and peers and not colon:
            return Step("wrong-labels", peers=peers)
        if kind == "clusters" and not at and amount in range(1, _MOST_PEERS + 1):
            return Step("clusters", float(amount or 0))
        if kind == "rotation" and not at and amount in (2, 3, 4):
            return Step("rotation", float(amount or 0))
        if kind == "rotation" and peers and amount in (90, 180, 270):
            return Step("rotation", float(amount or 0), peers)
    hint = "" if kind in KINDS else did_you_mean(kind, KINDS)
    raise UsageError(
        f"shift {text!r}: {part!r} is not understood; expected {GRAMMAR}, with FRACTION from 0 to 1, C clusters (of "
        f"rotation 2 to 4), DEGREES 90, 180 or 270, and PEERS such as 2-3,5{hint}"
    )


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else None


def _peers(text: str) -> tuple[int, ...] | None:
    """Rising numbers from 1, or None for a text that is none."""
    if not _PEERS.fullmatch(text):
        return None
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if not 1 <= low <= high <= _MOST_PEERS:
            return None
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def _ranges(numbers: Sequence[int]) -> str:
    """The shortest text of rising numbers: ``2-4,7``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)
