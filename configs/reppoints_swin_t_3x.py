"""RepPoints, Swin-T, COCO, 36 epochs (3x), multi-scale with crops.

Published with Swin is the second version, `reppoints_v2_swin_t_3x`. This is the first, trained as
the frameworks of section 4.2 of https://arxiv.org/abs/2103.14030 are.
    published: none
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/reppoints_swin_t_3x.py 8` (8 GPUs, 2 images each)
"""

_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/reppoints_swin.py",
    "_base_/datasets/coco_detection_ms_crop.py",
    "_base_/schedules/adamw_3x.py",
]
