"""Gradients of softmax regression in closed form."""

from __future__ import annotations

import torch


class LinearGradients:
    """Mean cross-entropy of ``logits = x W' + b`` and its gradients, without autograd's bookkeeping.

    With p = softmax(logits), t the one-hot label and s_i the sample's weight divided by the sum of weights in the batch
    (1/B without class weights):  dL/dlogits = s (p - t),  dL/dW = (dL/dlogits)' x,  dL/db = sum over rows.
    (Bishop 2006, Pattern Recognition and Machine Learning, 4.109.) Equal to ``F.cross_entropy`` and autograd up to
    rounding. The gradients returned are overwritten by the next call.

    Args:
        weight: W, [classes, features]. bias: b, [classes]. Both are read anew at every call.
        class_weights: [classes] or None.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, class_weights: torch.Tensor | None) -> None:
        self._transposed, self._bias = weight.detach().t(), bias.detach()
        self._class_weights = class_weights
        self._minus_one = weight.new_full((1, 1), -1.0)
        self._slopes = [torch.empty_like(weight.detach()), torch.empty_like(bias.detach())]

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        with torch.no_grad():
            count = len(targets)
            rows = inputs.reshape(count, -1)
            column = targets.unsqueeze(1)
            logs = torch.log_softmax(torch.addmm(self._bias, rows, self._transposed), 1)
            losses = logs.gather(1, column)
            errors = logs.exp_().scatter_add_(1, column, self._minus_one.expand(count, 1))
            if self._class_weights is None:
                errors.div_(count)
                loss = losses.mean().neg_()
            else:
                shares = self._class_weights[column]
                shares /= shares.sum()
                errors.mul_(shares)
                loss = losses.mul_(shares).sum().neg_()
            torch.mm(errors.t(), rows, out=self._slopes[0])
            torch.sum(errors, 0, out=self._slopes[1])
            return loss, self._slopes
