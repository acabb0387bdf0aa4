"""Segmentation, 160,000 steps: AdamW at 6e-5 for 16 images a step, the official repository's."""

max_iters = 160_000
train_cfg = dict(type="swin_mm.IterBasedTrainLoop", max_iters=max_iters, val_interval=16_000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=max_iters),
]
optim_wrapper = dict(
    type="swin_mm.OptimWrapper",
    constructor="swin_mm.MergedOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01, fused=True),
    paramwise_cfg=dict(
        custom_keys={
            "absolute_pos_embed": dict(decay_mult=0.0),
            "relative_position_bias_table": dict(decay_mult=0.0),
            "norm": dict(decay_mult=0.0),
        }
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=8 * 2)
