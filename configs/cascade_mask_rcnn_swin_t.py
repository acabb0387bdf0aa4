"""Cascade Mask R-CNN, Swin-T, COCO, 12 epochs (1x), multi-scale with crops.

Reproduces `cascade_mask_rcnn_swin_tiny_patch4_window7_mstrain_480-800_giou_4conv1f_adamw_1x_coco`
of https://github.com/SwinTransformer/Swin-Transformer-Object-Detection
    published: box AP 48.1, mask AP 41.7, 86M parameters, 745 GFLOPs
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/cascade_mask_rcnn_swin_t.py 8` (8 GPUs, 2 images each)
"""

_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/cascade_mask_rcnn_swin.py",
    "_base_/datasets/coco_instance_ms_crop.py",
    "_base_/schedules/adamw_1x.py",
]

model = dict(backbone=dict(drop_path_rate=0.0))
