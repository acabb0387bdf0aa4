"""Mask R-CNN, Swin-T, COCO, 12 epochs (1x), multi-scale with crops.

Reproduces `mask_rcnn_swin_tiny_patch4_window7_mstrain_480-800_adamw_1x_coco` of
https://github.com/SwinTransformer/Swin-Transformer-Object-Detection
    published: box AP 43.7, mask AP 39.8, 48M parameters, 267 GFLOPs
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/mask_rcnn_swin_t.py 8` (8 GPUs, 2 images each)

mmdet's port, `mask-rcnn_swin-t-p4-w7_fpn_1x_coco`, differs from the official recipe: one scale
(800 pixels) and no crops, drop path 0.2 for 0.1, 1000 warm-up steps for 500, float32.
"""

_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/mask_rcnn_swin.py",
    "_base_/datasets/coco_instance_ms_crop.py",
    "_base_/schedules/adamw_1x.py",
]
