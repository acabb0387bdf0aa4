"""Mask RepPoints V2, Swin-T, COCO, 36 epochs (3x), shorter sides of 480 to 960 pixels.

Reproduces
`mask_reppoitsv2_swin_tiny_patch4_window7_mstrain_480_960_giou_gfocal_bifpn_adamw_3x_coco` of
https://github.com/SwinTransformer/Swin-Transformer-Object-Detection
    published: box AP 50.4, mask AP 43.8, 47M parameters, 292 GFLOPs
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/mask_reppoints_v2_swin_t_3x.py 8` (8 GPUs, 2 images each)
"""

_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/reppoints_v2_swin.py",
    "mmdet::_base_/datasets/coco_instance.py",
    "_base_/schedules/adamw_3x.py",
]

model = dict(
    data_preprocessor=dict(pad_mask=True),
    bbox_head=dict(type="swin_mm.MaskRepPointsV2Head"),
)
train_pipeline = [
    dict(type="LoadImageFromFile", backend_args=None),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomResize", scale=[(1333, 480), (1333, 960)], keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="swin_mm.PackDetInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(type="swin_mm.CocoMetric")
test_evaluator = dict(type="swin_mm.CocoMetric")
