"""ADE20K as Mask2Former trains on it: the shorter side is drawn, of half to twice 512 pixels."""

_base_ = "ade20k.py"

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(
        type="RandomChoiceResize",
        scales=[512 * tenths // 10 for tenths in range(5, 21)],
        resize_type="ResizeShortestEdge",
        max_size=4 * 512,
    ),
    dict(type="RandomCrop", crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="swin_mm.PackSegInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
