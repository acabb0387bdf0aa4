"""Hybrid Task Cascade, Swin-B, COCO, 72 epochs (6x), shorter sides of 400 to 1400 pixels.

After HTC++ of the paper on Swin, https://arxiv.org/abs/2103.14030
which has box AP 56.4 and mask AP 49.1, but whose config file was not published: here without
InstaBoost, and without attention over the whole of the last map. Scales, soft NMS and drop path as
in `htc_cbv2_swin_base_patch4_window7_mstrain_400-1400_adamw_20e_coco` of
https://github.com/VDIGPKU/CBNetV2/tree/main/configs/cbnet
    published: none
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/htc_swin_b_6x.py 8` (8 GPUs, 2 images each)
"""

_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/htc_swin.py",
    "_base_/datasets/coco_instance_semantic_ms.py",
    "_base_/schedules/adamw_6x.py",
]
