"""`sigmoid_focal_loss` and `softmax_focal_loss`, and their gradients in closed form."""

import torch
from torch import Tensor

from swin_mm.compat.mmcv_ext.tensors import widen

# The least probability whose logarithm is taken: C's FLT_MIN, which mmcv uses in every dtype.
LEAST = torch.finfo(torch.float32).tiny


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss of independent classes, written to `output` `(N, C)`.

    Args:
        input: `(N, C)`, logits.
        target: `(N,)` int64, class of each row; C, or any negative number, is background.
        weight: `(C,)`, a factor for the rows of each class, or empty. Background rows have 1.
        gamma: Exponent of the focusing factor.
        alpha: Weight of the foreground term; the background's is `1 - alpha`.
    """
    logits = widen(input)
    _check(target, most=logits.shape[1])
    hit = _one_hot(target, logits.shape[1])
    p = logits.sigmoid()
    foreground = alpha * (1 - p) ** gamma * p.clamp(min=LEAST).log()
    background = (1 - alpha) * p**gamma * (1 - p).clamp(min=LEAST).log()
    output.copy_(-torch.where(hit, foreground, background) * _row_weight(weight, target))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the derivative of `sigmoid_focal_loss_forward`, element by element."""
    logits = widen(input)
    hit = _one_hot(target, logits.shape[1])
    p = logits.sigmoid()
    q = 1 - p
    foreground = alpha * q**gamma * (q - gamma * p * p.clamp(min=LEAST).log())
    background = (1 - alpha) * p**gamma * (gamma * q * q.clamp(min=LEAST).log() - p)
    grad_input.copy_(-torch.where(hit, foreground, background) * _row_weight(weight, target))


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss of mutually exclusive classes, written to `output` `(N,)`.

    As above, but that `input` are probabilities, as mmcv has taken the softmax, and rows with a
    negative target are ignored.
    """
    _check(target, most=input.shape[1] - 1)
    p, counts = _target_probability(widen(input), target)
    loss = -alpha * (1 - p) ** gamma * p.clamp(min=LEAST).log()
    output.copy_(loss * counts * _row_weight(weight, target)[:, 0])


def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Derivative of each row's loss by the logits under the softmax.

    Args:
        buff: `(N,)`, written: the derivative by the logit of the row's own class, over `1 - p`.
        grad_input: `(N, C)`, written.
    """
    probability = widen(input)
    p, counts = _target_probability(probability, target)
    q = 1 - p
    slope = alpha * (gamma * q ** (gamma - 1) * p * p.clamp(min=LEAST).log() - q**gamma)
    slope = slope * counts * _row_weight(weight, target)[:, 0]
    buff.copy_(slope)
    hit = _one_hot(target, probability.shape[1])
    grad_input.copy_(slope[:, None] * (hit.to(probability.dtype) - probability))


def _check(target: Tensor, most: int) -> None:
    """Raises for classes greater than `most`; on a GPU at a later call, so as not to wait."""
    if len(target):
        torch._assert_async(target.max() <= most, f"target must be at most {most} in every row")


def _one_hot(target: Tensor, num_classes: int) -> Tensor:
    """`(N, C)` bool, true at each row's class."""
    return target[:, None] == torch.arange(num_classes, device=target.device)


def _row_weight(weight: Tensor, target: Tensor) -> Tensor:
    """The class weight of each row, `(N, 1)`."""
    if not weight.numel():
        return widen(weight).new_ones(1, 1)
    weight = widen(weight)
    known = (target >= 0) & (target < len(weight))
    return torch.where(known, weight[target.clamp(0, len(weight) - 1)], 1.0)[:, None]


def _target_probability(probability: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Probability of each row's class `(N,)`, and which rows count `(N,)`."""
    place = target.clamp(0, probability.shape[1] - 1)[:, None]
    return probability.gather(1, place)[:, 0], target >= 0
