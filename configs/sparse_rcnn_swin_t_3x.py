"""Sparse R-CNN with 300 proposals, Swin-T, COCO, 36 epochs (3x), multi-scale with crops.

Reproduces table 2(a) of the paper on Swin, https://arxiv.org/abs/2103.14030
The settings are those of section 4.2, for four frameworks alike; no config file was published. The
drop path, of which it does not speak, is that of the official repository's Mask R-CNN, 3x.
Gradients are clipped as the method's own recipe does.
    published: box AP 47.9, 110M parameters, 172 GFLOPs
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/sparse_rcnn_swin_t_3x.py 8` (8 GPUs, 2 images each)
"""

_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/sparse_rcnn_swin.py",
    "_base_/datasets/coco_detection_ms_crop.py",
    "_base_/schedules/adamw_3x.py",
]

optim_wrapper = dict(clip_grad=dict(max_norm=1, norm_type=2))
