"""ADE20K: sides of 640 pixels, crops of 640x640, and the scales of the published tests."""

_base_ = "mmseg::_base_/datasets/ade20k_640x640.py"

train_pipeline = [*_base_.train_pipeline[:-1], dict(type="swin_mm.PackSegInputs")]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# Ratios of the size in plain tests: see ade20k.py.
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=(int(2560 * r), int(640 * r)), keep_ratio=True)
                for r in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            [dict(type="RandomFlip", prob=p, direction="horizontal") for p in (0.0, 1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="PackSegInputs")],
        ],
    ),
]
