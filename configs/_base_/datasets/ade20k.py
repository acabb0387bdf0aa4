"""ADE20K: sides of 512 pixels, crops of 512x512, and the scales of the published tests."""

_base_ = "mmseg::_base_/datasets/ade20k.py"

train_pipeline = [*_base_.train_pipeline[:-1], dict(type="swin_mm.PackSegInputs")]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# Ratios of the size in plain tests, as in mmseg 0.x, with which the multi-scale figures were
# published; the base file of mmseg 1.x scales each image's own size.
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=(int(2048 * r), int(512 * r)), keep_ratio=True)
                for r in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            [dict(type="RandomFlip", prob=p, direction="horizontal") for p in (0.0, 1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="PackSegInputs")],
        ],
    ),
]
