"""Compiles the parts of a model that take images of every size without Python in between."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner

from swin_mm.registry import HOOKS


@HOOKS.register_module()
class CompileHook(Hook):
    """Runs backbone and neck through `torch.compile`, with one graph for all image sizes.

    Names of weights stay, so that checkpoints do. The first step takes a minute or two more; heads
    are not compiled, since their shapes change with the objects of each image.

    Args:
        parts: Names of the model's parts to compile; those that a model lacks are passed over.
        dynamic: As of `torch.compile`.
        **options: Others of `torch.compile`, such as `mode` and `backend`.
    """

    def __init__(
        self,
        parts: tuple[str, ...] = ("backbone", "neck"),
        dynamic: bool | None = True,
        **options: Any,
    ) -> None:
        self.parts, self.options = parts, dict(options, dynamic=dynamic)

    def before_run(self, runner: Runner) -> None:
        """Compiles at the first call; this only asks for it.

        Raises:
            ValueError: The model has none of the parts.
        """
        model: Any = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        parts = [name for name in self.parts if getattr(model, name, None) is not None]
        if not parts:
            raise ValueError(
                f"CompileHook: {type(model).__name__} has none of the parts {list(self.parts)}; "
                "name some of its own in parts"
            )
        for name in parts:
            getattr(model, name).compile(**self.options)
        runner.logger.info(f"{' and '.join(parts)} will be compiled at the first step.")
