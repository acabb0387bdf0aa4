"""DINO with five scales, Swin-L, COCO, 36 epochs (3x), multi-scale with crops.

Reproduces mmdet's `dino-5scale_swin-l_8xb2-36e_coco`, see
https://github.com/open-mmlab/mmdetection/tree/v3.3.0/configs/dino
    published: box AP 58.4
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/dino_swin_l_3x.py 8` (8 GPUs, 2 images each)
"""

_base_ = [
    "_base_/plugin.py",
    "mmdet::dino/dino-5scale_swin-l_8xb2-36e_coco.py",
]

default_hooks = _base_.swin_mm_hooks
train_cfg = dict(type="swin_mm.EpochBasedTrainLoop")
val_evaluator = dict(type="swin_mm.CocoMetric")
test_evaluator = dict(type="swin_mm.CocoMetric")
optim_wrapper = _base_.swin_mm_optim_wrapper
model = dict(backbone=dict(type="swin_mm.SwinTransformer"))
