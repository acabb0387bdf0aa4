"""A workload that takes milliseconds."""

import torch

from swin_mm.benchmark.workload import Workload
from swin_mm.models.backbones.arguments import Arch


def small_workload(**changes) -> Workload:
    """A narrow backbone, whose windows of 4 divide every map of 128x256 pixels."""
    values = dict(
        part="backbone",
        version=1,
        arch=Arch(16, (1, 2, 1, 1), (1, 2, 4, 8)),
        window=4,
        sizes=((128, 256),),
        batch=2,
        mode="inference",
        dtype="fp32",
        device=torch.device("cpu"),
    )
    return Workload(**{**values, **changes})
