"""RTMDet-L with Swin-B, COCO, 100 epochs, mosaic and mix-up at 640 pixels.

Reproduces mmdet's `rtmdet_l_swin_b_4xb32-100e_coco`, see
https://github.com/open-mmlab/mmdetection/tree/v3.3.0/configs/rtmdet
    published: box AP 52.4
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/rtmdet_swin_b.py 4` (4 GPUs, 32 images each)
"""

_base_ = [
    "_base_/plugin.py",
    "mmdet::rtmdet/rtmdet_l_swin_b_4xb32-100e_coco.py",
]

default_hooks = _base_.swin_mm_hooks
train_cfg = dict(type="swin_mm.EpochBasedTrainLoop")
val_evaluator = dict(type="swin_mm.CocoMetric")
test_evaluator = dict(type="swin_mm.CocoMetric")
optim_wrapper = _base_.swin_mm_optim_wrapper
model = dict(backbone=dict(type="swin_mm.SwinTransformer"))
