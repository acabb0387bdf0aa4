"""The built-in data as data sets of mmdet and mmseg, with the names of its classes.

The data is drawn when it is first read: here rather than in the training tool, so that a config on
built-in data works from any tool and with any number of processes, also from mmdet's and mmseg's.
"""

from typing import Any

from mmdet.datasets import CocoDataset
from mmseg.datasets import BaseSegDataset

from swin_mm.datasets.shapes import (
    CLASSES,
    PALETTE,
    SEMANTIC_CLASSES,
    SEMANTIC_PALETTE,
    ensure_shapes,
)
from swin_mm.registry import DATASETS


@DATASETS.register_module()
class ShapesInstanceDataset(CocoDataset):
    """Boxes and masks of the shapes; takes the arguments of mmdet's `CocoDataset`.

    `data_root` ends in the name of a preset, as in `data/shapes/standard/`.
    """

    METAINFO = {"classes": CLASSES, "palette": list(PALETTE)}

    draw_if_missing = staticmethod(ensure_shapes)

    def full_init(self) -> None:
        """Reads the annotations, after drawing the data if it is not there."""
        self.draw_if_missing(self.data_root)
        super().full_init()


@DATASETS.register_module()
class ShapesSemanticDataset(BaseSegDataset):
    """Label maps of the shapes, the background being class 0; takes `BaseSegDataset`'s arguments.

    `data_root` ends in the name of a preset, as in `data/shapes/standard/`.
    """

    METAINFO = {"classes": SEMANTIC_CLASSES, "palette": [list(c) for c in SEMANTIC_PALETTE]}

    def __init__(self, img_suffix: str = ".png", **kwargs: Any) -> None:
        super().__init__(img_suffix=img_suffix, **kwargs)

    draw_if_missing = staticmethod(ensure_shapes)

    def full_init(self) -> None:
        """Lists images and label maps, after drawing the data if it is not there."""
        self.draw_if_missing(self.data_root)
        super().full_init()
