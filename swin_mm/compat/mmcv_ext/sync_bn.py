"""`sync_bn`: the steps of mmcv's batch norm between which it averages over processes.

mmcv flattens the pixels: inputs, outputs and `norm`, the normalised input, are `(B, C, S)`; all
else is `(C,)`. Statistics are float32.
"""

from typing import Any

from torch import Tensor


def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """Writes the mean of each channel."""
    mean.copy_(input.float().mean(dim=(0, 2)))


def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """Writes the variance of each channel around `mean`."""
    var.copy_((input.float() - mean[:, None]).square().mean(dim=(0, 2)))


def sync_bn_forward_output(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    norm: Tensor,
    std: Tensor,
    output: Tensor,
    **options: Any,
) -> None:
    """Normalises, scales, shifts, and updates the running statistics.

    Args:
        running_var: Updated with the unbiased variance; `running_mean` likewise.
        norm, std, output: Written.
        options: `eps`; `momentum`, the share of the new statistics in the running ones;
            `group_size`, the number of processes, each with as many pixels as this one.
    """
    momentum = options["momentum"]
    std.copy_((var + options["eps"]).sqrt())
    norm.copy_((input.float() - mean[:, None]) / std[:, None])
    output.copy_(norm * weight[:, None] + bias[:, None])
    count = input.shape[0] * input.shape[2] * options["group_size"]
    unbiased = var * (count / (count - 1)) if count > 1 else var
    running_mean.copy_(momentum * mean + (1 - momentum) * running_mean)
    running_var.copy_(momentum * unbiased + (1 - momentum) * running_var)


def sync_bn_backward_param(
    grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor
) -> None:
    """Writes the gradients of scale and shift."""
    grad = grad_output.float()
    grad_weight.copy_((grad * norm).sum(dim=(0, 2)))
    grad_bias.copy_(grad.sum(dim=(0, 2)))


def sync_bn_backward_data(
    grad_output: Tensor,
    weight: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    norm: Tensor,
    std: Tensor,
    grad_input: Tensor,
) -> None:
    """Writes the gradient of the input; those of scale and shift are averaged over processes."""
    pixels = grad_output.shape[0] * grad_output.shape[2]
    common = (grad_weight[:, None] * norm + grad_bias[:, None]) / pixels
    grad_input.copy_((grad_output.float() - common) * (weight / std)[:, None])
