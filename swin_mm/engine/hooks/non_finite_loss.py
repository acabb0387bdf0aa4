"""Stops training, or passes over a step, where a loss is NaN or infinite."""

from typing import Any, Literal

import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from swin_mm.registry import HOOKS

MAX_FILES = 16  # named in a message


class NonFiniteLossError(RuntimeError):
    """A loss is NaN or infinite; the message names the images it was computed on."""


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Keeps a loss that is not finite out of the weights, and names its images.

    Losses are looked at as the model returns them, before a loss scale is applied. So the steps
    that float16's loss scale passes over by itself, in search of the right scale, are none of this
    hook's: there the losses are finite and only scaled gradients are not.

    A GPU is not kept waiting: whether the losses are finite is computed there, copied while the
    backward pass is being queued, and read before the optimizer's step, when all that is waited
    for is the forward pass. Where nothing is wrong that is the whole cost, and under `skip` with
    several processes one number to reduce.

    Args:
        action: `stop` raises before the weights change. `skip` leaves out the optimizer's step, in
            every process, and goes on; with accumulated gradients the whole step is left out. Its
            losses are not logged.

    Raises:
        ValueError: `action` is neither.
        NonFiniteLossError: While training, with `stop`.
    """

    priority = "HIGHEST"  # what is left out of the log must be so before anything is logged

    def __init__(self, action: Literal["stop", "skip"] = "stop") -> None:
        if action not in ("stop", "skip"):
            raise ValueError(f"action must be 'stop' or 'skip', got {action!r}")
        self.action = action
        self.skipped = 0
        self._start_step()

    def _start_step(self) -> None:
        """Forgets the batches of the last step of the optimizer."""
        self.files: list[str] = []
        self.checks: list[_Check] = []
        self.has_handled = False

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.register_forward_hook(self._look)
        runner.optim_wrapper.optimizer.register_step_pre_hook(self._before_step)
        self.runner = runner

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self.files += _image_files(data_batch)

    def _look(self, model: nn.Module, inputs: tuple, losses: Any) -> None:
        """Notes whether the losses that a forward pass returned are finite."""
        if model.training and torch.is_grad_enabled() and isinstance(losses, dict):
            self.checks.append(_Check(losses, is_shared=self.action == "skip"))

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Runs before the weights change; without gradients an optimizer changes nothing."""
        if self._handle():
            optimizer.zero_grad(set_to_none=True)

    def _handle(self) -> bool:
        """Says whether a loss of this step is not finite, and reports it once.

        Raises:
            NonFiniteLossError: It is, and `action` is `stop`.
        """
        if all(check.is_finite for check in self.checks):
            return False
        if self.has_handled:
            return True
        self.has_handled = True
        self.skipped += 1
        found = self._describe()
        if self.action == "skip":
            # Where several processes leave out a step together, not all have seen why.
            found = next(filter(None, all_gather_object(found)), None)
        message = f"non-finite loss in step {self.runner.iter + 1}: {found}"
        if self.action == "stop":
            raise NonFiniteLossError(
                f"{message}; the weights are as they were before. Look at these images and their "
                "annotations (check_dataset, browse_dataset); if they are sound, lower the "
                "learning rate, clip gradients or train in bfloat16"
            )
        self.runner.logger.warning(f"{message}; skipped, {self.skipped} so far")
        return True

    def _describe(self) -> str | None:
        """Names the losses of this process that are not finite, and the images."""
        names = [name for check in self.checks for name in check.list_bad()]
        if not names:
            return None
        where = ", ".join(self.files[:MAX_FILES]) or "a batch that names no files"
        where += f" and {len(self.files) - MAX_FILES} more" if len(self.files) > MAX_FILES else ""
        return f"{', '.join(dict.fromkeys(names))} of {where}"

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        if self.checks and not self.checks[-1].is_finite and outputs:
            outputs.clear()  # means over many steps would be NaN as well
        if runner.optim_wrapper.should_update():
            # A loss scaler that finds infinite gradients does not let the optimizer step, so this
            # is then the first to know.
            self._handle()
            self._start_step()


class _Check:
    """Whether the losses of one forward pass are finite."""

    def __init__(self, losses: dict[str, Any], is_shared: bool) -> None:
        self.losses = {
            name: torch.stack([part.detach().float().sum() for part in _tensors(value)]).sum()
            for name, value in losses.items()
            if "loss" in name and _tensors(value)
        }
        sums = list(self.losses.values()) or [torch.zeros(())]
        finite = torch.stack(sums).isfinite().all()
        if is_shared:
            # Gradients are averaged, so one process spoils those of all.
            finite = finite.float()
            all_reduce(finite, "min")
            finite = finite.bool()
        self.finite = finite.to("cpu", non_blocking=True)
        self.copied = None
        if finite.is_cuda:
            self.copied = torch.cuda.Event()
            self.copied.record()

    @property
    def is_finite(self) -> bool:
        if self.copied is not None:
            self.copied.synchronize()
        return bool(self.finite)

    def list_bad(self) -> list[str]:
        return [name for name, value in self.losses.items() if not value.isfinite()]


def _tensors(value: Any) -> list[Tensor]:
    parts = value if isinstance(value, list | tuple) else [value]
    return [part for part in parts if isinstance(part, Tensor)]


def _image_files(batch: Any) -> list[str]:
    """Finds the image files of a batch, as mmdet's and mmseg's data samples name them."""
    samples = batch.get("data_samples") if isinstance(batch, dict) else None
    if isinstance(samples, dict):  # branches of semi-supervised training
        samples = [sample for branch in samples.values() for sample in branch]
    return [str(sample.img_path) for sample in samples or () if hasattr(sample, "img_path")]
