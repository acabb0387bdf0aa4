"""Mask2Former, Swin-T, ADE20K, 160,000 steps at 512x512.

Reproduces the model for semantic segmentation of ADE20K with this backbone of
https://github.com/facebookresearch/Mask2Former/blob/main/MODEL_ZOO.md
by mmseg's port `mask2former_swin-t_8xb2-160k_ade20k-512x512`,
for which mmseg 1.2.2 reports mIoU 48.66.
    published: mIoU 47.7 (49.6 with multi-scale and flip testing)
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/mask2former_swin_t_ade20k.py 8` (8 GPUs, 2 images each)
"""

_base_ = [
    "_base_/default_runtime_seg.py",
    "_base_/models/mask2former_swin_semantic.py",
    "_base_/datasets/ade20k_shortest_edge.py",
    "_base_/schedules/mask2former_160k.py",
]

model = dict(data_preprocessor=dict(size={{_base_.crop_size}}))
train_dataloader = dict(batch_size=2)
default_hooks = dict(checkpoint=dict(interval=5_000))
