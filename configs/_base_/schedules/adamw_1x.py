"""Detection, 12 epochs: AdamW at 1e-4 for 16 images a step, the official repository's."""

max_epochs = 12
train_cfg = dict(type="swin_mm.EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(
        type="MultiStepLR",
        by_epoch=True,
        begin=0,
        end=max_epochs,
        milestones=[max_epochs * 8 // 12, max_epochs * 11 // 12],
        gamma=0.1,
    ),
]
optim_wrapper = dict(
    type="swin_mm.AmpOptimWrapper",
    constructor="swin_mm.MergedOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    paramwise_cfg=dict(
        custom_keys={
            "absolute_pos_embed": dict(decay_mult=0.0),
            "relative_position_bias_table": dict(decay_mult=0.0),
            "norm": dict(decay_mult=0.0),
            # Of V2; Microsoft's classification code spares these too.
            "logit_scale": dict(decay_mult=0.0),
            "cpb_mlp": dict(decay_mult=0.0),
        }
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=8 * 2)
