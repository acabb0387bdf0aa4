"""A number from the device that is read later than it is computed, so that nothing waits for it."""

import torch
from torch import Tensor


class DeviceNumber:
    """Starts to copy a number to the CPU; by the time it is read it will mostly be there.

    Args:
        value: A tensor of one element, on any device.
    """

    def __init__(self, value: Tensor) -> None:
        self.value = value.detach().to("cpu", non_blocking=True)
        self.copied = None
        if value.is_cuda:
            self.copied = torch.cuda.Event()
            self.copied.record()

    def read(self) -> float:
        """Waits for the copy where it is not done."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.value.item()
