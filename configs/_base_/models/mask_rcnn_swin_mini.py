"""Mask R-CNN on a Swin small enough for a CPU and for training from scratch.

48 channels, two blocks a stage and windows of 5; narrow heads with group norm, since there are no
pretrained features; few proposals; one sample a bin in RoIAlign. Classes: those of the shapes data.
"""

_base_ = "mask_rcnn_swin.py"

channels = 64
num_classes = 6
group_norm = dict(type="GN", num_groups=16)
roi_layer = dict(sampling_ratio=1)
model = dict(
    backbone=dict(
        embed_dims=48,
        depths=(2, 2, 2, 2),
        window_size=5,
        drop_path_rate=0.0,
        # The published 0.02 is for wide layers; here signals would fade from stage to stage.
        init_cfg=dict(_delete_=True, type="Xavier", layer="Linear"),
    ),
    neck=dict(in_channels=[48, 96, 192, 384], out_channels=channels, norm_cfg=group_norm),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[6], ratios=[1.0]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels, roi_layer=roi_layer),
        bbox_head=dict(
            type="ConvFCBBoxHead",
            num_shared_convs=2,
            num_shared_fcs=1,
            in_channels=channels,
            conv_out_channels=channels,
            fc_out_channels=256,
            norm_cfg=group_norm,
            num_classes=num_classes,
            reg_class_agnostic=True,
        ),
        mask_roi_extractor=dict(out_channels=channels, roi_layer=roi_layer),
        mask_head=dict(
            num_convs=2,
            in_channels=channels,
            conv_out_channels=channels,
            norm_cfg=group_norm,
            num_classes=num_classes,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=300, max_per_img=60),
        rcnn=dict(sampler=dict(num=48, pos_fraction=0.5)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=60), rcnn=dict(max_per_img=30)),
)
