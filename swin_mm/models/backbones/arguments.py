"""Arguments of the backbones: the table of variants, spellings brought to one form, and checks."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple


class Arch(NamedTuple):
    """Widths and depths of a published variant."""

    embed_dims: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]


# The same for V1 and V2. Source: Liu et al., Swin Transformer, 2021, section 3.3; Swin Transformer
# V2, 2022, section 3.5.
ARCHS = {
    "tiny": Arch(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": Arch(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": Arch(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": Arch(192, (2, 2, 18, 2), (6, 12, 24, 48)),
}


def resolve_init_cfg(init_cfg: dict | None, pretrained: str | None) -> dict | None:
    if pretrained is not None:
        if init_cfg:
            raise ValueError(f"give init_cfg or pretrained, not both: {init_cfg=}, {pretrained=}")
        if not isinstance(pretrained, str):
            raise TypeError(f"pretrained must be a path or URL, got {pretrained!r}")
        warnings.warn(
            "pretrained= is deprecated: use "
            f"init_cfg=dict(type='Pretrained', checkpoint={pretrained!r})",
            DeprecationWarning,
            stacklevel=3,
        )
        return dict(type="Pretrained", checkpoint=pretrained)
    if isinstance(init_cfg, dict) and "checkpoint" in init_cfg:
        return {"type": "Pretrained", **init_cfg}  # mmdet's class asks for no type
    return init_cfg


def resolve_arch(
    arch: str | None,
    embed_dims: int | None,
    depths: Sequence[int] | None,
    num_heads: Sequence[int] | None,
) -> Arch:
    if arch is not None and arch not in ARCHS:
        raise ValueError(f"arch must be one of {tuple(ARCHS)}, got {arch!r}")
    default = ARCHS[arch or "tiny"]
    variant = Arch(
        default.embed_dims if embed_dims is None else embed_dims,
        default.depths if depths is None else tuple(depths),
        default.num_heads if num_heads is None else tuple(num_heads),
    )
    if len(variant.depths) != len(variant.num_heads):
        raise ValueError(
            "depths and num_heads must name the same number of stages, got "
            f"depths={variant.depths}, num_heads={variant.num_heads}"
        )
    return variant


def to_pair(name: str, value: Any, minimum: int = 1) -> tuple[int, int]:
    """Brings a side or a pair `(h, w)` to a pair."""
    pair = (value, value) if isinstance(value, int) else tuple(value)
    pair = pair * 2 if len(pair) == 1 else pair
    if len(pair) != 2 or not all(isinstance(side, int) and side >= minimum for side in pair):
        wanted = "positive int" if minimum == 1 else f"int of at least {minimum}"
        raise ValueError(f"{name} must be a {wanted} or a pair (h, w) of them, got {value!r}")
    return pair


def to_pairs(
    name: str,
    value: int | Sequence[int | Sequence[int]],
    num_stages: int,
    minimum: int = 1,
) -> list[tuple[int, int]]:
    """Brings one side or pair for all stages, or one for each, to a pair for each.

    Two ints are a pair `(h, w)`, also where there are two stages.
    """
    if not isinstance(value, int) and len(value) == num_stages:
        is_one_pair = num_stages <= 2 and all(isinstance(side, int) for side in value)
        if not is_one_pair:
            return [to_pair(f"{name}[{i}]", side, minimum) for i, side in enumerate(value)]
    try:
        return [to_pair(name, value, minimum)] * num_stages
    except ValueError as error:
        raise ValueError(f"{error}; or give one for each of the {num_stages} stages") from None


def check_stages(
    strides: Sequence[int],
    patch_size: tuple[int, int],
    out_indices: Sequence[int],
    frozen_stages: int,
    num_stages: int,
) -> None:
    if len(strides) < num_stages:
        raise ValueError(f"strides must name all {num_stages} stages, got {tuple(strides)}")
    if to_pair("strides[0]", strides[0]) != patch_size:
        raise ValueError(
            f"patches do not overlap, so strides[0] must equal patch_size, got {strides[0]} and "
            f"{patch_size}"
        )
    if not out_indices or not all(0 <= i < num_stages for i in out_indices):
        raise ValueError(
            f"out_indices must name stages in [0, {num_stages}), got {tuple(out_indices)}"
        )
    if not -1 <= frozen_stages <= num_stages:
        raise ValueError(f"frozen_stages must be in [-1, {num_stages}], got {frozen_stages}")
