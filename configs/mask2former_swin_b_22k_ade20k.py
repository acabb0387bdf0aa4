"""Mask2Former, Swin-B, pretrained on ImageNet-22K at 384 pixels, ADE20K, 160,000 steps at 640x640.

Reproduces the model for semantic segmentation of ADE20K with this backbone of
https://github.com/facebookresearch/Mask2Former/blob/main/MODEL_ZOO.md
by mmseg's port `mask2former_swin-b-in22k-384x384-pre_8xb2-160k_ade20k-640x640`,
for which mmseg 1.2.2 reports mIoU 53.9.
    published: mIoU 53.9 (55.1 with multi-scale and flip testing)
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/mask2former_swin_b_22k_ade20k.py 8`
(8 GPUs, 2 images each)
"""

_base_ = "mask2former_swin_b_ade20k.py"

model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_base_patch4_window12_384_22k.pth"
        ),
    ),
)
