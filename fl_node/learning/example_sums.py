"""Sums of per-example gradients, each clipped to an L2 norm: what noise is added to in private training.

One row more or less changes a sum by ``clip_norm`` at most, whatever the row holds: a row whose gradient is not finite
adds nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Final, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from fl_node.errors import SpecError, UsageError
from fl_node.learning.models import KNOWN
from fl_node.spec import Spec

#: Bytes of per-example gradients at once.
_WORKING_SET: Final = 128 << 20
_MOST_ROWS: Final = 512
#: What Opacus adds to a norm before it divides by it.
_TINY: Final = 1e-6


class ClippedSums(Protocol):
    """(features, labels) of a batch -> the sum of its rows' losses, and that of their clipped gradients, one tensor for
    each trainable parameter. Tensors given are overwritten by the next call."""

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[float, list[torch.Tensor]]: ...

    def close(self) -> None:
        """Leave the module as it was found."""


def clipped_sums(spec: Spec, module: nn.Module) -> ClippedSums:
    """In closed form for the built-in linear model, else by Opacus."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if spec.model.name == "logistic":
        return LinearSums(parameters[0], parameters[1], spec.privacy.clip_norm)
    return ModuleSums(module, parameters, spec.privacy.clip_norm)


class LinearSums:
    """Of softmax regression, ``logits = x W' + b``. With e = softmax(logits) - one-hot label, a row's gradient is the
    outer product of e and (x, 1), and its norm ||e|| sqrt(||x||^2 + 1) (Goodfellow 2015,
    https://arxiv.org/abs/1510.01799), so no gradient of a single row is ever formed.

    Args:
        weight: W, [classes, features]. bias: b, [classes]. Both are read anew at every call.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, clip_norm: float) -> None:
        self._transposed, self._bias, self._clip = weight.detach().t(), bias.detach(), clip_norm

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
        rows = inputs.reshape(len(targets), self._transposed.shape[0])
        column = targets.unsqueeze(1)
        logs = torch.log_softmax(torch.addmm(self._bias, rows, self._transposed), 1)
        loss = -float(logs.gather(1, column).sum())
        errors = logs.exp_().scatter_add_(1, column, rows.new_full((1, 1), -1.0).expand(len(rows), 1))
        # In float64, where no square overflows, without a copy of the rows in it.
        lengths = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
        norms = torch.linalg.vector_norm(errors.double(), dim=1) * (lengths.square() + 1.0).sqrt()
        factors, bad = _factors(norms, self._clip)
        errors = errors * factors.to(errors).unsqueeze(1)
        if bool(bad.any()):
            errors, rows = errors.masked_fill(bad.unsqueeze(1), 0.0), rows.masked_fill(bad.unsqueeze(1), 0.0)
        return loss, [errors.t() @ rows, errors.sum(0)]

    def close(self) -> None:
        pass


class ModuleSums:
    """Of any module that Opacus knows how to take apart (``GradSampleModule``), in parts that fit into memory. The
    module keeps its names, for it is hooked and not wrapped; :meth:`close` takes the hooks off.

    The loss of a row is its cross-entropy; of a mask, the mean over its pixels.
    """

    def __init__(self, module: nn.Module, parameters: Sequence[nn.Parameter], clip_norm: float) -> None:
        self._module, self._parameters, self._clip = module, list(parameters), clip_norm
        size = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
        self._at_once = max(1, min(_MOST_ROWS, _WORKING_SET // max(1, size)))
        self._hooked = _opacus().GradSampleModule(module, batch_first=True, loss_reduction="sum")

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
        sums = [torch.zeros_like(parameter, requires_grad=False) for parameter in self._parameters]
        loss = 0.0
        for at in range(0, len(targets), self._at_once):
            loss += self._add(sums, inputs[at : at + self._at_once], targets[at : at + self._at_once])
        return loss, sums

    def _add(self, sums: list[torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor) -> float:
        loss = row_losses(self._module(inputs), targets).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            gradients = [_gradient(parameter, len(targets)) for parameter in self._parameters]
            squares = [
                torch.linalg.vector_norm(one.flatten(1), dim=1, dtype=torch.float64).square() for one in gradients
            ]
            factors, bad = _factors(torch.stack(squares).sum(0).sqrt(), self._clip)
            for total, one in zip(sums, gradients, strict=True):
                flat = one.flatten(1)
                if bool(bad.any()):
                    flat = flat.masked_fill(bad.unsqueeze(1), 0.0)
                total += (factors.to(flat) @ flat).view_as(total)
        for parameter in self._parameters:
            parameter.grad = parameter.grad_sample = None  # type: ignore[attr-defined]
        return float(loss.detach())

    def close(self) -> None:
        self._hooked.to_standard_module()
        for parameter in self._parameters:
            parameter.grad = None
            for name in ("grad_sample", "_forward_counter", "_current_grad_sample"):
                if hasattr(parameter, name):
                    delattr(parameter, name)


def row_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """[batch]: the cross-entropy of each row; of masks, the mean over a row's pixels."""
    losses = F.cross_entropy(logits, targets, reduction="none")
    return losses.flatten(1).mean(1) if losses.dim() > 1 else losses


def check_module(spec: Spec, module: nn.Module) -> None:
    """Refuse a model whose gradients cannot be told apart by rows.

    Besides Opacus's own checks, the gradients of three made-up rows taken together are held against those of each
    alone: a model of the user's own may mix rows in ways that no list of layers names.

    Raises:
        SpecError: names the layer or the parameter.
        UsageError: Opacus is not installed.
    """
    name = spec.model.name
    if name == "logistic":
        return
    validators: Any = _opacus().validators.ModuleValidator.VALIDATORS
    for path, part in module.named_modules():
        trainable = any(parameter.requires_grad for parameter in part.parameters())
        found = validators[type(part)](part) if trainable and type(part) in validators else []
        if found:
            raise SpecError(
                f"model.name = {name!r}: {path or 'the module'} ({type(part).__name__}) cannot be trained with "
                f"privacy.mechanism = 'example': {found[0]}; expected layers that treat each row alone: use GroupNorm "
                "or LayerNorm instead of batch norm"
            )
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters:
        raise SpecError(f"model.name = {name!r} has nothing to train; expected a parameter that requires a gradient")
    try:
        _hold_together(spec, module, parameters)
    except (NotImplementedError, RuntimeError, ValueError, AttributeError) as cause:
        if name in KNOWN:
            raise
        raise SpecError(
            f"model.name = {name!r}: its gradients cannot be taken row by row, as privacy.mechanism = 'example' needs: "
            f"{type(cause).__name__}: {cause}; expected a module of torch's own layers that treats each row alone"
        ) from cause


def _hold_together(spec: Spec, module: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
    device = parameters[0].device
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn((3, *spec.task.input_shape), generator=generator).to(device)
    masks = tuple(spec.task.input_shape[-2:]) if spec.task.kind == "segmentation" else ()
    targets = torch.randint(spec.task.classes, (3, *masks), generator=generator).to(device)
    training = {part: part.training for part in module.modules()}
    # What draws, such as dropout, has no parameters of its own; the others must train, for Opacus to look at them.
    module.train()
    for part in module.modules():
        if not any(True for _ in part.parameters()):
            part.eval()
    try:
        alone = [
            torch.autograd.grad(
                row_losses(module(inputs[i : i + 1]), targets[i : i + 1]).sum(), parameters, allow_unused=True
            )
            for i in range(3)
        ]
        sums = ModuleSums(module, parameters, 1.0)
        try:
            row_losses(module(inputs), targets).sum().backward()  # type: ignore[no-untyped-call]
            together = [_gradient(parameter, 3).detach().clone() for parameter in parameters]
        finally:
            sums.close()
    finally:
        for part, was in training.items():
            part.training = was
    names = [path for path, parameter in module.named_parameters() if parameter.requires_grad]
    for place, path in enumerate(names):
        for row, gradients in enumerate(alone):
            expected = gradients[place]
            expected = torch.zeros_like(parameters[place]) if expected is None else expected
            if not torch.allclose(together[place][row], expected, rtol=1e-3, atol=1e-5):
                raise SpecError(
                    f"model.name = {spec.model.name!r}: the gradient of {path} by one row depends on the other rows of "
                    "the batch, or cannot be taken apart by Opacus; privacy.mechanism = 'example' needs a model that "
                    "treats each row alone, without batch norm or anything else across rows"
                )


def _gradient(parameter: nn.Parameter, rows: int) -> torch.Tensor:
    """A parameter's gradients by row, [rows, *shape]; of one that the loss does not depend on, zeros."""
    found: Any = getattr(parameter, "grad_sample", None)
    if isinstance(found, list):
        raise ValueError("a second backward pass before the first was used")
    if found is None:
        if parameter.grad is not None and bool(parameter.grad.count_nonzero()):
            raise ValueError("a parameter is used outside of its layer, where Opacus does not see it")
        return parameter.new_zeros((rows, *parameter.shape))
    return found  # type: ignore[no-any-return]


def _factors(norms: torch.Tensor, clip_norm: float) -> tuple[torch.Tensor, torch.Tensor]:
    """min(1, clip_norm / norm) of each row, and which rows have no finite norm; their factor is 0."""
    bad = ~torch.isfinite(norms)
    return torch.clamp(clip_norm / (norms + _TINY), max=1.0).masked_fill(bad, 0.0), bad


def _opacus() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import opacus  # type: ignore[import-untyped]
            import opacus.validators  # type: ignore[import-untyped]
        # Of a module's first layer that is always so, and of no consequence.
        warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
    except ImportError as cause:
        raise UsageError(
            f"privacy.mechanism = 'example' needs Opacus, which cannot be imported ({cause}); install it with "
            "pip install 'fl-node[private]'"
        ) from cause
    return opacus
