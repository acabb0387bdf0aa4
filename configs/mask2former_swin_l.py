"""Mask2Former, Swin-L, instance segmentation, COCO, 100 epochs, large-scale jitter.

Reproduces the model for instance segmentation with this backbone of
https://github.com/facebookresearch/Mask2Former/blob/main/MODEL_ZOO.md
in mmdet's port, which has this backbone for panoptic segmentation alone.
    published: mask AP 50.1, 216M parameters (https://arxiv.org/abs/2112.01527)
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/mask2former_swin_l.py 16` (16 GPUs, 1 image each)
"""

_base_ = "mask2former_swin_b.py"

model = dict(
    backbone=dict(
        embed_dims=192,
        num_heads=(6, 12, 24, 48),
        init_cfg=dict(
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_large_patch4_window12_384_22k.pth"
        ),
    ),
    panoptic_head=dict(num_queries=200, in_channels=[192, 384, 768, 1536]),
)
# Twice the steps, on 16 GPUs.
train_dataloader = dict(batch_size=1, num_workers=1)
max_iters = 2 * 368_750
interval = 5_000
train_cfg = dict(
    max_iters=max_iters, dynamic_intervals=[(max_iters // interval * interval + 1, max_iters)]
)
param_scheduler = dict(end=max_iters, milestones=[2 * 327_778, 2 * 355_092])
