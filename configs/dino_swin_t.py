"""DINO with four scales, Swin-T, COCO, 12 epochs (1x), multi-scale with crops.

mmdet's `dino-4scale_r50_8xb2-12e_coco` with this backbone, as `dino_swin_tiny_224_4scale_12ep` of
https://github.com/IDEA-Research/detrex/tree/main/projects/dino
which differs in the position encoding: temperature 10000, offset -0.5.
    published: box AP 51.3 (detrex)
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/dino_swin_t.py 8` (8 GPUs, 2 images each)
"""

_base_ = [
    "_base_/plugin.py",
    "mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py",
]

default_hooks = _base_.swin_mm_hooks
train_cfg = dict(type="swin_mm.EpochBasedTrainLoop")
val_evaluator = dict(type="swin_mm.CocoMetric")
test_evaluator = dict(type="swin_mm.CocoMetric")
optim_wrapper = _base_.swin_mm_optim_wrapper
model = dict(
    backbone=dict(
        _delete_=True,
        type="swin_mm.SwinTransformer",
        arch="tiny",
        drop_path_rate=0.1,
        out_indices=(1, 2, 3),
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_tiny_patch4_window7_224.pth",
        ),
    ),
    neck=dict(in_channels=[192, 384, 768]),
)
