"""`sync_bn`: the steps of mmcv's batch norm between which it averages over processes.

mmcv flattens the pixels: inputs are `(B, C, S)`. Statistics are float32.
"""

from torch import Tensor


def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """Writes the mean of each channel of `input` `(B, C, S)` into `mean` `(C,)`."""
    mean.copy_(input.float().mean(dim=(0, 2)))


def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """Writes the variance of `input` `(B, C, S)` around `mean` `(C,)` into `var` `(C,)`."""
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
    eps: float,
    momentum: float,
    group_size: int,
) -> None:
    """Normalises, scales, shifts, and updates the running statistics.

    Args:
        input: `(B, C, S)`.
        mean: `(C,)`, averaged over the processes; `var` likewise.
        weight: `(C,)`, scale; `bias` is the shift.
        running_mean: `(C,)`, updated; `running_var` likewise, with the unbiased variance.
        norm: `(B, C, S)`, written: the normalised input.
        std: `(C,)`, written: the standard deviation it was divided by.
        output: `(B, C, S)`, written.
        eps: added to the variance.
        momentum: share of the new statistics in the running ones.
        group_size: number of processes, each with as many pixels as this one.
    """
    std.copy_((var + eps).sqrt())
    norm.copy_((input.float() - mean[:, None]) / std[:, None])
    output.copy_(norm * weight[:, None] + bias[:, None])
    count = input.shape[0] * input.shape[2] * group_size
    unbiased = var * (count / (count - 1)) if count > 1 else var
    running_mean.copy_(momentum * mean + (1 - momentum) * running_mean)
    running_var.copy_(momentum * unbiased + (1 - momentum) * running_var)


def sync_bn_backward_param(
    grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor
) -> None:
    """Writes the gradients of scale and shift, `(C,)` each.

    Args:
        grad_output: `(B, C, S)`.
        norm: `(B, C, S)`, the normalised input.
    """
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
    """Writes the gradient of the input, `(B, C, S)`.

    Args:
        grad_output: `(B, C, S)`.
        weight: `(C,)`, scale.
        grad_weight: `(C,)`, averaged over the processes; `grad_bias` likewise.
        norm: `(B, C, S)`, the normalised input.
        std: `(C,)`, the standard deviation it was divided by.
    """
    pixels = grad_output.shape[0] * grad_output.shape[2]
    common = (grad_weight[:, None] * norm + grad_bias[:, None]) / pixels
    grad_input.copy_((grad_output.float() - common) * (weight / std)[:, None])
