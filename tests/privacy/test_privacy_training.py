"""Private training: what one row can change, that Opacus comes to the same, when it stops, and what it refuses."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fl_node.budget import FILE_NAME, Account
from fl_node.errors import BudgetSpent, SpecError, UsageError
from fl_node.learning.accountant import epsilon
from fl_node.learning.dataset import Dataset
from fl_node.learning.example_sums import LinearSums, ModuleSums, clipped_sums, row_losses
from fl_node.learning.models import Weights, build, genesis
from fl_node.learning.noise import GeneratorNoise
from fl_node.learning.splits import Splits, split
from fl_node.learning.training import Trainer
from fl_node.spec import Spec, parse_federation

Specs = Callable[..., Spec]
Rows = Callable[..., Dataset]

IMAGES = {"input_shape": [8, 8], "classes": 3}
MASKS = {"input_shape": [8, 8], "classes": 3, "kind": "segmentation", "metric": "dice"}


class Silent:
    """No noise, and every row in every batch: what is left is the clipping."""

    def normals(self, count: int) -> NDArray[np.float64]:
        return np.zeros(count)

    def chosen(self, count: int, rate: float) -> NDArray[np.bool_]:
        return np.ones(count, dtype=np.bool_)

    def seed(self) -> int:
        return 7


def trainer_of(spec: Spec, rows: Dataset, **more: Any) -> Trainer:
    return Trainer(spec, split(rows, spec.task), 1, "cpu", **more)


def change(one: Weights, other: Weights) -> float:
    return float(np.sqrt(sum(np.sum((one[name].astype(float) - other[name]) ** 2) for name in one)))


def equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


# ---- sums of clipped gradients ------------------------------------------------------------------------------------


def models(private_spec: Specs) -> dict[str, Spec]:
    return {
        "logistic": private_spec(),
        "mlp": private_spec(model={"name": "mlp", "hidden": [8]}),
        "cnn": private_spec(task=IMAGES, model={"name": "cnn", "hidden": [4, 8]}),
        "unet": private_spec(task=MASKS, model={"name": "unet", "hidden": [4, 8]}),
        "own": private_spec(model={"name": "private_models:good"}),
    }


def batch(spec: Spec, rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks = tuple(spec.task.input_shape[-2:]) if spec.task.kind == "segmentation" else ()
    inputs = torch.randn((rows, *spec.task.input_shape), generator=generator)
    return inputs, torch.randint(spec.task.classes, (rows, *masks), generator=generator)


@pytest.mark.parametrize("name", ["logistic", "mlp", "cnn", "unet", "own"])
def test_a_sum_is_that_of_each_row_s_gradient_clipped_alone(private_spec: Specs, name: str) -> None:
    spec = models(private_spec)[name]
    spec = spec.model_copy(update={"privacy": spec.privacy.model_copy(update={"clip_norm": 0.2})})
    module = build(spec).train()
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    parameters = [one for one in module.parameters() if one.requires_grad]
    inputs, targets = batch(spec, 9)
    inputs[3] *= 50.0  # a row whose gradient is large
    expected = [torch.zeros_like(one) for one in parameters]
    clipped = 0
    for row in range(9):
        loss = row_losses(module(inputs[row : row + 1]), targets[row : row + 1]).sum()
        slopes = torch.autograd.grad(loss, parameters)
        norm = torch.sqrt(sum((one**2).sum() for one in slopes))
        clipped += bool(norm > 0.2)
        for total, slope in zip(expected, slopes, strict=True):
            total += slope * min(1.0, 0.2 / float(norm))
    assert clipped
    sums = clipped_sums(spec, module)
    before = set(vars(module))
    loss, found = sums(inputs, targets)
    sums.close()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert loss == pytest.approx(float(row_losses(module(inputs), targets).sum().detach()), rel=1e-4)
    assert not any("_module." in key for key in module.state_dict())
    assert not [one for one in parameters if hasattr(one, "grad_sample") or one.grad is not None]
    assert before >= set(vars(module)) - {"autograd_grad_sample_hooks"}


def test_the_closed_form_is_what_opacus_gives(private_spec: Specs) -> None:
    spec = private_spec(privacy={"clip_norm": 0.7})
    module = build(spec)
    weight, bias = module.parameters()
    inputs, targets = batch(spec, 40)
    loss, ours = LinearSums(weight, bias, 0.7)(inputs, targets)
    opacus = ModuleSums(module, [weight, bias], 0.7)
    their_loss, theirs = opacus(inputs, targets)
    opacus.close()
    assert loss == pytest.approx(their_loss, rel=1e-5)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["logistic", "mlp", "cnn"])
@pytest.mark.parametrize("extreme", [1.0, 1e6, 1e25, 3e38, float("inf"), float("nan")])
def test_one_row_changes_a_sum_by_clip_norm_at_most(private_spec: Specs, name: str, extreme: float) -> None:
    spec = models(private_spec)[name]
    spec = spec.model_copy(update={"privacy": spec.privacy.model_copy(update={"clip_norm": 0.5})})
    module = build(spec)
    inputs, targets = batch(spec, 20)
    with_row = torch.cat([inputs, torch.full((1, *spec.task.input_shape), extreme)])
    sums = clipped_sums(spec, module)
    _, without = sums(inputs, targets)
    without = [one.clone() for one in without]
    _, found = sums(with_row, torch.cat([targets, torch.tensor([2])]))
    sums.close()
    squares = [((one - other).double() ** 2).sum() for one, other in zip(found, without, strict=True)]
    away = float(torch.stack(squares).sum().sqrt())
    assert away <= 0.5 * (1.0 + 1e-4)


def test_a_batch_of_no_rows_is_no_change(private_spec: Specs) -> None:
    for spec in models(private_spec).values():
        module = build(spec)
        sums = clipped_sums(spec, module)
        loss, found = sums(*(part[:0] for part in batch(spec, 1)))
        sums.close()
        assert loss == 0.0 and not any(bool(one.any()) for one in found)


# ---- steps ---------------------------------------------------------------------------------------------------------


def test_without_noise_a_step_is_the_sum_over_the_expected_rows(private_spec: Specs, blobs: Rows) -> None:
    spec = private_spec(training={"batch_size": 1000, "learning_rate": 0.5}, privacy={"epsilon": 100.0})
    rows = blobs()
    trainer = trainer_of(spec, rows, noises=lambda sequence: Silent())
    start = genesis(spec)
    found, told = trainer.train(start, 1)
    train = trainer.splits.train
    weight, bias = build(spec).parameters()
    _, sums = LinearSums(weight, bias, 1.0)(torch.from_numpy(train.features), torch.from_numpy(train.labels))
    expected = start["linear.weight"] - 0.5 * sums[0].numpy() / len(train)
    np.testing.assert_allclose(found["linear.weight"], expected, rtol=1e-5, atol=1e-6)
    assert told.steps == 1 and told.samples == len(train)


def test_what_is_added_has_the_standard_deviation_that_is_accounted(private_spec: Specs, blobs: Rows) -> None:
    privacy = {"noise_multiplier": 30.0, "clip_norm": 0.01, "epsilon": 10_000.0}
    spec = private_spec(
        task={"input_shape": [2000]}, training={"batch_size": 20, "learning_rate": 1.0}, privacy=privacy
    )
    rows = blobs(width=2000)
    trainer = trainer_of(spec, rows)
    start = genesis(spec)
    assert trainer.privacy is not None
    steps = trainer.privacy.steps
    found, _ = trainer.train(start, 1)
    moved = found["linear.weight"].astype(float) - start["linear.weight"]
    # Sums of at most 0.2, over 6,000 coordinates, beside noise of 0.3 in each: hardly anything but the noise.
    expected = 0.3 / (trainer.privacy.rate * len(trainer.splits.train)) * np.sqrt(steps)
    assert moved.std() == pytest.approx(expected, rel=0.06)


def test_the_same_training_twice_is_not_the_same(private_spec: Specs, blobs: Rows) -> None:
    for spec in (
        private_spec(),
        private_spec(privacy={"secure_random": True}),
        private_spec(privacy={"mechanism": "update"}),
    ):
        results = [trainer_of(spec, blobs()).train(genesis(spec), 1)[0] for _ in range(2)]
        assert not equal(*results)


def test_torch_s_own_generator_is_left_as_it_was(private_spec: Specs, blobs: Rows) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    trainer = trainer_of(private_spec(model={"name": "private_models:good"}), blobs())
    trainer.train(genesis(trainer.spec), 1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "training",
    [
        {"momentum": 0.9},
        {"optimizer": "adam", "learning_rate": 0.05},
        {"proximal": 0.1, "clip_gradient": 1.0, "weight_decay": 0.01},
        {"schedule": "cosine"},
        {"reset_optimizer": False, "momentum": 0.5},
    ],
)
def test_what_comes_after_the_noise_is_as_without(
    private_spec: Specs, blobs: Rows, training: dict[str, Any], tmp_path: Path
) -> None:
    spec = private_spec(training={"epochs": 8, "batch_size": 24, **training}, privacy={"epsilon": 20.0})
    trainer = trainer_of(spec, blobs(600), states=tmp_path)
    model = genesis(spec)
    before = trainer.evaluate(model).score_ppm
    for sequence in (1, 2):
        model, told = trainer.train(model, sequence)
    assert told.steps == trainer.privacy.steps and trainer.evaluate(model).score_ppm > before  # type: ignore[union-attr]


def test_a_model_of_one_s_own_trains_and_keeps_its_names_and_what_is_frozen(private_spec: Specs, blobs: Rows) -> None:
    spec = private_spec(
        model={"name": "private_models:good"}, training={"epochs": 10, "batch_size": 40}, privacy={"epsilon": 50.0}
    )
    trainer = trainer_of(spec, blobs(600))
    start = genesis(spec)
    found, _ = trainer.train(start, 1)
    assert list(found) == list(start) and "0.weight" in found and "4.scale" in found
    assert np.array_equal(found["5.weight"], start["5.weight"]) and not np.array_equal(
        found["4.scale"], start["4.scale"]
    )
    assert trainer.evaluate(found).score_ppm > trainer.evaluate(start).score_ppm
    gradient, _ = trainer.validation_gradient(found)
    assert set(gradient) == set(start) - {"5.weight", "5.bias"}


# ---- update --------------------------------------------------------------------------------------------------------


def test_a_whole_update_is_clipped_as_one_vector_and_noise_added(private_spec: Specs, blobs: Rows) -> None:
    spec = private_spec(
        model={"name": "mlp", "hidden": [8]},
        training={"epochs": 5, "batch_size": 8},
        privacy={"mechanism": "update", "clip_norm": 0.25, "epsilon": 100.0},
    )
    start = genesis(spec)
    clipped, _ = trainer_of(spec, blobs(), noises=lambda sequence: Silent()).train(start, 1)
    assert change(clipped, start) == pytest.approx(0.25, rel=1e-4)
    noisy = trainer_of(spec, blobs(), noises=lambda sequence: GeneratorNoise(1))
    found, _ = noisy.train(start, 1)
    assert noisy.privacy is not None and noisy.privacy.training[1:] == (1.0, 1)
    sizes = sum(array.size for array in start.values())
    expected = noisy.privacy.noise_multiplier * 0.25 * np.sqrt(sizes)
    assert change(found, clipped) == pytest.approx(expected, rel=0.25)


def test_a_small_change_is_not_clipped(private_spec: Specs, blobs: Rows) -> None:
    plain = private_spec(privacy={"mechanism": "none"})
    spec = private_spec(privacy={"mechanism": "update", "clip_norm": 1e6, "epsilon": 100.0})
    # The order of batches is drawn from what the source gives as a seed, so it is only near.
    ours, _ = trainer_of(spec, blobs(), noises=lambda sequence: Silent()).train(genesis(spec), 1)
    theirs, _ = trainer_of(plain, blobs()).train(genesis(spec), 1)
    assert change(ours, theirs) < 0.3 * change(ours, genesis(spec))


def test_an_update_of_a_loop_of_one_s_own_is_bounded_and_what_is_frozen_stays(private_spec: Specs, blobs: Rows) -> None:
    spec = private_spec(
        model={"name": "private_models:good"},
        training={"loop": "private_models:loop"},
        privacy={"mechanism": "update", "clip_norm": 0.5, "epsilon": 100.0},
    )
    start = genesis(spec)
    found, _ = trainer_of(spec, blobs(), noises=lambda sequence: Silent()).train(start, 1)
    assert change(found, start) == pytest.approx(0.5, rel=1e-4)
    assert np.array_equal(found["5.weight"], start["5.weight"])


def test_personal_tensors_are_neither_clipped_nor_noised_in_an_update(private_spec: Specs, blobs: Rows) -> None:
    spec = private_spec(
        model={"name": "mlp", "hidden": [8]},
        training={"epochs": 5, "batch_size": 8},
        merging={"personal": ["linear.*"]},
        privacy={"mechanism": "update", "clip_norm": 0.01, "epsilon": 100.0},
    )
    start = genesis(spec)
    one, _ = trainer_of(spec, blobs(), noises=lambda sequence: Silent()).train(start, 1)
    shared = {name: array for name, array in one.items() if name.startswith("hidden")}
    assert change(shared, {name: start[name] for name in shared}) == pytest.approx(0.01, rel=1e-3)
    assert change({"w": one["linear.weight"]}, {"w": start["linear.weight"]}) > 0.1


# ---- budget --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["example", "update"])
def test_the_least_noise_lasts_for_the_planned_rounds_and_no_longer(
    private_spec: Specs, blobs: Rows, mechanism: str, tmp_path: Path
) -> None:
    spec = private_spec(rounds={"planned": 6}, training={"every": 2}, privacy={"mechanism": mechanism, "epsilon": 3.0})
    account = Account(tmp_path, "chain")
    trainer = trainer_of(spec, blobs(), account=account)
    assert trainer.privacy is not None and trainer.privacy.planned == 3 and trainer.privacy.left() == 3
    model = genesis(spec)
    for sequence in (1, 3, 5):
        model, _ = trainer.train(model, sequence)
    assert 2.9 < account.epsilon <= 3.0 and trainer.privacy.left() == 0
    assert account.epsilon == epsilon(mechanism, [trainer.privacy.training] * 3, 1e-3)  # type: ignore[arg-type]
    with pytest.raises(BudgetSpent, match=r"spent are 2\.99.*, which would be .* with another training"):
        trainer.train(model, 7)
    again = trainer_of(spec, blobs(), account=Account(tmp_path, "chain"))
    with pytest.raises(BudgetSpent):
        again.train(model, 7)
    assert Account(tmp_path, "chain").skipped == {7} and len(Account(tmp_path, "chain").spent) == 3


def test_a_budget_given_up_trains_no_more(private_spec: Specs, blobs: Rows) -> None:
    account = Account()
    trainer = trainer_of(private_spec(), blobs(), account=account)
    account.assume_spent()
    with pytest.raises(BudgetSpent, match="was given up"):
        trainer.train(genesis(trainer.spec), 1)
    # What was spent is not known: it counts as all, which is the most that it can be. Zero would be a lie.
    assert trainer.privacy is not None and trainer.privacy.told()["epsilon"] == trainer.spec.privacy.epsilon
    assert account.epsilon == 0.0


CHILD = """
import os, signal, sys
from pathlib import Path
import numpy as np
from fl_node.budget import Account
from fl_node.learning.dataset import Dataset
from fl_node.learning.models import genesis
from fl_node.learning.splits import split
from fl_node.learning.training import Trainer
from fl_node.spec import Spec, validated

def killed(sequence):
    os.kill(os.getpid(), signal.SIGKILL)

tables = {"task": {"input_shape": (6,), "classes": 3}, "privacy": {"mechanism": "example", "delta": 1e-3}}
tables["privacy"]["noise_multiplier"] = 2.0  # no search for the least
spec = validated(Spec, tables, "test")
rows = Dataset(np.ones((120, 6), np.float32), np.arange(120) % 3)
account = Account(Path(sys.argv[1]), "chain")
noises = killed if sys.argv[2] == "killed" else None
trainer = Trainer(spec, split(rows, spec.task), 1, "cpu", account=account, noises=noises)
trainer.train(genesis(spec), 1)
"""


def test_a_kill_between_account_and_noise_counts_as_spent(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CHILD, tmp_path, "killed"], check=False)
    assert done.returncode == -signal.SIGKILL
    (first,) = Account(tmp_path, "chain").spent
    subprocess.run([sys.executable, "-c", CHILD, tmp_path, "whole"], check=True)
    again = Account(tmp_path, "chain").spent
    assert [(one.sequence, one.attempt) for one in again] == [(1, 1), (1, 2)]
    assert again[0] == first and again[1].epsilon > first.epsilon


def test_noise_is_asked_for_only_when_the_account_is_on_disk(private_spec: Specs, blobs: Rows, tmp_path: Path) -> None:
    on_disk = []

    def looked(sequence: int) -> GeneratorNoise:
        on_disk.append(len(Account(tmp_path, "chain").spent))
        return GeneratorNoise()

    trainer = trainer_of(private_spec(), blobs(), account=Account(tmp_path, "chain"), noises=looked)
    trainer.train(genesis(trainer.spec), 1)

    (tmp_path / FILE_NAME).with_suffix(".new").mkdir()
    with pytest.raises(Exception, match="no noise is drawn before"):
        trainer.train(genesis(trainer.spec), 2)
    assert on_disk == [1]


# ---- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"model": {"name": "private_models:batch_norm"}}, r"1 \(BatchNorm1d\) cannot be trained .* use GroupNorm"),
        ({"model": {"name": "private_models:mixing"}}, r"depends on the other rows|treats each row alone"),
        ({"model": {"name": "private_models:outside"}}, r"used outside of its layer|treats each row alone"),
        ({"privacy": {"delta": 0.02}}, r"privacy.delta = 0.02 with 84 rows .* expected below 1 / 84"),
        ({"privacy": {"noise_multiplier": 0.3, "epsilon": 1.0}}, r"one round of training alone spends epsilon"),
        ({"privacy": {"epsilon": 1e-6, "delta": 1e-9}}, r"privacy.epsilon = 1e-06 at delta 1e-09: .* would need noise"),
    ],
)
def test_what_cannot_be_private_is_explained_at_once(
    private_spec: Specs, blobs: Rows, tables: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        trainer_of(private_spec(**tables), blobs())


def test_without_opacus_it_says_how_to_install_it(
    private_spec: Specs, blobs: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(UsageError, match=r"pip install 'fl-node\[private\]'"):
        trainer_of(private_spec(model={"name": "mlp"}), blobs())
    trainer_of(private_spec(privacy={"mechanism": "update"}), blobs()).train(genesis(private_spec()), 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('training.loop = "a:b"', "with training.loop = 'a:b': .* expected no loop, or mechanism 'update'"),
        ("training.class_weights = true", "with training.class_weights = true"),
        ('merging.aggregation = "trust"', "with merging.aggregation = 'trust': its shares, public to the millionth"),
        ('privacy.scores = "withheld"\nattestation.mode = "all"', "attestations are scores"),
        (
            'privacy.scores = "withheld"\nmerging.selection = "best"',
            "merging.selection = 'best', which looks at scores",
        ),
        ("privacy.epsilon = 0.0", "privacy.epsilon = 0.0"),
        ("privacy.delta = 1.0", "privacy.delta = 1.0"),
    ],
)
def test_tables_that_take_the_promise_back_are_refused(text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        parse_federation(f'privacy.mechanism = "example"\n{text}\n'.encode())
    if "privacy." not in text:
        parse_federation(f"{text}\n".encode())


def test_a_mechanism_s_rows_need_not_be_there_to_look_at_a_model(private_spec: Specs, blobs: Rows) -> None:
    rows = blobs()
    none = rows.rows(np.empty(0, np.int64))
    spec = private_spec()
    assert Trainer(spec, Splits(rows, none, rows), 1, "cpu").evaluate(genesis(spec)).samples == 120
