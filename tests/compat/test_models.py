"""Models of mmdet and mmseg import, and those that reach mmcv's operators run on the stand-ins."""

import importlib
import pkgutil

import pytest
import torch
from mmdet.models.layers import multiclass_nms
from mmdet.registry import MODELS as DETECTION
from mmengine.config import ConfigDict
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


@pytest.mark.parametrize("kind", ["DCN", "DCNv2"])
def test_resnet_with_deformable_convolutions(kind):
    dcn = dict(type=kind, deform_groups=1, fallback_on_stride=False)
    resnet = dict(type="ResNet", depth=50, base_channels=4, norm_cfg=dict(type="BN"))
    module = DETECTION.build(dict(resnet, dcn=dcn, stage_with_dcn=(False, True, True, True)))
    outputs = steps(module, torch.randn(2, 3, 64, 64))
    assert [o.shape[1] for o in outputs] == [16, 32, 64, 128]
    assert [o.shape[2] for o in outputs] == [16, 8, 4, 2]


def test_detectors_resnet_with_switchable_atrous_convolutions():
    module = DETECTION.build(
        dict(
            type="DetectoRS_ResNet",
            depth=50,
            base_channels=8,
            conv_cfg=dict(type="ConvAWS"),
            sac=dict(type="SAC", use_deform=True),
            stage_with_sac=(False, False, False, True),
        )
    )
    steps(module, torch.randn(2, 3, 128, 128))


def test_fpn_carafe_runs():
    module = DETECTION.build(
        dict(type="FPN_CARAFE", in_channels=[8, 8, 8], out_channels=16, num_outs=4)
    )
    module.init_weights()
    outputs = steps(module, maps(8, 16, 8, 4))
    assert [o.shape[-1] for o in outputs] == [16, 8, 4, 2]


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


def test_reppoints_head():
    module = DETECTION.build(
        dict(
            type="RepPointsHead",
            num_classes=3,
            in_channels=8,
            feat_channels=8,
            point_feat_channels=8,
            stacked_convs=1,
        )
    )
    module.train()
    steps(module, maps(8, 16, 8, 4))


@pytest.mark.parametrize("training", [True, False], ids=["train", "predict"])
def test_guided_anchor_head(training):
    """In prediction its convolutions are masked."""
    module = DETECTION.build(dict(type="GARPNHead", in_channels=8, feat_channels=8)).train(training)
    with torch.set_grad_enabled(training):
        outputs = module([m[:1] for m in maps(8, 16, 8)])
    assert all(t.isfinite().all() for level in outputs for t in level)


@pytest.mark.parametrize("layer", ["DeformRoIPoolPack", "ModulatedDeformRoIPoolPack"])
def test_deformable_roi_pooling(layer):
    layer = dict(type=layer, output_size=3, output_channels=8, deform_fc_channels=16)
    module = DETECTION.build(
        dict(
            type="SingleRoIExtractor",
            roi_layer=layer,
            out_channels=8,
            featmap_strides=[4, 8],
        )
    )
    rois = torch.tensor([[0, 1.0, 2, 30, 40], [1, 5, 5, 200, 240]])
    output = steps(module, maps(8, 64, 32), rois)
    assert output.shape == (2, 8, 3, 3)


def test_soft_nms_in_multiclass_nms():
    torch.manual_seed(0)
    corners = torch.rand(30, 2) * 20
    boxes = torch.cat((corners, corners + 10), dim=1)
    dets, labels = multiclass_nms(
        boxes, torch.rand(30, 4), 0.1, ConfigDict(type="soft_nms", iou_threshold=0.5), max_num=20
    )
    assert dets.shape == (20, 5) and labels.max() <= 2
    assert (dets[:-1, 4] >= dets[1:, 4]).all()


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


def test_point_head():
    module = SEGMENTATION.build(
        dict(
            type="PointHead",
            in_channels=[8],
            in_index=[0],
            channels=8,
            num_classes=3,
            num_fcs=1,
            dropout_ratio=0,
        )
    )
    settings = ConfigDict(subdivision_steps=2, subdivision_num_points=16, scale_factor=2)
    coarse = maps(3, 8)[0]
    with torch.no_grad():
        output = module.predict(maps(8, 16), coarse, [dict(img_shape=(32, 32))] * 2, settings)
    assert output.shape == (2, 3, 32, 32)
