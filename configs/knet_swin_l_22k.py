"""K-Net, Swin-L, pretrained on ImageNet-22K, ADE20K, 80,000 steps at 512x512.

Reproduces `knet-s3_swin-l_upernet_8xb2-adamw-80k_ade20k-512x512` of
https://github.com/open-mmlab/mmsegmentation/blob/v1.2.2/configs/knet
    published: mIoU 52.05 (53.24 with multi-scale and flip testing)
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/knet_swin_l_22k.py 8` (8 GPUs, 2 images each)
"""

_base_ = "knet_swin_t.py"

model = dict(
    backbone=dict(
        arch="large",
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_large_patch4_window7_224_22k.pth"
        ),
    ),
    decode_head=dict(kernel_generate_head=dict(in_channels=[192, 384, 768, 1536])),
    auxiliary_head=dict(in_channels=768),
)
