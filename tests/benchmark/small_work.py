"""A piece of work that takes milliseconds."""

import torch

from swin_mm.benchmark.work import Work


def small_work(**changes) -> Work:
    """A narrow backbone, whose windows of 4 divide every map of 128x256 pixels."""
    values = dict(
        part="backbone",
        version=1,
        embed_dims=16,
        depths=(1, 2, 1, 1),
        num_heads=(1, 2, 4, 8),
        window=4,
        sizes=((128, 256),),
        batch=2,
        mode="inference",
        dtype="fp32",
        device=torch.device("cpu"),
    )
    return Work(**{**values, **changes})
