"""UPerNet, Swin V2-B, ADE20K, 160,000 steps at 512x512.

No official recipe of a UPerNet on V2 of this size is published: all but the backbone is as in
`upernet_swin_b`. The weights are those of
https://github.com/microsoft/Swin-Transformer/blob/main/MODELHUB.md
    published: none
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/upernet_swin_v2_b.py 8` (8 GPUs, 2 images each)
"""

_base_ = "upernet_swin_v2_t.py"

model = dict(
    backbone=dict(
        arch="base",
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v2.0.0/"
            "swinv2_base_patch4_window16_256.pth"
        ),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
