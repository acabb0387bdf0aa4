"""UPerNet, Swin-L, pretrained on ImageNet-22K at 384 pixels, ADE20K, 160,000 steps at 512x512.

As `swin-large-patch4-window12-in22k-384x384-pre_upernet_8xb2-160k_ade20k-512x512` of
https://github.com/open-mmlab/mmsegmentation/blob/v1.2.2/configs/swin
which comes without a result.
    published: none
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/upernet_swin_l_22k_384.py 8` (8 GPUs, 2 images each)
"""

_base_ = "upernet_swin_l_22k.py"

model = dict(
    backbone=dict(
        window_size=12,
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_large_patch4_window12_384_22k.pth"
        ),
    ),
)
