"""Where the slices of a large image lie."""

from swin_mm.inference.run_length import Region


def make_slices(
    height: int, width: int, slice_size: tuple[int, int], overlap_ratios: tuple[float, float]
) -> list[Region]:
    """Covers an image with overlapping slices of one size.

    Slices at the right and bottom borders are moved inwards, not cut, so that the model sees the
    same size everywhere; an image smaller than a slice is one slice as it is.

    Args:
        height: Pixels of the image.
        width: Pixels of the image.
        slice_size: Height and width of a slice, in pixels.
        overlap_ratios: Least overlap of neighbours, as parts of a slice's height and width.

    Returns:
        Left, top, right and bottom of each, row by row; right and bottom are exclusive.

    Raises:
        ValueError: A slice is empty, or neighbours overlap by nothing sensible.
    """
    for name, size in zip(("slice_height", "slice_width"), slice_size, strict=True):
        if size < 1:
            raise ValueError(f"{name} must be at least 1 pixel, got {size}")
    names = ("overlap_height_ratio", "overlap_width_ratio")
    for name, ratio in zip(names, overlap_ratios, strict=True):
        if not 0 <= ratio < 1:
            raise ValueError(f"{name} must be at least 0 and less than 1, got {ratio}")
    rows = _cover(height, slice_size[0], overlap_ratios[0])
    columns = _cover(width, slice_size[1], overlap_ratios[1])
    return [(left, top, right, bottom) for top, bottom in rows for left, right in columns]


def _cover(length: int, size: int, ratio: float) -> list[tuple[int, int]]:
    """Covers a line of `length` pixels with stretches of `size`; returns starts and ends."""
    if size >= length:
        return [(0, length)]
    step = max(1, size - int(ratio * size))
    starts = [*range(0, length - size, step), length - size]
    return [(start, start + size) for start in starts]
