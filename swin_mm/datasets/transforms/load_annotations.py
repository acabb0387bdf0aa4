"""Annotations whose masks stay polygons until a head wants them."""

from typing import Any

from mmdet.datasets.transforms import LoadAnnotations as MmdetLoadAnnotations

from swin_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadAnnotations(MmdetLoadAnnotations):
    """Takes the arguments of mmdet's `LoadAnnotations`; `poly2mask` is False unless given.

    As bitmaps, masks are most of the work of a data loader, and of what it hands over. An image
    with an object that is given as run lengths has bitmaps all the same: mmdet would leave the
    object out. Crowds do not count, since no mask is learnt from them.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"poly2mask": False, **kwargs})
        self._drawing = MmdetLoadAnnotations(**{**kwargs, "poly2mask": True})

    def _load_masks(self, results: dict) -> None:
        has_run_lengths = any(
            isinstance(instance["mask"], dict) and not instance["ignore_flag"]
            for instance in results.get("instances", [])
        )
        if has_run_lengths:
            self._drawing._load_masks(results)
        else:
            super()._load_masks(results)
