"""UPerNet on a Swin small enough for a CPU and for training from scratch.

48 channels, two blocks a stage and windows of 5; narrow heads with group norm, since there are no
pretrained features. Classes: those of the shapes data.
"""

_base_ = "upernet_swin.py"

num_classes = 7
head = dict(
    channels=64,
    num_classes=num_classes,
    norm_cfg=dict(type="GN", num_groups=16),
    dropout_ratio=0.0,
)
model = dict(
    backbone=dict(
        embed_dims=48,
        depths=(2, 2, 2, 2),
        window_size=5,
        drop_path_rate=0.0,
        # The published 0.02 is for wide layers; here signals would fade from stage to stage.
        init_cfg=dict(_delete_=True, type="Xavier", layer="Linear"),
    ),
    decode_head=dict(in_channels=[48, 96, 192, 384], **head),
    auxiliary_head=dict(in_channels=192, **head),
)
