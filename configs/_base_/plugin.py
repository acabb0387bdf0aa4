"""What swin_mm adds to a recipe; to be the first base, before any of mmdet's or mmseg's.

mmengine reads all bases before it acts on `custom_imports`, and to resolve a `mmdet::` base it may
need a repair that swin_mm brings (`swin_mm.compat`). Bases are read in order, so importing swin_mm
here serves those that follow, also under mmdet's and mmseg's own tools. It is no `import`
statement because mmengine takes a file with one for a config of its other, pure Python style.

A recipe that inherits one of mmdet's whole, runtime included, takes the hooks by
`default_hooks = _base_.swin_mm_hooks` and the optimizer's wrapper by
`optim_wrapper = _base_.swin_mm_optim_wrapper`.
"""

__import__("swin_mm")

custom_imports = dict(imports=["swin_mm"], allow_failed_imports=False)

swin_mm_hooks = dict(
    # Two, so that damage to the newest leaves one to resume from.
    checkpoint=dict(type="swin_mm.CheckpointHook", max_keep_ckpts=2, save_best="auto"),
    start_table=dict(type="swin_mm.StartTableHook"),
    progress=dict(type="swin_mm.ProgressHook"),
    curves=dict(type="swin_mm.CurvesHook"),
    # Losses stay on the GPU until they are logged.
    runtime_info=dict(type="swin_mm.RuntimeInfoHook"),
    non_finite=dict(type="swin_mm.NonFiniteLossHook"),
    resumed_schedules=dict(type="swin_mm.ResumedSchedulesHook"),
)
# Few groups of parameters, each updated in one go.
swin_mm_optim_wrapper = dict(
    type="swin_mm.OptimWrapper",
    constructor="swin_mm.MergedOptimWrapperConstructor",
    optimizer=dict(fused=True),
)
