"""Small tensors from the host to a device."""

from collections.abc import Sequence

import torch
from torch import Tensor


def image_sizes(metas: Sequence[dict], key: str = "img_shape") -> Tensor:
    """Widths and heights of images, `(B, 2)` int64, in pixels, of any kind of sequence."""
    shapes = (meta[key] for meta in metas)
    return torch.tensor([[int(shape[1]), int(shape[0])] for shape in shapes])


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies from the host without waiting for the device."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
