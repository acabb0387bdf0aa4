"""The backbone in two processes under DistributedDataParallel, without `find_unused_parameters`."""

import itertools
import os
import tempfile

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from swin_mm.models import SwinTransformer

SMALL = dict(embed_dims=8, depths=(2, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=3)
WORLD = 2
STEPS = 2  # DDP finds in the second step what went unused in the first
GRID = list(itertools.product(range(-1, 5), (False, True)))


class Detector(nn.Module):
    """A backbone and a layer on each of its maps, as frozen backbones are used."""

    def __init__(self, **arguments) -> None:
        super().__init__()
        self.backbone = SwinTransformer(**SMALL, drop_path_rate=0.0, **arguments)
        self.heads = nn.ModuleList(nn.Conv2d(8 * 2**i, 1, 1) for i in range(4))

    def forward(self, image: Tensor) -> Tensor:
        maps = self.backbone(image)
        return sum(head(map).square().mean() for head, map in zip(self.heads, maps, strict=True))


def build(frozen_stages, with_cp):
    torch.manual_seed(0)
    return Detector(frozen_stages=frozen_stages, with_cp=with_cp).train()


def image_of(rank, step):
    return torch.randn(1, 3, 41, 70, generator=torch.Generator().manual_seed(10 * step + rank))


def run_process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=WORLD)
    gradients = {}
    for settings in GRID:
        model = DistributedDataParallel(build(*settings))
        for step in range(STEPS):
            model.zero_grad()
            model(image_of(rank, step)).backward()
        named = model.module.named_parameters()
        gradients[settings] = {name: p.grad for name, p in named if p.requires_grad}
    torch.save(gradients, os.path.join(folder, f"{rank}.pth"))
    dist.destroy_process_group()


@pytest.mark.slow
def test_gradients_are_the_mean_over_processes_whatever_is_frozen_or_recomputed():
    with tempfile.TemporaryDirectory() as folder:
        # Forks, since new processes would import everything again.
        mp.start_processes(run_process, (folder,), nprocs=WORLD, start_method="fork")
        found = [torch.load(os.path.join(folder, f"{rank}.pth")) for rank in range(WORLD)]
    for settings in GRID:
        model = build(*settings)
        losses = [model(image_of(rank, STEPS - 1)) for rank in range(WORLD)]
        torch.stack(losses).mean().backward()
        expected = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        assert (None not in expected.values()) and len(expected) >= 8, settings
        for gradients in found:
            torch.testing.assert_close(gradients[settings], expected, rtol=1e-4, atol=1e-6)
