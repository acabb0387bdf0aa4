"""Stops training, or skips a step, where a loss or a gradient is NaN or infinite."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from swin_mm.engine.deferred_log import DeviceNumber
from swin_mm.engine.runner_parts import bare_model, gather_tensor, optim_wrappers
from swin_mm.registry import HOOKS

MAX_FILES = 16  # named in a message


class NonFiniteLossError(RuntimeError):
    """A loss or gradient is NaN or infinite; the message names the images of the step."""


@dataclass
class _Pending:
    """Whether the gradients of a step are not finite, as soon as the device has computed it."""

    step: int
    files: list[str]
    is_bad: DeviceNumber


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Keeps losses and gradients that are not finite out of the weights, and names the images.

    Losses are looked at as the model returns them, before a loss scale is applied. Whether they are
    finite is computed on the device, copied while the backward pass is being queued, and read
    before the optimizer's step, when all that is waited for is the forward pass.

    Gradients are checked by their norm, which clipping computes anyway. A fused optimizer gets the
    result as a flag on the device, as from a loss scaler, and changes nothing where the flag is
    set. The CPU reads the flag a step later, so that nothing waits for the backward pass. Other
    optimizers wait.

    Float16's loss scaler skips steps while it searches for its scale: only the scaled gradients are
    infinite there. Such steps do not count, until the scale falls below 1.

    Args:
        action: `stop` raises, with the weights as they were before the step. `skip` leaves out the
            optimizer's step, in every process, and goes on; with accumulated gradients the whole
            step is left out. Losses that are not finite are not logged.

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
        self.pending: _Pending | None = None
        self._start_step()

    def _start_step(self) -> None:
        """Forgets the batches of the last step of the optimizer."""
        self.files: list[str] = []
        self.checks: list[_Check] = []
        self.has_handled = False

    def before_train(self, runner: Runner) -> None:
        bare_model(runner).register_forward_hook(self._look)
        self.wrappers = optim_wrappers(runner)
        for wrapper in self.wrappers:
            wrapper.optimizer.register_step_pre_hook(partial(self._before_step, wrapper))
            wrapper.optimizer.register_step_post_hook(partial(self._after_step, wrapper))
        self.runner = runner

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self.files += _image_files(data_batch)

    def _look(self, model: nn.Module, inputs: tuple, losses: Any) -> None:
        """Notes whether the losses that a forward pass returned are finite."""
        if model.training and torch.is_grad_enabled() and isinstance(losses, dict):
            self.checks.append(_Check(losses))

    def _before_step(
        self, wrapper: OptimWrapper, optimizer: torch.optim.Optimizer, *_: Any
    ) -> None:
        """Runs before the weights change; without gradients an optimizer changes nothing."""
        self._read_pending()
        if self._handle():
            optimizer.zero_grad(set_to_none=True)
            return
        bad = _has_bad_gradients(wrapper)
        if bad is None or _has_loss_scale(wrapper):  # the loss scaler leaves out steps by itself
            return
        pending = _Pending(self.runner.iter + 1, self.files, DeviceNumber(bad))
        if _skips_on_device(optimizer):
            # Fused optimizers read both, which a loss scaler sets.
            vars(optimizer).update(found_inf=bad, grad_scale=None)
            self.pending = pending
        elif pending.is_bad.read():
            optimizer.zero_grad(set_to_none=True)
            self._report_gradients(pending)

    def _after_step(self, wrapper: OptimWrapper, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if hasattr(optimizer, "found_inf") and not _has_loss_scale(wrapper):
            del vars(optimizer)["found_inf"], vars(optimizer)["grad_scale"]

    def _read_pending(self) -> None:
        """Reports what was found on the device in the step before."""
        pending, self.pending = self.pending, None
        if pending is not None and pending.is_bad.read():
            self._report_gradients(pending)

    def _report_gradients(self, pending: _Pending) -> None:
        # Gradients are the mean of all processes', so that all are here together.
        files = [file for part in all_gather_object(pending.files) for file in part]
        found = f"gradients of {_list_files(files)}, whose losses are finite"
        self._report(f"non-finite gradients in step {pending.step}: {found}")

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
        # Where several processes leave out a step together, not all have seen why.
        found = next(filter(None, all_gather_object(self._describe())), None)
        self._report(f"non-finite loss in step {self.runner.iter + 1}: {found}")
        return True

    def _report(self, message: str) -> None:
        self.skipped += 1
        if self.action == "stop":
            last = getattr(self.runner, "message_hub", None)
            last = last and last.runtime_info.get("last_ckpt")
            saved = f", and the last good checkpoint is {last}" if last else ""
            raise NonFiniteLossError(
                f"{message}; the weights are as they were before{saved}. Look at these images and "
                "their annotations (check-dataset, browse-dataset); if they are sound, lower the "
                "learning rate, clip gradients or train in bfloat16"
            )
        self.runner.logger.warning(f"{message}; skipped, {self.skipped} so far")

    def _describe(self) -> str | None:
        """Names the losses of this process that are not finite, and the images."""
        names = [name for check in self.checks for name in check.list_bad()]
        if not names:
            return None
        return f"{', '.join(dict.fromkeys(names))} of {_list_files(self.files)}"

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        if self.checks and not self.checks[-1].is_finite and outputs:
            outputs.clear()  # means over many steps would be NaN as well
        if all(wrapper.should_update() for wrapper in self.wrappers):
            # A loss scaler that finds infinite gradients does not let the optimizer step, so this
            # is then the first to know.
            self._handle()
            for wrapper in self.wrappers:
                self._watch_loss_scale(wrapper)
            self._start_step()

    def _watch_loss_scale(self, wrapper: OptimWrapper) -> None:
        """Reports, a step later, that gradients stay infinite whatever the loss scale."""
        if not _has_loss_scale(wrapper):
            return
        self._read_pending()
        scaler = wrapper.loss_scaler
        is_bad = scaler._scale < min(1, scaler._init_scale)
        self.pending = _Pending(self.runner.iter + 1, self.files, DeviceNumber(is_bad))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if hasattr(self, "runner"):
            self._read_pending()

    def after_train(self, runner: Runner) -> None:
        self._read_pending()


def _list_files(files: list[str]) -> str:
    named = ", ".join(files[:MAX_FILES]) or "a batch that names no files"
    return named + (f" and {len(files) - MAX_FILES} more" if len(files) > MAX_FILES else "")


def _has_bad_gradients(wrapper: OptimWrapper) -> Tensor | None:
    """Computes on the device whether gradients are not finite: 1 or 0, None without gradients."""
    norm, wrapper.grad_norm = getattr(wrapper, "grad_norm", None), None
    if norm is None:
        groups = wrapper.optimizer.param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        if not gradients:
            return None
        norm = gather_tensor(torch.nn.utils.get_total_norm(gradients))
    return (~norm.detach().isfinite()).float().reshape(())


def _has_loss_scale(wrapper: OptimWrapper) -> bool:
    scaler = getattr(wrapper, "loss_scaler", None)
    return scaler is not None and scaler.is_enabled()


def _skips_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer skips a step where its `found_inf` is 1."""
    fused = all(group.get("fused") for group in optimizer.param_groups)
    # A first step that is skipped leaves fused SGD with momentum buffers that nothing has written.
    has_begun = bool(optimizer.state)
    return fused and has_begun and getattr(optimizer, "_step_supports_amp_scaling", False)


class _Check:
    """Whether the losses of one forward pass are finite."""

    def __init__(self, losses: dict[str, Any]) -> None:
        self.losses = {
            name: torch.stack([part.detach().float().sum() for part in _tensors(value)]).sum()
            for name, value in losses.items()
            if "loss" in name and _tensors(value)
        }
        sums = list(self.losses.values()) or [torch.zeros(())]
        finite = torch.stack(sums).isfinite().all()
        if get_world_size() > 1:
            # Gradients are averaged, so one process spoils those of all.
            finite = finite.float()
            all_reduce(finite, "min")
        self.finite = DeviceNumber(finite)

    @property
    def is_finite(self) -> bool:
        return bool(self.finite.read())

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
