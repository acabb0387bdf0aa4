"""Hooks, logging and environment of every detection recipe; to be the first base of a recipe.

mmengine reads all bases before it acts on `custom_imports`, and to resolve a `mmdet::` base it may
need a repair that swin_mm brings (`swin_mm.compat`). Bases are read in order, so importing swin_mm
here serves those that follow, also under mmdet's and mmseg's own tools. It is no `import`
statement because mmengine takes a file with one for a config of its other, pure Python style.
"""

__import__("swin_mm")

custom_imports = dict(imports=["swin_mm"], allow_failed_imports=False)
default_scope = "mmdet"

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    # Two, so that damage to the newest leaves one to resume from.
    checkpoint=dict(type="swin_mm.CheckpointHook", interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="DetVisualizationHook"),
    start_table=dict(type="swin_mm.StartTableHook"),
    progress=dict(type="swin_mm.ProgressHook"),
    curves=dict(type="swin_mm.CurvesHook"),
)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
vis_backends = [dict(type="LocalVisBackend")]
visualizer = dict(type="DetLocalVisualizer", vis_backends=vis_backends, name="visualizer")
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=True)
log_level = "INFO"
load_from = None
resume = False
