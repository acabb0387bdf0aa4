"""What a backbone's feature maps are, in the words of timm."""

from collections.abc import Sequence
from typing import Any

Index = int | Sequence[int] | None


class FeatureInfo(list[dict[str, Any]]):
    """One dict for each stage: `num_chs`, `reduction` (stride in
    pixels, `(h, w)` where they differ), `module` and `index`.

    Methods describe the maps that the backbone returns, or the stages asked for.

    Args:
        channels: Channels of each stage.
        strides: Stride, or `(h, w)`, of the first stage in pixels, then of each later one in
            tokens of the stage before it.
        out_indices: Stages whose maps are returned.

    Source:
        `timm.models.FeatureInfo`, which code for `features_only` models reads.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int | Sequence[int]],
        out_indices: Sequence[int],
    ) -> None:
        super().__init__()
        self.out_indices = tuple(out_indices)
        height = width = 1
        for index, (number, stride) in enumerate(zip(channels, strides, strict=True)):
            down, right = (stride, stride) if isinstance(stride, int) else stride
            height, width = height * down, width * right
            reduction = height if height == width else (height, width)
            module = f"layers.{index}"
            self.append(dict(num_chs=number, reduction=reduction, module=module, index=index))

    def get(self, key: str, idx: Index = None) -> Any:
        """A value of one stage, or the values of several; by default of all maps returned."""
        if isinstance(idx, int):
            return self[idx][key]
        return [self[index][key] for index in (self.out_indices if idx is None else idx)]

    def channels(self, idx: Index = None) -> Any:
        """Channels of the maps."""
        return self.get("num_chs", idx)

    def reduction(self, idx: Index = None) -> Any:
        """Strides of the maps, in pixels."""
        return self.get("reduction", idx)

    def module_name(self, idx: Index = None) -> Any:
        """Names of the modules that compute the maps."""
        return self.get("module", idx)

    def get_dicts(self, keys: Sequence[str] | None = None, idx: Index = None) -> list[dict]:
        """The dicts of the maps, or a part of each."""
        chosen = [idx] if isinstance(idx, int) else self.out_indices if idx is None else idx
        return [{key: self[i][key] for key in keys or self[i]} for i in chosen]
