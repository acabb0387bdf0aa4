"""Checks that a checkpoint holds the whole model, and nothing NaN."""

import re
from functools import partial
from typing import Any, cast

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys
from torch.utils.hooks import RemovableHandle

from swin_mm.checkpoint import CheckpointError
from swin_mm.checkpoint.finite import check_finite
from swin_mm.checkpoint.load import origin_of
from swin_mm.checkpoint.report import list_names
from swin_mm.registry import HOOKS


@HOOKS.register_module()
class ExactWeightsHook(Hook):
    """For testing and resuming: a checkpoint must hold every weight of the model, in its shape.

    mmengine only logs what does not fit and goes on with weights drawn at random, which a test
    would report as the model's quality. Weights that the model does not have do no harm.
    """

    priority = "VERY_LOW"  # after hooks that exchange weights, such as those of averaged models

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compares shapes, and has absent weights noticed when the model is given the others."""
        if isinstance(runner._train_loop, BaseLoop) and not runner._resume:
            return  # weights to start from
        self.handle = watch_weights(runner.model, checkpoint)

    def _done(self, runner: Runner) -> None:
        if hasattr(self, "handle"):
            self.handle.remove()

    before_train = before_test = _done


def watch_weights(model: nn.Module, checkpoint: dict[str, Any]) -> RemovableHandle:
    """Compares the shapes of a checkpoint's weights, and has the model raise where it lacks any.

    Wrappers of the model are looked through. What is returned removes that check again, once the
    model has its weights.

    Raises:
        CheckpointError: A weight has another shape in the checkpoint, is NaN or infinite.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = cast(nn.Module, model.module)
    state = checkpoint.get("state_dict", checkpoint)
    file = origin_of(state) or "the checkpoint"
    check_finite(state, file)
    _compare_shapes(model, state, file)
    return model.register_load_state_dict_post_hook(partial(_check_missing, file=file))


def _compare_shapes(model: nn.Module, state: dict[str, Any], file: str) -> None:
    # Backbones with a report convert and resize by themselves, and raise for what does not fit.
    converting = tuple(
        f"{name}." for name, module in model.named_modules() if hasattr(module, "load_report")
    )
    given = {re.sub(r"^module\.", "", key): value for key, value in state.items()}
    wrong = [
        f"{key} is {_shape(given[key])} there and {_shape(own)} in the model"
        for key, own in model.state_dict().items()
        if isinstance(given.get(key), Tensor) and isinstance(own, Tensor)
        if key in given and not key.startswith(converting) and given[key].shape != own.shape
    ]
    if wrong:
        more = f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"{file} is of another model: {wrong[0]}{more}; give the config it was trained with"
        )


def _check_missing(model: nn.Module, keys: _IncompatibleKeys, file: str) -> None:
    missing = [key for key in keys.missing_keys if not key.endswith("num_batches_tracked")]
    if missing:
        raise CheckpointError(
            f"{file} lacks {len(missing)} of the {len(model.state_dict())} weights of the "
            f"model ({list_names(missing)}): it is of another model or holds a part of one"
        )


def _shape(tensor: Any) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
