"""The built-in data as data sets of mmdet and mmseg, with the names of its classes.

The data is drawn when it is first read: here rather than in the training tool, so that a config on
built-in data works from any tool and with any number of processes, also from mmdet's and mmseg's.
"""

from typing import Any

from mmdet.datasets import CocoDataset, CocoPanopticDataset
from mmseg.datasets import BaseSegDataset

from swin_mm.datasets.shapes import (
    CLASSES,
    PALETTE,
    SEMANTIC_CLASSES,
    SEMANTIC_PALETTE,
    ensure_shapes,
)
from swin_mm.registry import DATASETS

BACKGROUND = SEMANTIC_CLASSES[0]


class DrawnData:
    """Draws the data when it is first read; to be the first base of a data set."""

    data_root: str
    draw_if_missing = staticmethod(ensure_shapes)

    def full_init(self) -> None:
        """Reads the annotations, after drawing the data if it is not there."""
        self.draw_if_missing(self.data_root)
        super().full_init()  # type: ignore[misc]


@DATASETS.register_module()
class ShapesInstanceDataset(DrawnData, CocoDataset):
    """Boxes and masks of the shapes; takes the arguments of mmdet's `CocoDataset`.

    `data_root` ends in the name of a preset, as in `data/shapes/standard/`.
    """

    METAINFO = {"classes": CLASSES, "palette": list(PALETTE)}


@DATASETS.register_module()
class ShapesPanopticDataset(DrawnData, CocoPanopticDataset):
    """Segments of the shapes, and of the background, which is stuff and the last class.

    Takes the arguments of mmdet's `CocoPanopticDataset`; `data_root` ends in the name of a preset,
    as in `data/shapes/standard/`.
    """

    METAINFO = {
        "classes": (*CLASSES, BACKGROUND),
        "thing_classes": CLASSES,
        "stuff_classes": (BACKGROUND,),
        "palette": [*PALETTE, SEMANTIC_PALETTE[0]],
    }


@DATASETS.register_module()
class ShapesSemanticDataset(DrawnData, BaseSegDataset):
    """Label maps of the shapes, the background being class 0; takes `BaseSegDataset`'s arguments.

    `data_root` ends in the name of a preset, as in `data/shapes/standard/`.
    """

    METAINFO = {"classes": SEMANTIC_CLASSES, "palette": [list(c) for c in SEMANTIC_PALETTE]}

    def __init__(self, img_suffix: str = ".png", **kwargs: Any) -> None:
        super().__init__(img_suffix=img_suffix, **kwargs)
