"""RepPoints V2 with BiFPN on Swin-T, the official repository's: our backbone, neck and head."""

norm_cfg = dict(type="GN", num_groups=32, requires_grad=True)
model = dict(
    type="RepPointsDetector",
    data_preprocessor=dict(
        type="swin_mm.DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type="swin_mm.SwinTransformer",
        arch="tiny",
        drop_path_rate=0.2,
        out_indices=(1, 2, 3),
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_tiny_patch4_window7_224.pth",
        ),
    ),
    neck=dict(
        type="swin_mm.BiFPN",
        in_channels=[192, 384, 768],
        out_channels=256,
        num_outs=5,
        num_repeat=2,
        norm_cfg=norm_cfg,
    ),
    # Its losses and widths are by default those of the official config.
    bbox_head=dict(
        type="swin_mm.RepPointsV2Head",
        num_classes=80,
        in_channels=256,
        stacked_convs=3,
        norm_cfg=norm_cfg,
    ),
    train_cfg=dict(
        init=dict(assigner=dict(type="PointAssigner", scale=4, pos_num=1)),
        refine=dict(assigner=dict(type="ATSSAssigner", topk=9)),
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type="nms", iou_threshold=0.6),
        max_per_img=100,
    ),
)
