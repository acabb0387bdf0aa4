"""UPerNet, Swin V2-B, pretrained on ImageNet-22K, ADE20K, 160,000 steps at 512x512.

No official recipe of a UPerNet on V2 of this size is published: all but the backbone is as in
`upernet_swin_b_22k`. The weights are those of
https://github.com/microsoft/Swin-Transformer/blob/main/MODELHUB.md
    published: none
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/upernet_swin_v2_b_22k.py 8` (8 GPUs, 2 images each)
"""

_base_ = "upernet_swin_v2_b.py"

model = dict(
    backbone=dict(
        # At 192 pixels; V2 carries its position bias over to windows of other sizes.
        pretrained_window_sizes=(12, 12, 12, 6),
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v2.0.0/"
            "swinv2_base_patch4_window12_192_22k.pth"
        ),
    ),
)
