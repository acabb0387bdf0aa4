"""Models of mmdet and mmseg import, and those that reach mmcv's operators run on the stand-ins."""

import importlib
import pkgutil

import pytest
import torch
from mmdet.registry import MODELS as DETECTION
from mmseg.registry import MODELS as SEGMENTATION


@pytest.mark.parametrize("package", ["mmdet.models", "mmseg.models"])
def test_every_module_imports(package):
    folders = importlib.import_module(package).__path__
    names = [module.name for module in pkgutil.walk_packages(folders, f"{package}.")]
    assert len(names) > 100
    for name in names:
        importlib.import_module(name)


def maps(channels, *sides):
    """Feature maps, one for each side."""
    torch.manual_seed(0)
    return [torch.randn(2, channels, side, side) for side in sides]


def steps(module, *inputs):
    """Runs a module forward and backward; asserts finite outputs and gradients."""
    outputs = module(*inputs)
    tensors = []

    def collect(value):
        if isinstance(value, torch.Tensor):
            tensors.append(value)
        elif isinstance(value, (list, tuple)):
            for item in value:
                collect(item)

    collect(outputs)
    assert tensors and all(t.isfinite().all() for t in tensors)
    sum(t.square().mean() for t in tensors if t.requires_grad).backward()
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    assert grads and all(grad.isfinite().all() for grad in grads)
    return outputs


@pytest.mark.parametrize(
    "neck",
    [
        dict(type="NASFPN", stack_times=2, num_outs=5),
        dict(type="NASFCOS_FPN", num_outs=5, start_level=0),
    ],
    ids=["nas_fpn", "nasfcos_fpn"],
)
def test_necks_of_merge_cells(neck):
    module = DETECTION.build(dict(neck, in_channels=[8, 8, 8, 8], out_channels=16))
    steps(module, maps(8, 32, 16, 8, 4))


def test_corner_head():
    module = DETECTION.build(dict(type="CornerHead", num_classes=3, in_channels=8))
    steps(module, maps(8, 8, 8))


@pytest.mark.parametrize("training", [True, False], ids=["train", "predict"])
def test_guided_anchor_head(training):
    """In prediction its convolutions are masked."""
    module = DETECTION.build(dict(type="GARPNHead", in_channels=8, feat_channels=8)).train(training)
    with torch.set_grad_enabled(training):
        outputs = module([m[:1] for m in maps(8, 16, 8)])
    assert all(t.isfinite().all() for level in outputs for t in level)


@pytest.mark.parametrize("kind", ["collect", "distribute", "bi-direction"])
@pytest.mark.parametrize("compact", [True, False], ids=["compact", "wide"])
def test_psa_head(kind, compact):
    module = SEGMENTATION.build(
        dict(
            type="PSAHead",
            in_channels=8,
            channels=8,
            num_classes=3,
            mask_size=(8, 8) if compact else (7, 7),
            psa_type=kind,
            compact=compact,
            shrink_factor=1,
            norm_cfg=dict(type="BN"),
        )
    )
    assert steps(module, maps(8, 8)).shape == (2, 3, 8, 8)


def test_criss_cross_head():
    module = SEGMENTATION.build(
        dict(type="CCHead", in_channels=8, channels=8, num_classes=3, norm_cfg=dict(type="BN"))
    )
    assert steps(module, maps(8, 8)).shape == (2, 3, 8, 8)
