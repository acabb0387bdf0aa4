"""A small Swin for the tests of checkpoints: its arguments, and weights as Microsoft names them."""

import torch

# Of `SwinTransformer`; two blocks in most stages, so that shifted windows are among them.
SMALL = dict(
    embed_dims=8,
    depths=(2, 2, 2, 1),
    num_heads=(1, 2, 2, 4),
    window_size=7,
    drop_path_rate=0.0,
)


def microsoft_shapes(num_classes: int | None = 5) -> dict[str, tuple[int, ...]]:
    """Lists the parameters of `SMALL` as in microsoft/Swin-Transformer.

    Written out by hand from the published files, not from this package.

    Args:
        num_classes: Of a classifier; None gives a backbone with a norm for each output.
    """
    shapes = {
        "patch_embed.proj.weight": (8, 3, 4, 4),
        "patch_embed.proj.bias": (8,),
        "patch_embed.norm.weight": (8,),
        "patch_embed.norm.bias": (8,),
    }
    stages = ((8, 2, 1), (16, 2, 2), (32, 2, 2), (64, 1, 4))
    for i, (width, depth, heads) in enumerate(stages):
        for j in range(depth):
            block = f"layers.{i}.blocks.{j}"
            shapes |= {
                f"{block}.norm1.weight": (width,),
                f"{block}.norm1.bias": (width,),
                f"{block}.attn.relative_position_bias_table": (169, heads),
                f"{block}.attn.qkv.weight": (3 * width, width),
                f"{block}.attn.qkv.bias": (3 * width,),
                f"{block}.attn.proj.weight": (width, width),
                f"{block}.attn.proj.bias": (width,),
                f"{block}.norm2.weight": (width,),
                f"{block}.norm2.bias": (width,),
                f"{block}.mlp.fc1.weight": (4 * width, width),
                f"{block}.mlp.fc1.bias": (4 * width,),
                f"{block}.mlp.fc2.weight": (width, 4 * width),
                f"{block}.mlp.fc2.bias": (width,),
            }
        if i < 3:
            shapes |= {
                f"layers.{i}.downsample.reduction.weight": (2 * width, 4 * width),
                f"layers.{i}.downsample.norm.weight": (4 * width,),
                f"layers.{i}.downsample.norm.bias": (4 * width,),
            }
        if num_classes is None:
            shapes |= {f"norm{i}.weight": (width,), f"norm{i}.bias": (width,)}
    if num_classes is not None:
        shapes |= {"norm.weight": (64,), "norm.bias": (64,)}
        shapes |= {"head.weight": (num_classes, 64), "head.bias": (num_classes,)}
    return shapes


def microsoft_state(num_classes: int | None = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights of those shapes, and the buffers that Microsoft's files hold too."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        key: 0.1 * torch.randn(shape, generator=generator)
        for key, shape in microsoft_shapes(num_classes).items()
    }
    for i, depth in enumerate((2, 2, 2, 1)):
        for j in range(depth):
            block = f"layers.{i}.blocks.{j}"
            state[f"{block}.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.long)
            if j == 1:
                state[f"{block}.attn_mask"] = torch.zeros(4, 49, 49)
    return state


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Draws all parameters anew, so that no norm or bias is at its initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference, in units of the largest wanted value."""
    return ((found - wanted).abs().max() / wanted.abs().max()).item()
