"""Mask2Former, Swin-S, ADE20K, 160,000 steps at 512x512.

Reproduces the model for semantic segmentation of ADE20K with this backbone of
https://github.com/facebookresearch/Mask2Former/blob/main/MODEL_ZOO.md
by mmseg's port `mask2former_swin-s_8xb2-160k_ade20k-512x512`,
for which mmseg 1.2.2 reports mIoU 51.24.
    published: mIoU 51.3 (52.4 with multi-scale and flip testing)
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/mask2former_swin_s_ade20k.py 8` (8 GPUs, 2 images each)
"""

_base_ = "mask2former_swin_t_ade20k.py"

model = dict(
    backbone=dict(
        arch="small",
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_small_patch4_window7_224.pth"
        ),
    ),
)
