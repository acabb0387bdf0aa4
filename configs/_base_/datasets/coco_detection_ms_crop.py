"""COCO 2017 boxes, multi-scale with crops."""

_base_ = ["mmdet::_base_/datasets/coco_detection.py", "ms_crop.py"]

train_pipeline = [
    dict(type="LoadImageFromFile", backend_args=None),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    _base_.ms_crop,
    dict(type="swin_mm.PackDetInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(type="swin_mm.CocoMetric")
test_evaluator = dict(type="swin_mm.CocoMetric")
