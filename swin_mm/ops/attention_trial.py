"""The trial of window attention's kernels, see `swin_mm.ops.trial`."""

from functools import partial

import torch

from swin_mm.ops import reference, trial
from swin_mm.ops.trial import Subject

HEADS = 2
# Of all maps together: programs go through several windows each, also on the largest GPUs.
TOKENS = 12_000


def subject_of(
    device: torch.device, dtype: torch.dtype, window_size: tuple[int, int], head_dim: int
) -> Subject:
    """What is tried for query, key and value of a dtype, by window in tokens and head width.

    V1 and V2 differ in the factor on queries alone, and share their kernels.
    """
    details = (dtype, "window {}x{}".format(*window_size), f"heads of {head_dim}")
    if dtype == torch.float32:
        details += (f"products in {_product_precision()}",)
    return Subject("window attention", "SDPA", device, details)


@torch.compiler.assume_constant_result  # compilers cannot ask, and compile anew where it changes
def _product_precision() -> str:
    """How PyTorch multiplies float32 matrices on a GPU."""
    return torch.backends.cuda.matmul.fp32_precision


def refusal(
    device: torch.device, dtype: torch.dtype, window_size: tuple[int, int], head_dim: int
) -> str | None:
    """Tells why the kernels are not taken, by a trial at the first call; `None` where they are."""
    subject = subject_of(device, dtype, window_size, head_dim)
    return trial.refusal(subject, partial(_attempt, device, dtype, tuple(window_size), head_dim))


def _attempt(
    device: torch.device, dtype: torch.dtype, window_size: tuple[int, int], head_dim: int
) -> str | None:
    """Shifted windows of maps that they do not divide, with the scores of V1, then of V2."""
    from swin_mm.ops.triton.window_attention import window_attention  # imports Triton

    win_h, win_w = window_size
    height, width = 2 * win_h - 1, win_w + win_w // 2 + 1
    channels, tokens = HEADS * head_dim, win_h * win_w
    random = torch.Generator().manual_seed(0)
    shapes = {
        "query, key and value": (max(2, TOKENS // (height * width)), height, width, 3 * channels),
        "position bias": (HEADS, tokens, tokens),
        "padding": (3 * channels,),
    }
    tensors = {
        name: trial.draw(shape, random, dtype).to(device).requires_grad_()
        for name, shape in shapes.items()
    }
    # The second is larger than V2's 100, for queries of length 1.
    for scale in (head_dim**-0.5, 8.0):
        settings = dict(
            num_heads=HEADS,
            window_size=window_size,
            shift_size=(win_h // 2, win_w // 2),
            scale=scale,
        )

        def run(attend, tensors, settings=settings):
            return [attend(*tensors.values(), **settings)]

        readable = partial(run, reference.window_attention)
        reason = trial.compare(tensors, partial(run, window_attention), readable)
        if reason is not None:
            return reason
    return None
