"""Cross entropy of enlarged logits, without the enlarged logits.

A segmentation head predicts at a quarter of the labels' size. Enlarged in float32, 150 classes of
16 images of 512x512 pixels take 2.5 GB, and a plain loss keeps them, or as much, for backward. Here
a few images at a time are enlarged, compared and turned into gradients of the small logits at once;
what is kept for backward is as large as the small logits, in float32.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Of enlarged logits at a time: 256 MiB in float32, of which there are two copies for a moment.
MAX_ELEMENTS = 1 << 26


def upsampled_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor | None = None,
    ignore_index: int = -100,
    align_corners: bool = False,
    max_elements: int = MAX_ELEMENTS,
) -> tuple[Tensor, Tensor]:
    """Enlarges logits bilinearly to the size of the labels and sums the cross entropy.

    As `cross_entropy(interpolate(logits, ...), labels, reduction="sum")`, in float32 whatever the
    logits are in. Gradients reach `logits` only, and only once.

    Args:
        logits: `(B, C, h, w)`.
        labels: `(B, H, W)`, int64, 0 to C - 1 or `ignore_index`.
        class_weight: `(C,)`, None for ones.
        ignore_index: Label of pixels that do not count.
        align_corners: As in `torch.nn.functional.interpolate`.
        max_elements: Of enlarged logits that may exist at a time; one image is always enlarged.

    Returns:
        The sum, and how many pixels have their label's logit as the largest, both float32 scalars.

    Raises:
        ValueError: Shapes disagree.
        IndexError: A label is no class, on the CPU; on a GPU, PyTorch's assertion fails.
    """
    if logits.ndim != 4 or labels.ndim != 3 or len(logits) != len(labels):
        raise ValueError(
            "logits must be (B, C, h, w) and labels (B, H, W) of the same B, got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_labels(labels, logits.shape[1], ignore_index)
    return _UpsampledCrossEntropy.apply(
        logits, labels, class_weight, ignore_index, align_corners, max_elements
    )


def _check_labels(labels: Tensor, classes: int, ignore_index: int) -> None:
    wrong = labels[((labels < 0) | (labels >= classes)) & (labels != ignore_index)]
    if len(wrong):
        raise IndexError(
            f"Target {wrong[0].item()} is out of bounds: labels must be classes, 0 to "
            f"{classes - 1}, or ignore_index, {ignore_index}"
        )


class _UpsampledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        class_weight: Tensor | None,
        ignore_index: int,
        align_corners: bool,
        max_elements: int,
    ) -> tuple[Tensor, Tensor]:
        wants_gradient = ctx.needs_input_grad[0]
        if class_weight is not None:
            class_weight = class_weight.float()
        images = max(1, max_elements // max(1, logits.shape[1] * labels[0].numel()))
        loss = logits.new_zeros((), dtype=torch.float32)
        correct = torch.zeros_like(loss)
        gradients = []
        for part, label in zip(logits.split(images), labels.split(images), strict=True):
            # Classes last: the softmax reads neighbours, and convolutions give it so.
            part = part.float().contiguous(memory_format=torch.channels_last)
            large = _enlarge(part, label.shape[1:], align_corners)  # (b, H, W, C)
            correct += ((large.argmax(dim=-1) == label) & (label != ignore_index)).sum()
            log_probabilities = F.log_softmax(large, dim=-1)
            del large
            counts = (label != ignore_index)[..., None]  # (b, H, W, 1)
            index = label[..., None].where(counts, 0)
            weight = counts.float() if class_weight is None else counts * class_weight[index]
            # Not by `nll_loss`: on a GPU a single block of threads would go through all pixels.
            picked = log_probabilities.gather(-1, index).where(counts, 0)  # -inf * 0 is no number
            loss -= (picked * weight).sum()
            if wants_gradient:
                large_gradient = _gradient(log_probabilities, index, weight)
                gradients.append(_shrink(large_gradient, part.shape, align_corners))
        if wants_gradient:
            ctx.save_for_backward(torch.cat(gradients))
            ctx.dtype = logits.dtype
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (gradient * loss_gradient).to(ctx.dtype), None, None, None, None, None


def _enlarge(logits: Tensor, size: torch.Size, align_corners: bool) -> Tensor:
    """Enlarges `(b, C, h, w)` and puts classes last, `(b, H, W, C)`."""
    large = F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)
    return large.permute(0, 2, 3, 1)


def _shrink(gradient: Tensor, shape: torch.Size, align_corners: bool) -> Tensor:
    """Gradient of `_enlarge`, from `(b, H, W, C)` to `shape`."""
    gradient = gradient.permute(0, 3, 1, 2)
    return torch.ops.aten.upsample_bilinear2d_backward(
        gradient, gradient.shape[2:], shape, align_corners
    )


def _gradient(log_probabilities: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the sum by the enlarged logits; overwrites `log_probabilities`."""
    gradient = log_probabilities.exp_()
    gradient.scatter_(-1, index, gradient.gather(-1, index) - 1)
    return gradient.mul_(weight)
