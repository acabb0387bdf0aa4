"""Detectors with the batched heads in two processes, without `find_unused_parameters`."""

import os
import tempfile
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import MODELS
from recipe_tools import cut, detection_data, load, narrow, narrow_heads
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from swin_mm.heads.ops import roi_align

WORLD = 2
STEPS = 3  # DDP finds in the second step what went unused in the first
NAMES = ("mask_rcnn_swin_t",)
PARTS = ("rpn_head", "roi_head")
PATIENCE = timedelta(minutes=2)  # a gradient that one process lacks has the other wait for it


class Losses(nn.Module):
    """The sum of a detector's losses, as mmengine's own wrapper takes it."""

    def __init__(self, name, with_stock_heads):
        super().__init__()
        torch.manual_seed(0)
        cfg = load(name).model
        cut(cfg)
        narrow(cfg)
        for part in ("neck", *PARTS):
            narrow_heads(cfg[part])
        cfg.backbone.drop_path_rate = 0.0
        for part in PARTS if with_stock_heads else ():
            cfg[part].type = cfg[part].type.replace("swin_mm.", "mmdet.")
        self.detector = revert_sync_batchnorm(MODELS.build(cfg))
        self.detector.init_weights()
        self.train()

    def forward(self, rank, step):
        torch.manual_seed(10 * step + rank)
        data = detection_data()
        if rank == 1:  # without objects in one image, in the other, in both
            for sample in data["data_samples"][slice(*[(0, 1), (1, 2), (0, 2)][step])]:
                sample.gt_instances = sample.gt_instances[:0]
        data = self.detector.data_preprocessor(data, training=True)
        return self.detector.parse_losses(self.detector(**data, mode="loss"))[0]


def run_process(rank, folder):
    torch.set_num_threads(1)
    roi_align.why_not_sparse = lambda maps, rois: "as on a GPU"
    dist.init_process_group(
        "gloo", f"file://{folder}/store", rank=rank, world_size=WORLD, timeout=PATIENCE
    )
    gradients = {}
    for name in NAMES:
        for with_stock_heads in (False, True):
            model = DistributedDataParallel(Losses(name, with_stock_heads))
            for step in range(STEPS):
                model.zero_grad()
                model(rank, step).backward()
                named = model.module.named_parameters()
                found = {key: p.grad.clone() for key, p in named if p.grad is not None}
                gradients[name, with_stock_heads, step] = found
    torch.save(gradients, os.path.join(folder, f"{rank}.pth"))
    dist.destroy_process_group()


@pytest.mark.slow
def test_gradients_are_the_mean_over_processes_and_mmdets(monkeypatch):
    with tempfile.TemporaryDirectory() as folder:
        # Forks, since new processes would import everything again.
        mp.start_processes(run_process, (folder,), nprocs=WORLD, start_method="fork")
        found = [torch.load(os.path.join(folder, f"{rank}.pth")) for rank in range(WORLD)]
    monkeypatch.setattr(roi_align, "why_not_sparse", lambda maps, rois: "as on a GPU")
    for name in NAMES:
        model = Losses(name, with_stock_heads=False)
        for step in range(STEPS):
            model.zero_grad()
            for rank in range(WORLD):
                (model(rank, step) / WORLD).backward()
            expected = {key: p.grad for key, p in model.named_parameters()}
            assert None not in expected.values()
            for gradients in found:
                for with_stock_heads in (False, True):
                    assert_close(gradients[name, with_stock_heads, step], expected)


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        atol = 1e-5 * value.abs().max().item() + 1e-9
        torch.testing.assert_close(
            found[key], value, rtol=1e-4, atol=atol, msg=lambda m, k=key: f"{k}: {m}"
        )
