"""Mask R-CNN, Swin-T, COCO, 36 epochs (3x), multi-scale with crops.

Reproduces `mask_rcnn_swin_tiny_patch4_window7_mstrain_480-800_adamw_3x_coco` of
https://github.com/SwinTransformer/Swin-Transformer-Object-Detection
    published: box AP 46.0, mask AP 41.6, 48M parameters, 267 GFLOPs
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/mask_rcnn_swin_t_3x.py 8` (8 GPUs, 2 images each)
"""

_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/mask_rcnn_swin.py",
    "_base_/datasets/coco_instance_ms_crop.py",
    "_base_/schedules/adamw_3x.py",
]

model = dict(backbone=dict(drop_path_rate=0.2))
