"""Mask2Former, Swin-B, instance segmentation, COCO, 50 epochs, large-scale jitter.

Reproduces the model for instance segmentation with this backbone of
https://github.com/facebookresearch/Mask2Former/blob/main/MODEL_ZOO.md
in mmdet's port, which has this backbone for panoptic segmentation alone.
    published: mask AP 46.7, 107M parameters (https://arxiv.org/abs/2112.01527)
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/mask2former_swin_b.py 8` (8 GPUs, 2 images each)
"""

_base_ = "mask2former_swin_s.py"

model = dict(
    backbone=dict(
        pretrain_img_size=384,
        embed_dims=128,
        num_heads=(4, 8, 16, 32),
        window_size=12,
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_base_patch4_window12_384.pth"
        ),
    ),
    panoptic_head=dict(in_channels=[128, 256, 512, 1024]),
)
