"""How much of what a model computes on is padding."""

from collections.abc import Iterable, Sequence


def padding_share(batches: Iterable[Sequence[tuple[int, int]]], divisor: int = 32) -> float:
    """Share of a data set's pixels that are padding, once the images of a batch are of one size.

    Args:
        batches: Of each batch the heights and widths of its images in pixels, as the model gets
            them.
        divisor: What sides are padded to a multiple of, as `pad_size_divisor`.

    Returns:
        0 to 1, exclusive.

    Raises:
        ValueError: There are no pixels, or `divisor` is below 1.

    Examples:
        >>> padding_share([[(64, 64), (32, 64)]])
        0.25
    """
    if divisor < 1:
        raise ValueError(f"divisor must be 1 or more, got {divisor}")
    used = padded = 0
    for sizes in batches:
        height, width = (-(-max(side) // divisor) * divisor for side in zip(*sizes, strict=True))
        used += sum(h * w for h, w in sizes)
        padded += len(sizes) * height * width
    if not used:
        raise ValueError("there are no pixels: give batches of images")
    return 1 - used / padded
