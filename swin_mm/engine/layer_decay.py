"""Learning rates that fall from the head of a model to the first layer of its Swin backbone."""

import re
from typing import Any, cast

from torch import nn

from swin_mm.engine.param_groups import Group, MergedOptimWrapperConstructor
from swin_mm.models.backbones.base import SwinBackbone
from swin_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS

# Parts of names. Beside them biases and all other parameters of one dimension, such as norms.
NO_DECAY = ("absolute_pos_embed", "relative_position_bias_table", "cpb_mlp", "logit_scale")
BLOCK = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.")
MERGING = re.compile(r"layers\.(\d+)\.downsample\.")


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(MergedOptimWrapperConstructor):
    """Gives each layer of a Swin backbone, V1 or V2, `rate` times the learning rate of the next.

    Of a backbone with `n` blocks the patch embedding is layer 0, the blocks are 1 to `n`, patch
    merging belongs to the block before it, and the norms of the outputs are, with the rest of the
    model, layer `n + 1`, which has the learning rate of the optimizer; layer `i` has
    `rate ** (n + 1 - i)` times that. The backbone may be anywhere in the model. Biases, norms and
    what `NO_DECAY` names have no weight decay.

    Args:
        optim_wrapper_cfg: As in mmengine. The optimizer must have `lr`.
        paramwise_cfg: `layer_decay_rate`, above 0 and at most 1, such as 0.9; and anything that
            mmengine's own constructor knows, whose factors of the rate multiply with ours.

    Raises:
        ValueError: `layer_decay_rate` or `lr` is missing or out of range, or the model has no Swin
            backbone of ours.

    Source:
        `get_swin_layer` and `get_finetune_param_groups` in `optimizer.py` of
        https://github.com/microsoft/SimMIM, with `no_weight_decay` and `no_weight_decay_keywords`
        of `models/swin_transformer.py` and `models/swin_transformer_v2.py` of
        https://github.com/microsoft/Swin-Transformer. One difference: `absolute_pos_embed` is in
        layer 0, as in timm; there it falls to the last layer, and no model they trained has one.

    Examples:
        optim_wrapper = dict(
            constructor='swin_mm.LayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(_delete_=True, layer_decay_rate=0.9))
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        paramwise_cfg = dict(paramwise_cfg or {})
        self.rate = paramwise_cfg.pop("layer_decay_rate", None)
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        if not (isinstance(self.rate, int | float) and 0 < self.rate <= 1):
            raise ValueError(
                "paramwise_cfg.layer_decay_rate must be above 0 and at most 1, such as 0.9, "
                f"got {self.rate}"
            )
        self.base_lr: float
        if self.base_lr is None:
            raise ValueError("layer-wise decay needs optim_wrapper.optimizer.lr, there is none")
        # Without any option mmengine would not ask for groups.
        self.paramwise_cfg = {"custom_keys": {}, **paramwise_cfg}

    def adjust_groups(self, groups: list[Group], model: nn.Module) -> None:
        """Gives each parameter the rate of its layer, and takes weight decay off some."""
        scales = self._scale_layers(model)
        names = {parameter: name for name, parameter in model.named_parameters()}
        for group in groups:
            (parameter,) = group["params"]
            name = names[parameter]
            group["lr"] = group.get("lr", self.base_lr) * scales.get(name, 1.0)
            if parameter.dim() == 1 or name.endswith(".bias") or any(k in name for k in NO_DECAY):
                group["weight_decay"] = 0.0

    def _scale_layers(self, model: nn.Module) -> dict[str, float]:
        """Gives the factor of every parameter of the backbones, by its name in the model."""
        scales = {}
        for prefix, backbone in model.named_modules():
            if isinstance(backbone, SwinBackbone):
                depths = [len(cast(Any, stage).blocks) for stage in backbone.layers]
                for name, _ in backbone.named_parameters():
                    exponent = sum(depths) + 1 - find_layer(name, depths)
                    scales[f"{prefix}.{name}" if prefix else name] = self.rate**exponent
        if not scales:
            raise ValueError(
                "layer-wise decay needs a backbone swin_mm.SwinTransformer or SwinTransformerV2, "
                f"and {type(model).__name__} has none"
            )
        return scales


def find_layer(name: str, depths: list[int]) -> int:
    """Gives the number of the layer that a parameter of a backbone belongs to.

    0 for the first layer, `sum(depths) + 1` for the norms of outputs.
    """
    if name.startswith(("patch_embed.", "absolute_pos_embed")):
        return 0
    if block := BLOCK.match(name):
        return sum(depths[: int(block[1])]) + int(block[2]) + 1
    if merging := MERGING.match(name):
        return sum(depths[: int(merging[1]) + 1])
    return sum(depths) + 1
