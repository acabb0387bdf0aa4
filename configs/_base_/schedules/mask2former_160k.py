"""Mask2Former, 160,000 steps: AdamW at 1e-4 for 16 images a step, a tenth of it in the backbone.

Norms, position tables and embeddings do not decay.
"""

max_iters = 160_000
train_cfg = dict(type="swin_mm.IterBasedTrainLoop", max_iters=max_iters, val_interval=5_000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

param_scheduler = [
    dict(type="PolyLR", power=0.9, eta_min=0, begin=0, end=max_iters, by_epoch=False)
]

no_decay = dict(decay_mult=0.0)
backbone_no_decay = dict(lr_mult=0.1, decay_mult=0.0)
optim_wrapper = dict(
    type="swin_mm.OptimWrapper",
    constructor="swin_mm.MergedOptimWrapperConstructor",
    optimizer=dict(
        type="AdamW", lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05, fused=True
    ),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={
            # The longest key that occurs in a name decides, so the backbone's norms need keys
            # longer than `backbone`: those of up to 18 blocks in any of the four stages.
            "backbone": dict(lr_mult=0.1),
            "backbone.norm": backbone_no_decay,
            "backbone.patch_embed.norm": backbone_no_decay,
            **{f"backbone.layers.{i}.downsample.norm": backbone_no_decay for i in range(3)},
            **{
                f"backbone.layers.{i}.blocks.{j}.norm": backbone_no_decay
                for i in range(4)
                for j in range(18)
            },
            "absolute_pos_embed": backbone_no_decay,
            "relative_position_bias_table": backbone_no_decay,
            "query_embed": no_decay,
            "query_feat": no_decay,
            "level_embed": no_decay,
        },
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=8 * 2)
