"""K-Net, 80,000 steps: AdamW at 6e-5 for 16 images a step, gradients cut to norm 1."""

max_iters = 80_000
train_cfg = dict(type="swin_mm.IterBasedTrainLoop", max_iters=max_iters, val_interval=8_000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(
        type="MultiStepLR", by_epoch=False, begin=1000, end=max_iters, milestones=[60_000, 72_000]
    ),
]
optim_wrapper = dict(
    type="swin_mm.OptimWrapper",
    constructor="swin_mm.MergedOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.0005, fused=True),
    clip_grad=dict(max_norm=1, norm_type=2),
    paramwise_cfg=dict(
        custom_keys={
            "absolute_pos_embed": dict(decay_mult=0.0),
            "relative_position_bias_table": dict(decay_mult=0.0),
            "norm": dict(decay_mult=0.0),
        }
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=8 * 2)
