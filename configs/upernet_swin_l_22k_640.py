"""UPerNet, Swin-L, pretrained on ImageNet-22K, ADE20K, 160,000 steps at 640x640.

Reproduces the row of Swin-L with ImageNet-22K weights in the segmentation table of
https://github.com/microsoft/Swin-Transformer
The window is that of `upernet_swin_b_22k_640`. What its FLOPs were counted for is not known: at
640x2560 this model comes to 2482, and with windows of 12 to 2580.
    published: mIoU 52.05 (53.53 with multi-scale and flip testing), 234M parameters, 3230 GFLOPs
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/upernet_swin_l_22k_640.py 8` (8 GPUs, 2 images each)
"""

_base_ = "upernet_swin_b_22k_640.py"

model = dict(
    backbone=dict(
        arch="large",
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_large_patch4_window7_224_22k.pth"
        ),
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
)
