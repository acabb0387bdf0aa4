"""Shipped recipes of other heads, with widths and depths at which exporting takes seconds."""

import torch
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from tiny_models import build
from torch import nn

from swin_mm.cli.config import load_config

WIDTHS = [8, 16, 32, 64]
BACKBONE = dict(arch=None, embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), init_cfg=None)


def load(recipe: str) -> ConfigDict:
    model = load_config(recipe).model
    model.backbone.update(BACKBONE)
    return model


def dino() -> nn.Module:
    cfg = load("dino_swin_t")
    cfg.neck.update(in_channels=WIDTHS[1:], norm_cfg=dict(type="GN", num_groups=8))
    cfg.num_queries = 15
    cfg.encoder.num_layers, cfg.decoder.num_layers = 1, 2
    for part in (cfg.encoder, cfg.decoder):
        part.layer_cfg.ffn_cfg.feedforward_channels = 32
    cfg.bbox_head.num_classes = 3
    cfg.test_cfg.max_per_img = 20
    return build(cfg)


def rtmdet() -> nn.Module:
    cfg = load("rtmdet_swin_b")
    cfg.neck.norm_cfg = dict(type="BN")
    cfg.neck.update(in_channels=WIDTHS[1:], out_channels=32, num_csp_blocks=1)
    cfg.bbox_head.update(num_classes=3, in_channels=32, feat_channels=32)
    cfg.test_cfg.update(nms_pre=100, max_per_img=20, score_thr=0.3)
    return build(cfg)


def sparse_rcnn() -> nn.Module:
    cfg = load("sparse_rcnn_swin_t_3x")
    cfg.neck.update(in_channels=WIDTHS, out_channels=32)
    cfg.rpn_head.update(num_proposals=12, proposal_feature_channel=32)
    roi_head = cfg.roi_head
    roi_head.update(num_stages=2, stage_loss_weights=[1, 1], proposal_feature_channel=32)
    roi_head.bbox_roi_extractor.out_channels = 32
    roi_head.bbox_head = roi_head.bbox_head[:2]
    for head in roi_head.bbox_head:
        head.update(num_classes=3, feedforward_channels=32, in_channels=32)
        head.dynamic_conv_cfg.update(in_channels=32, feat_channels=8, out_channels=32)
    cfg.test_cfg.rcnn.max_per_img = 15
    model = build(cfg)
    places = torch.rand(12, 4, generator=torch.Generator().manual_seed(0))
    places = places * torch.tensor([0.6, 0.6, 0.3, 0.3]) + 0.2  # boxes inside the image
    model.rpn_head.init_proposal_bboxes.weight.data.copy_(places)
    return model


def htc() -> nn.Module:
    cfg = load("htc_swin_b_6x")
    # Two stages and maps, since each operator takes time.
    cfg.backbone.update(depths=(1, 1), num_heads=(1, 1), strides=(4, 2), out_indices=(0, 1))
    cfg.neck.update(in_channels=WIDTHS[:2], out_channels=16, num_outs=3)
    cfg.rpn_head.update(in_channels=16, feat_channels=16)
    cfg.rpn_head.anchor_generator.strides = [4, 8, 16]
    roi_head, narrow = cfg.roi_head, dict(in_channels=16, conv_out_channels=16)
    roi_head.update(num_stages=2, stage_loss_weights=[1, 1])
    for kind in ("bbox", "mask"):
        roi_head[f"{kind}_head"] = roi_head[f"{kind}_head"][:2]
    for kind in ("bbox", "mask", "semantic"):
        roi_head[f"{kind}_roi_extractor"].out_channels = 16
    for kind in ("bbox", "mask"):
        roi_head[f"{kind}_roi_extractor"].featmap_strides = [4, 8]
    for head in roi_head.bbox_head:
        head.update(fc_out_channels=16, num_classes=3, **narrow)
    for head in roi_head.mask_head:
        head.update(num_classes=3, num_convs=1, **narrow)
    roi_head.semantic_head.update(num_ins=3, num_convs=1, num_classes=7, **narrow)
    cfg.test_cfg.rpn.update(nms_pre=60, max_per_img=40)
    nms = dict(type="nms", iou_threshold=0.5)  # soft NMS has no operator
    cfg.test_cfg.rcnn.update(max_per_img=20, score_thr=0.05, nms=nms)
    return build(cfg)


def k_net() -> nn.Module:
    cfg = load("knet_swin_t")
    head = cfg.decode_head
    generate = dict(in_channels=WIDTHS, channels=16, num_classes=4, norm_cfg=dict(type="BN"))
    head.kernel_generate_head.update(generate)
    head.num_stages, head.kernel_update_head = 1, head.kernel_update_head[:1]
    narrow = dict(in_channels=16, out_channels=16)
    update = head.kernel_update_head[0]
    update.update(num_classes=4, num_heads=2, feedforward_channels=16, **narrow)
    update.kernel_updator_cfg.update(feat_channels=16, **narrow)
    cfg.auxiliary_head = None
    return build(cfg, "mmseg")


def mask2former_objects() -> nn.Module:
    cfg = load("mask2former_swin_t")
    _shrink_queries(cfg.panoptic_head)
    cfg.panoptic_head.update(num_things_classes=5, num_stuff_classes=0)
    cfg.panoptic_fusion_head.update(num_things_classes=5, num_stuff_classes=0)
    cfg.test_cfg.max_per_image = 12
    cfg.data_preprocessor.batch_augments = None
    return build(cfg)


def mask2former_panoptic() -> nn.Module:
    cfg = load("mask2former_swin_t_panoptic")
    _shrink_queries(cfg.panoptic_head)
    return _build_panoptic(cfg)


def maskformer() -> nn.Module:
    cfg = get_config("mmdet::maskformer/maskformer_swin-l-p4-w12_64xb1-ms-300e_coco.py").model
    cfg.backbone = ConfigDict(type="swin_mm.SwinTransformer", **BACKBONE)
    _shrink_queries(cfg.panoptic_head)
    return _build_panoptic(cfg)


def _build_panoptic(cfg: ConfigDict) -> nn.Module:
    for part in (cfg.panoptic_head, cfg.panoptic_fusion_head):
        part.update(num_things_classes=4, num_stuff_classes=1)
    cfg.test_cfg.update(object_mask_thr=0.3, iou_thr=0.0, max_per_image=12)
    cfg.data_preprocessor.batch_augments = None
    model = build(cfg)
    for name, weight in model.panoptic_head.named_parameters():
        if name.startswith("query"):  # so that masks differ
            weight.data *= 30
    return model


def mask2former_label_maps() -> nn.Module:
    cfg = load("mask2former_swin_t_ade20k")
    _shrink_queries(cfg.decode_head)
    cfg.decode_head.num_classes = 5
    return build(cfg, "mmseg")


def _shrink_queries(head: ConfigDict) -> None:
    head.update(in_channels=WIDTHS, feat_channels=32, out_channels=32, num_queries=10)
    head.loss_cls.class_weight = [1.0] * 5 + [0.1]
    pixels, decoder = head.pixel_decoder, head.transformer_decoder
    pixels.norm_cfg.num_groups, decoder.num_layers = 8, 3
    parts, layers = [head], [decoder.layer_cfg]
    if "encoder" in pixels:  # MaskFormer's has none with a Swin
        pixels.encoder.num_layers = 1
        parts.append(pixels)
        layers.append(pixels.encoder.layer_cfg)
    for part in parts:
        part.positional_encoding.num_feats = 16
    for layer in layers:
        for name in ("self_attn_cfg", "cross_attn_cfg", "ffn_cfg"):
            if name in layer:
                layer[name].embed_dims = 32
        layer.ffn_cfg.feedforward_channels = 32
