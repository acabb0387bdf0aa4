"""UPerNet, Swin-B, pretrained at 384 pixels, ADE20K, 160,000 steps at 512x512.

Reproduces `swin-base-patch4-window12-in1k-384x384-pre_upernet_8xb2-160k_ade20k-512x512` of
https://github.com/open-mmlab/mmsegmentation/blob/v1.2.2/configs/swin
    published: mIoU 48.35 (49.65 with multi-scale and flip testing)
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/upernet_swin_b_384.py 8` (8 GPUs, 2 images each)
"""

_base_ = "upernet_swin_b.py"

model = dict(
    backbone=dict(
        window_size=12,
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_base_patch4_window12_384.pth"
        ),
    ),
)
