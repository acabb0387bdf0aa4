"""Compares a backbone before and after conversion in the libraries that the layouts belong to."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from math import isqrt
from typing import Any

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

import swin_mm
from swin_mm.checkpoint import CheckpointError
from swin_mm.checkpoint.find import Backbone
from swin_mm.checkpoint.layouts import Layout, State

# Largest difference that rounding in float32 explains, in units of a map's largest value.
TOLERANCE = 1e-5
# Window to run V2 with where the file does not record it: both libraries get the same.
ANY_WINDOW = 8

# Arguments of the classes of mmdet and of swin_mm.
SHARED = (
    *("in_channels", "embed_dims", "patch_size", "window_size"),
    *("mlp_ratio", "depths", "num_heads", "qkv_bias", "patch_norm"),
    *("use_abs_pos_embed", "pretrain_img_size"),
)
# Those of the others, by our names.
TIMM = {
    **{name: name for name in ("patch_size", "depths", "num_heads", "window_size")},
    **{name: name for name in ("mlp_ratio", "qkv_bias")},
    **{"in_channels": "in_chans", "embed_dims": "embed_dim", "pretrain_img_size": "img_size"},
}
TRANSFORMERS = TIMM | {
    **{"in_channels": "num_channels", "pretrain_img_size": "image_size"},
    "use_abs_pos_embed": "use_absolute_embeddings",
}

Built = tuple[nn.Module, Sequence[nn.Module]]  # with its weights, and the last block of each stage


def verify(source: Backbone, converted: State, target: Layout) -> str:
    """Runs the models of both layouts' libraries on one random image and compares their stages.

    Returns:
        What was compared and the largest difference, in one line.

    Raises:
        CheckpointError: The difference is more than rounding explains, or a library cannot load the
            weights.
    """
    arguments = source.read_variant()
    if arguments["version"] == 2:
        arguments.setdefault("window_size", (ANY_WINDOW, ANY_WINDOW))
    for name in ("window_size", "patch_size"):
        if len(set(arguments.get(name, "unknown"))) != 1:
            raise CheckpointError(f"--verify is for square windows and patches, {name} is not")
        arguments[name] = arguments[name][0]
    num_stages, window = len(arguments["depths"]), arguments["window_size"]
    # A map with several windows on a side is shifted by all libraries, and one that the windows
    # divide is padded by none; on others they differ by design.
    patches = 2 * window * 2 ** (num_stages - 1)
    if arguments["use_abs_pos_embed"]:
        patches = isqrt(source.state["absolute_pos_embed"].shape[1])
    side = patches * arguments["patch_size"]
    arguments["pretrain_img_size"] = side
    generator = torch.Generator().manual_seed(0)
    image = torch.randn((1, arguments["in_channels"], side, side), generator=generator)
    before, wanted = _run(source.layout, arguments, source.source, image)
    after, found = _run(target, arguments, converted, image)
    errors = [
        (wanted[i] - found[i]).abs().max() / wanted[i].abs().max()
        for i in range(num_stages)
        if patches // 2**i > window
    ]
    error = torch.stack(errors).max().item()
    summary = f"{before} and {after} differ by {error:.1e} of the largest value of a stage"
    if not error <= TOLERANCE:  # also if it is not a number
        raise CheckpointError(f"{summary}, more than the {TOLERANCE:.0e} of rounding")
    return summary


def _run(
    layout: Layout, arguments: Mapping[str, Any], state: State, image: Tensor
) -> tuple[str, list[Tensor]]:
    """Gives the name of the library that ran, and the output of each stage as `(B, L, C)`."""
    package, build = LIBRARIES.get(layout.name, ("swin_mm", _build_own))
    name = package
    if find_spec(package) is None:
        name, build = f"swin_mm ({package} is not installed)", _build_own
    state = {
        key: value.float() if value.is_floating_point() else value for key, value in state.items()
    }
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel("WARNING")  # each model logs what it loads
    try:
        model, last_blocks = build(arguments, state)
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{package} cannot load the weights: {error}") from error
    finally:
        logger.setLevel(level)
    maps = []
    for block in last_blocks:
        block.register_forward_hook(lambda module, inputs, output: maps.append(output))
    model.train(False)  # mmdet's eval() does not return the model
    with torch.no_grad():
        model(image)
    maps = [output[0] if isinstance(output, tuple) else output for output in maps]
    return name, [output.flatten(1, -2) for output in maps]


# Each builds the class of one library and loads weights, not strictly: classification's norm and
# head are not there, and any other parameter that stays as it was shows in the comparison.


def _build_own(arguments: Mapping[str, Any], state: State) -> Built:
    kind = swin_mm.SwinTransformer if arguments["version"] == 1 else swin_mm.SwinTransformerV2
    model = kind(
        **{name: arguments[name] for name in SHARED},
        strides=(arguments["patch_size"], 2, 2, 2),
        out_indices=(len(arguments["depths"]) - 1,),
    )
    model.load_state_dict(state)
    return model, [stage.blocks[-1] for stage in model.layers]


def _build_mmdet(arguments: Mapping[str, Any], state: State) -> Built:
    from mmdet.models.backbones.swin import SwinTransformer

    settings = {name: arguments[name] for name in SHARED}
    settings["mlp_ratio"] = int(settings["mlp_ratio"])  # it takes no others
    settings["strides"] = (arguments["patch_size"], 2, 2, 2)
    model = SwinTransformer(**settings, out_indices=range(len(arguments["depths"])))
    model.load_state_dict(state, strict=False)
    return model, [stage.blocks[-1] for stage in model.stages]


def _build_timm(arguments: Mapping[str, Any], state: State) -> Built:
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    kind: Any = SwinTransformer if arguments["version"] == 1 else SwinTransformerV2
    model = kind(**{theirs: arguments[ours] for ours, theirs in TIMM.items()})
    model.load_state_dict(state, strict=False)
    return model, [stage.blocks[-1] for stage in model.layers]


def _build_torchvision(arguments: Mapping[str, Any], state: State) -> Built:
    from torchvision.models import swin_transformer as swin

    kinds = {}
    if arguments["version"] == 2:
        kinds = dict(block=swin.SwinTransformerBlockV2, downsample_layer=swin.PatchMergingV2)
    model = swin.SwinTransformer(
        [arguments["patch_size"]] * 2,
        arguments["embed_dims"],
        list(arguments["depths"]),
        list(arguments["num_heads"]),
        [arguments["window_size"]] * 2,
        arguments["mlp_ratio"],
        **kinds,
    )
    model.load_state_dict(state, strict=False)
    # Patch embedding, then stages and mergings in turn.
    return model, [stage[-1] for stage in model.features[1::2]]


def _build_transformers(arguments: Mapping[str, Any], state: State) -> Built:
    import transformers

    name = "Swin" if arguments["version"] == 1 else "Swinv2"
    given = {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()}
    settings = {theirs: given[ours] for ours, theirs in TRANSFORMERS.items()}
    config = getattr(transformers, f"{name}Config")(**settings)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    # Names in its files are others than in its models, and only this function knows both.
    kind = getattr(transformers, f"{name}Model")
    model = kind.from_pretrained(None, config=config, state_dict=state)
    return model, [stage.blocks[-1] for stage in model.encoder.layers]


# Names of layouts -> the package of their library and how it is built; others are swin_mm's own.
LIBRARIES: dict[str, tuple[str, Callable[[Mapping[str, Any], State], Built]]] = {
    "mmdet": ("mmdet", _build_mmdet),
    "timm": ("timm", _build_timm),
    "torchvision": ("torchvision", _build_torchvision),
    "Hugging Face": ("transformers", _build_transformers),
}
