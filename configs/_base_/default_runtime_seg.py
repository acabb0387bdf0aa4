"""What segmentation recipes have instead: steps are counted, not epochs; images have one size."""

_base_ = "default_runtime.py"

default_scope = "mmseg"
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=16_000, save_best="mIoU"),
    visualization=dict(type="SegVisualizationHook"),
)
env_cfg = dict(cudnn_benchmark=True)
visualizer = dict(type="SegLocalVisualizer")
log_processor = dict(by_epoch=False)
tta_model = dict(type="SegTTAModel")
