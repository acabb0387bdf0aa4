"""Region proposal heads of mmdet and ours with the same weights, and batches for them."""

import copy

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData

STRIDES = [4, 8, 16, 32]
PADDED = (96, 160)  # height and width of a batch


def rpn_cfg(rpn=None, proposal=None, **changes):
    """A narrow head; the settings of training of an RPN, of proposals, and of the head itself."""
    head = dict(
        type="RPNHead",
        in_channels=8,
        feat_channels=8,
        anchor_generator=dict(
            type="AnchorGenerator", scales=[3], ratios=[0.5, 1.0, 2.0], strides=STRIDES
        ),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder"),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=1.0),
    )
    training = dict(
        assigner=dict(type="MaxIoUAssigner", pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3),
        sampler=dict(type="RandomSampler", num=64, pos_fraction=0.5, add_gt_as_proposals=False),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    )
    test = dict(
        nms_pre=120, max_per_img=60, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0
    )
    return ConfigDict(
        **head | changes, train_cfg=training | (rpn or {}), test_cfg=test | (proposal or {})
    )


def build_pair(cfg):
    """mmdet's head and ours, sure of themselves, so that there are proposals of all scores."""
    init_default_scope("mmdet")
    theirs = MODELS.build(copy.deepcopy(cfg))
    ours = MODELS.build(copy.deepcopy(cfg) | dict(type="swin_mm.RPNHead"))
    for parameter in theirs.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def make_maps(num_images=4):
    height, width = PADDED
    return [
        torch.randn(num_images, 8, height // stride, width // stride, requires_grad=True)
        for stride in STRIDES
    ]


def make_metas(num_images=4):
    """Images of several sizes, each padded to a multiple of 32 by itself."""
    sizes = [(96, 160), (70, 130), (90, 60), (33, 155)][:num_images]
    return [
        dict(
            img_shape=size,
            pad_shape=tuple(-(-side // 32) * 32 for side in size),
            scale_factor=(1.5, 1.25),
        )
        for size in sizes
    ]


def make_gts(counts=(5, 0, 1, 30)):
    gts = []
    for count in counts:
        corner = torch.rand(count, 2) * 60
        boxes = torch.cat((corner, corner + 6 + torch.rand(count, 2) * 40), dim=1)
        gts.append(InstanceData(bboxes=boxes, labels=torch.zeros(count, dtype=torch.long)))
    return gts
