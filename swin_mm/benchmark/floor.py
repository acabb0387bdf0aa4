"""What a piece of work costs at least: operations and bytes, counted by formula.

A floor is the time of a device that runs one kernel after another, one for each group of operations
that can be fused, each as fast as it multiplies matrices or copies memory, whichever takes longer:

    floor = sum over groups of max(operations / rate, bytes / bandwidth)

Rate and bandwidth are measured in the same run (`measure_device`).

Symbols: `T` tokens of a stage in all images of a batch, without padding; `C` its channels; `N`
tokens of a window; `Cm` channels of map m. An element of an activation has 4 bytes, or 2 in bf16
and fp16; one of a parameter 4, or 2 where weights are converted. Operations are multiplications and
additions of matrix products; norms, softmax and GELU count as none.

    group, forward            operations       elements read       written
    patch embedding, norm     2 T 48 C         48 T                T C
    norm, query, key, value   2 T C 3C         T C                 3 T C
    attention                 4 T N C          3 T C               T C
    projection, residual      2 T C C          2 T C               T C
    norm, fc1, GELU           2 T C 4C         T C                 4 T C
    fc2, residual             2 T 4C C         5 T C               T C
    norm, merging             2 (T/4) 4C 2C    T C                 (T/4) 2C
    norm of the map           0                T C                 T C
    neck: lateral, sum        2 T Cm 256       T Cm, coarser 256   256 T
    neck: output              2 T 256 9 256    256 T               256 T

A block reads and writes `22 T C`. V2 has its norms after the layers, in the same groups, and a
network for position biases, of width h = 512 on P = (2 window - 1)^2 positions: `2 P h (2 + heads)`
operations a block. Each group reads its parameters once.

Backward takes twice the operations; the first layer of all as many as forward, since images and
positions need no gradient. It reads what its layer has read, which it recomputes the rest from at
no cost, and the gradient of its output, and writes the gradient of its input. A residual passes its
gradient on as it is; where a branch joins it, it is read once more: `32 T C` a block. Each group
reads its parameters and writes their gradients.

Tables of position biases, masks and the pooled level of the neck count as nothing.
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from swin_mm.benchmark.work import DTYPES, FPN_CHANNELS, PATCH, Work

MLP_RATIO = 4
CPB_HIDDEN_DIMS = 512
IMAGE_CHANNELS = 3

# What the device is measured with: large enough to leave caches and to fill every core.
COPY_BYTES = {"cuda": 2**31, "cpu": 2**28}
MATMUL_SIDE = {"cuda": 8192, "cpu": 1536}
REPEATS = 8


class Group(NamedTuple):
    """Operations that one kernel can do.

    Attributes:
        name: What they are.
        operations: Multiplications and additions.
        bytes: Read and written.
    """

    name: str
    operations: float
    bytes: float


class DeviceSpeed(NamedTuple):
    """What a device has been measured to do.

    Attributes:
        bandwidth: Bytes a second, read and written, of a copy.
        rate: Operations a second of a matrix product in the dtype of the work.
    """

    bandwidth: float
    rate: float


class Layer(NamedTuple):
    """A group as the formulas have it, in elements.

    Attributes:
        name: What it is.
        operations: In forward.
        read: Elements of the inputs that its backward needs.
        written: Elements of the output.
        added: Elements of a residual that is added.
        joined: Elements of the gradient of a residual that is added in backward.
        parameters: Number of parameters.
        back_operations: In backward; `None` is twice the forward's.
        gives_gradient: Whether its input wants a gradient.
    """

    name: str
    operations: float
    read: float
    written: float
    added: float = 0
    joined: float = 0
    parameters: float = 0
    back_operations: float | None = None
    gives_gradient: bool = True


def count(work: Work) -> list[Group]:
    """Counts the groups of a step, of changing sizes the mean.

    Args:
        work: A backbone or a neck.

    Returns:
        Forward's groups, and in training backward's.

    Raises:
        ValueError: The work is a whole model, for which there are no formulas.
    """
    if work.part == "config":
        raise ValueError("operations of a whole model are not counted, only of backbone and neck")
    layers = _backbone_layers if work.part == "backbone" else _neck_layers
    element = DTYPES[work.dtype].itemsize
    parameter = element if work.casts_weights else 4
    share = 1 / len(work.sizes)
    groups = []
    for size in work.sizes:
        for layer in layers(work, size):
            forward = _forward(layer, element, parameter)
            backward = [_backward(layer, element, parameter)] if work.mode == "train" else []
            groups += [
                Group(g.name, g.operations * share, g.bytes * share) for g in (forward, *backward)
            ]
    return groups


def floor_seconds(groups: list[Group], speed: DeviceSpeed) -> float:
    """The least time for the groups, one after another."""
    return sum(max(g.operations / speed.rate, g.bytes / speed.bandwidth) for g in groups)


def _forward(layer: Layer, element: int, parameter: int) -> Group:
    elements = layer.read + layer.added + layer.written
    size = elements * element + layer.parameters * parameter
    return Group(layer.name, layer.operations, size)


def _backward(layer: Layer, element: int, parameter: int) -> Group:
    operations = layer.back_operations
    if operations is None:
        operations = 2 * layer.operations
    elements = layer.read + layer.written + layer.joined
    if layer.gives_gradient:
        elements += layer.read
    # Parameters are read, and their gradients written.
    size = elements * element + 2 * layer.parameters * parameter
    return Group(f"{layer.name}, backward", operations, size)


def _backbone_layers(work: Work, size: tuple[int, int]) -> Iterator[Layer]:
    sides = work.map_sizes(size)
    tokens = [work.batch * height * width for height, width in sides]
    last = len(tokens) - 1
    patch = IMAGE_CHANNELS * PATCH**2
    dims, maps = work.embed_dims, tokens[0]
    operations = 2 * maps * patch * dims
    yield Layer(
        "patch embedding",
        operations,
        read=maps * patch,
        written=maps * dims,
        parameters=(patch + 3) * dims,
        back_operations=operations,
        gives_gradient=False,
    )
    for i, (maps, dims) in enumerate(zip(tokens, work.channels, strict=True)):
        for _ in range(work.depths[i]):
            yield from _block_layers(work, maps, dims, work.num_heads[i])
        plane = maps * dims
        yield Layer("norm of the map", 0, read=plane, written=plane, parameters=2 * dims)
        if i < last:
            merged, norm = tokens[i + 1], 8 if work.version == 1 else 4
            yield Layer(
                "merging",
                2 * merged * 4 * dims * 2 * dims,
                read=plane,
                written=merged * 2 * dims,
                joined=plane,
                parameters=8 * dims**2 + norm * dims,
            )


def _block_layers(work: Work, tokens: int, dims: int, heads: int) -> Iterator[Layer]:
    plane, square, norm = tokens * dims, dims**2, 2 * dims
    per_token = 2 * tokens * square
    biases = 3 if work.version == 1 else 2  # the key of V2 has none
    yield Layer(
        "query, key, value",
        3 * per_token,
        read=plane,
        written=3 * plane,
        joined=plane,
        parameters=3 * square + biases * dims + norm,
    )
    if work.version == 2:
        positions = (2 * work.window - 1) ** 2
        inner = 2 * positions * CPB_HIDDEN_DIMS
        yield Layer(
            "position bias",
            inner * (2 + heads),
            read=0,
            written=0,
            parameters=CPB_HIDDEN_DIMS * (3 + heads) + heads,
            back_operations=inner * (2 + 2 * heads),  # offsets need no gradient
        )
    yield Layer("attention", 4 * plane * work.window**2, read=3 * plane, written=plane)
    yield Layer(
        "projection",
        per_token,
        read=plane,
        written=plane,
        added=plane,
        parameters=square + dims,
    )
    yield Layer(
        "fc1",
        MLP_RATIO * per_token,
        read=plane,
        written=MLP_RATIO * plane,
        joined=plane,
        parameters=MLP_RATIO * (square + dims) + norm,
    )
    yield Layer(
        "fc2",
        MLP_RATIO * per_token,
        read=MLP_RATIO * plane,
        written=plane,
        added=plane,
        parameters=MLP_RATIO * square + dims,
    )


def _neck_layers(work: Work, size: tuple[int, int]) -> Iterator[Layer]:
    tokens = [work.batch * height * width for height, width in work.map_sizes(size)]
    coarser = [*tokens[1:], 0]
    for maps, above, dims in zip(tokens, coarser, work.channels, strict=True):
        yield Layer(
            "lateral",
            2 * maps * dims * FPN_CHANNELS,
            read=maps * dims,
            written=maps * FPN_CHANNELS,
            added=above * FPN_CHANNELS,
            parameters=(dims + 1) * FPN_CHANNELS,
        )
        yield Layer(
            "output",
            2 * maps * 9 * FPN_CHANNELS**2,
            read=maps * FPN_CHANNELS,
            written=maps * FPN_CHANNELS,
            parameters=(9 * FPN_CHANNELS + 1) * FPN_CHANNELS,
        )


def measure_device(device: torch.device, dtype: torch.dtype) -> DeviceSpeed:
    """Measures a copy and a matrix product, the best of several, with the threads that are set."""
    copied = COPY_BYTES[device.type]
    buffer = torch.zeros(2, copied, dtype=torch.uint8, device=device)
    bandwidth = 2 * copied / _best_seconds(lambda: buffer[0].copy_(buffer[1]), device)
    side = MATMUL_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    rate = 2 * side**3 / _best_seconds(lambda: a @ b, device)
    return DeviceSpeed(bandwidth, rate)


def _best_seconds(run: Callable[[], object], device: torch.device) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best
