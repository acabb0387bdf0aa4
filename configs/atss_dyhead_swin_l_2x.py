"""ATSS with DyHead, Swin-L, COCO, 24 epochs (2x), shorter sides of 480 to 1200 pixels.

Reproduces mmdet's `atss_swin-l-p4-w12_fpn_dyhead_ms-2x_coco`, see
https://github.com/open-mmlab/mmdetection/tree/v3.3.0/configs/dyhead
    published: box AP 56.2
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/atss_dyhead_swin_l_2x.py 8` (8 GPUs, 2 images each)
"""

_base_ = [
    "_base_/plugin.py",
    "mmdet::dyhead/atss_swin-l-p4-w12_fpn_dyhead_ms-2x_coco.py",
]

default_hooks = _base_.swin_mm_hooks
train_cfg = dict(type="swin_mm.EpochBasedTrainLoop")
val_evaluator = dict(type="swin_mm.CocoMetric")
test_evaluator = dict(type="swin_mm.CocoMetric")
optim_wrapper = _base_.swin_mm_optim_wrapper
model = dict(
    backbone=dict(type="swin_mm.SwinTransformer"),
    neck=[dict(_base_.model.neck[0], type="swin_mm.FPN"), _base_.model.neck[1]],
)
