"""UPerNet, Swin V2-T, ADE20K, 160,000 steps at 512x512.

No official recipe of a UPerNet on V2 of this size is published: all but the backbone is as in
`upernet_swin_t`. The weights are those of
https://github.com/microsoft/Swin-Transformer/blob/main/MODELHUB.md
    published: none
    measured: not yet trained
Command: `bash tools/dist_train.sh configs/upernet_swin_v2_t.py 8` (8 GPUs, 2 images each)
"""

_base_ = "upernet_swin_t.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="swin_mm.SwinTransformerV2",
        arch="tiny",
        # As in pretraining at 256 pixels, where the last map is no larger; they divide the maps of
        # crops of 512 pixels.
        window_size=(16, 16, 16, 8),
        drop_path_rate=0.3,
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v2.0.0/"
            "swinv2_tiny_patch4_window16_256.pth",
        ),
    ),
)
# Microsoft's classification code spares these too.
no_decay = dict(decay_mult=0.0)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={"logit_scale": no_decay, "cpb_mlp": no_decay}))
