"""Hybrid Task Cascade, Swin-L, COCO, 72 epochs (6x), shorter sides of 400 to 1400 pixels.

As `htc_swin_b_6x`; HTC++ with this backbone has box AP 57.1 and mask AP 49.5, see
https://arxiv.org/abs/2103.14030
    published: none
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/htc_swin_l_6x.py 8` (8 GPUs, 2 images each)
"""

_base_ = "htc_swin_b_6x.py"

model = dict(
    backbone=dict(
        arch="large",
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_large_patch4_window7_224_22k.pth"
        ),
    ),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
