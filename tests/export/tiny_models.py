"""Small detectors and segmentors with random weights that find something."""

import re
from pathlib import Path

import onnx
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from torch import nn

# Two stages, as small as exporting is quick.
BACKBONES = {
    "v1": dict(type="swin_mm.SwinTransformer", window_size=4),
    "v2": dict(type="swin_mm.SwinTransformerV2", window_size=4),
    "context": dict(
        type="swin_mm.SwinTransformer", window_size=4, context_scales=("window", 2, "global")
    ),
}
SIZES = dict(embed_dims=8, num_heads=(1, 2), strides=(4, 2), out_indices=(0, 1))
WIDTHS = [8, 16]
PREPROCESSOR = dict(
    type="swin_mm.DetDataPreprocessor",
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_size_divisor=32,
)
NECK = dict(type="swin_mm.FPN", in_channels=WIDTHS, out_channels=8, num_outs=3)
STRIDES = [4, 8, 16]
CODER = dict(type="DeltaXYWHBBoxCoder")
NMS = dict(type="nms", iou_threshold=0.5)
# As a config's test data: images are read in BGR, and are not resized.
DATASET = dict(type="CocoDataset", pipeline=[dict(type="LoadImageFromFile")])


def build(cfg: dict, scope: str = "mmdet", seed: int = 0) -> nn.Module:
    """A model in test mode, with weights large enough for scores to differ."""
    init_default_scope(scope)
    torch.manual_seed(seed)
    model = MODELS.build(ConfigDict(cfg))
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "logit_scale" not in name:
            fan_in = parameter[0].numel()
            nn.init.normal_(parameter, std=fan_in**-0.5)
        elif name.endswith("weight"):  # norms; those of V2's blocks start at zero
            nn.init.normal_(parameter, mean=1.0, std=0.1)
    return model.eval()


def backbone(kind: str, depths: tuple[int, int] = (1, 1)) -> dict:
    """Every second block of a stage has shifted windows."""
    return dict(BACKBONES[kind], **SIZES, depths=depths)


def rpn_head() -> dict:
    return dict(
        type="swin_mm.RPNHead",
        in_channels=8,
        feat_channels=8,
        anchor_generator=dict(
            type="AnchorGenerator", scales=[4], ratios=[0.5, 1.0], strides=STRIDES
        ),
        bbox_coder=CODER,
    )


def box_head(class_agnostic: bool = False, **settings) -> dict:
    return dict(
        type="Shared2FCBBoxHead",
        in_channels=8,
        fc_out_channels=16,
        roi_feat_size=7,
        num_classes=3,
        reg_class_agnostic=class_agnostic,
        bbox_coder=dict(CODER, target_stds=[0.1, 0.1, 0.2, 0.2]),
        **settings,
    )


def extractor(side: int, strides=STRIDES) -> dict:
    return dict(
        type="SingleRoIExtractor",
        roi_layer=dict(type="RoIAlign", output_size=side, sampling_ratio=0),
        out_channels=8,
        featmap_strides=strides,
        finest_scale=16,
    )


def two_stage(masks: bool = True, stages: int = 1, **rcnn) -> dict:
    """Faster R-CNN, Mask R-CNN, or their cascade with more stages than one."""
    mask_head = dict(
        type="FCNMaskHead", num_convs=1, in_channels=8, conv_out_channels=8, num_classes=3
    )
    parts = dict(
        bbox_roi_extractor=extractor(7),
        bbox_head=box_head(),
        mask_roi_extractor=extractor(14) if masks else None,
        mask_head=mask_head if masks else None,
    )
    if stages > 1:
        parts["bbox_head"] = [box_head(True) for _ in range(stages)]
        parts.update(type="swin_mm.CascadeRoIHead", num_stages=stages)
        parts.update(stage_loss_weights=[1] * stages)
    else:
        parts.update(type="swin_mm.StandardRoIHead")
    parts = {name: part for name, part in parts.items() if part is not None}
    test_cfg = dict(
        rpn=dict(nms_pre=60, max_per_img=40, nms=dict(type="nms", iou_threshold=0.7)),
        rcnn=dict(score_thr=0.05, nms=NMS, max_per_img=20, mask_thr_binary=0.5, **rcnn),
    )
    test_cfg["rpn"]["min_bbox_size"] = 0
    return dict(
        type="CascadeRCNN" if stages > 1 else "MaskRCNN" if masks else "FasterRCNN",
        data_preprocessor=PREPROCESSOR,
        backbone=backbone("v1"),
        neck=NECK,
        rpn_head=rpn_head(),
        roi_head=parts,
        train_cfg=None,
        test_cfg=test_cfg,
    )


def dense(head: str, kind: str = "v1", depths: tuple[int, int] = (1, 1)) -> dict:
    """RetinaNet or ATSS."""
    settings = dict(octave_base_scale=4, scales_per_octave=1, strides=STRIDES)
    ratios = [0.5, 1.0] if head == "RetinaHead" else [1.0]
    return dict(
        type="RetinaNet" if head == "RetinaHead" else "ATSS",
        data_preprocessor=PREPROCESSOR,
        backbone=backbone(kind, depths),
        neck=NECK,
        bbox_head=dict(
            type=head,
            num_classes=3,
            in_channels=8,
            feat_channels=8,
            stacked_convs=1,
            anchor_generator=dict(type="AnchorGenerator", ratios=ratios, **settings),
            bbox_coder=dict(CODER, target_stds=[0.1, 0.1, 0.2, 0.2]),
            **({} if head == "RetinaHead" else dict(norm_cfg=None)),
        ),
        test_cfg=dict(nms_pre=50, min_bbox_size=0, score_thr=0.3, nms=NMS, max_per_img=20),
    )


def upernet(num_classes: int = 5, **test_cfg) -> dict:
    return dict(
        type="swin_mm.EncoderDecoder",
        data_preprocessor=dict(
            type="swin_mm.SegDataPreProcessor",
            mean=PREPROCESSOR["mean"],
            std=PREPROCESSOR["std"],
            bgr_to_rgb=True,
        ),
        backbone=backbone("v1"),
        decode_head=dict(
            type="swin_mm.UPerHead",
            in_channels=WIDTHS,
            in_index=[0, 1],
            pool_scales=(1, 2, 3),
            channels=8,
            num_classes=num_classes,
            norm_cfg=dict(type="BN"),
            align_corners=False,
        ),
        test_cfg={"mode": "whole", **test_cfg},
    )


def allowed_operators() -> set[str]:
    """Those that docs/export.md lists."""
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    return set(
        re.sub("[>\n]", " ", page.partition("and segmentors:")[2].partition("\n\n## ")[0]).split()
    )


def used_operators(file: Path) -> set[str]:
    """Those of a file, with their domain unless it is ONNX's own; functions count as one."""
    model = onnx.load(file)
    names = {f"{node.domain}::{node.op_type}".removeprefix("::") for node in model.graph.node}
    return names | {function.name for function in model.functions}
