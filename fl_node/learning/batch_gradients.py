"""Gradients of many equal perceptrons at once, in closed form.

Shapes: P peers, B rows of a step, I inputs and O outputs of a layer, C classes. Activations lie transposed, [P, O, B],
because then no product needs a transposed result and softmax runs along the middle axis, both several times faster on
a CPU than with [P, B, O].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch


class StackedPerceptron:
    """Linear layers with ReLU between them (a single one: softmax regression), for P peers side by side.

    With p = softmax(logits), t the one-hot label and s a row's share of its step's mean loss, the error of the last
    layer is e = s (p - t), and for every layer, a being its input,
    dL/dW = e a',  dL/db = sum of e over the rows,  and the error of the layer below is W' e where a > 0, else 0
    (Bishop 2006, Pattern Recognition and Machine Learning, 4.109 and 5.3.1).

    Args:
        parameters: weight [P, O, I] and bias [P, O, 1] of each layer from below, alternating; contiguous. They are read
            anew at every call.
    """

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        self._parameters = list(parameters)
        self._gradients: list[torch.Tensor] | None = None
        self._minus_one = parameters[0].new_full((1, 1, 1), -1.0)

    def forward(self, inputs_PIB: torch.Tensor) -> list[torch.Tensor]:
        """The input of every layer and, last, the logits [P, C, B]; for the first peers if inputs are for fewer."""
        values = [inputs_PIB]
        for weight, bias in self._layers(len(inputs_PIB)):
            if len(values) > 1:
                values[-1].relu_()
            values.append(torch.baddbmm(bias, weight, values[-1]))
        return values

    def gradients(
        self, inputs_PIB: torch.Tensor, targets_P1B: torch.Tensor, shares_P1B: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The logits, and the gradient of each peer's mean loss in the order of the parameters.

        The gradients are overwritten by the next call.

        Args:
            inputs_PIB: features, a view with any strides; of the first peers if they are fewer than the parameters'.
            targets_P1B: labels, int64.
            shares_P1B: each row's share of its peer's mean loss.
        """
        if self._gradients is None:
            self._gradients = [torch.empty_like(parameter) for parameter in self._parameters]
        found = [gradient[: len(inputs_PIB)] for gradient in self._gradients]
        values = self.forward(inputs_PIB)
        for layer, error, below_PBI in self._errors(values, targets_P1B, shares_P1B):
            torch.bmm(error, below_PBI, out=found[2 * layer])
            torch.sum(error, 2, keepdim=True, out=found[2 * layer + 1])
        return values[-1], found

    def descend(
        self, inputs_PIB: torch.Tensor, targets_P1B: torch.Tensor, shares_P1B: torch.Tensor, rate: float
    ) -> torch.Tensor:
        """One step of plain gradient descent, each gradient added to the weights while it is made; gives the logits.

        Arguments as above, and the learning rate.
        """
        values = self.forward(inputs_PIB)
        layers = list(self._layers(len(inputs_PIB)))
        for layer, error, below_PBI in self._errors(values, targets_P1B, shares_P1B):
            weight, bias = layers[layer]
            weight.baddbmm_(error, below_PBI, alpha=-rate)
            bias.sub_(error.sum(2, keepdim=True), alpha=rate)
        return values[-1]

    def _layers(self, peers: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for weight, bias in zip(self._parameters[::2], self._parameters[1::2], strict=True):
            yield weight[:peers], bias[:peers]

    def _errors(
        self, values: list[torch.Tensor], targets_P1B: torch.Tensor, shares_P1B: torch.Tensor
    ) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """From the last layer down: its number, its error and its input. The layer's weights may then be changed."""
        layers = list(self._layers(len(values[0])))
        error = torch.softmax(values[-1], 1)
        error.scatter_add_(1, targets_P1B, self._minus_one.expand(targets_P1B.shape)).mul_(shares_P1B)
        for layer in reversed(range(len(layers))):
            weight, below = layers[layer][0], values[layer]
            lower = torch.bmm(weight.transpose(1, 2), error) if layer else error
            yield layer, error, below.transpose(1, 2)
            error = lower.mul_(below.sign_()) if layer else error


def losses(logits_PCB: torch.Tensor, targets_P1B: torch.Tensor, shares_P1B: torch.Tensor) -> torch.Tensor:
    """Each peer's mean cross-entropy over its rows of a step, in nats, [P]."""
    logs = torch.log_softmax(logits_PCB, 1).gather(1, targets_P1B)
    return logs.mul_(shares_P1B).sum((1, 2)).neg_()
