"""The table that a run begins with: what is about to happen, in one look."""

import math
import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from shutil import get_terminal_size
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.distributed.fsdp import FSDPModule

from swin_mm.console import PlainConsole, make_table
from swin_mm.datasets.check import DatasetSummary, check_config
from swin_mm.engine.runner_parts import bare_model, optim_wrappers, own_part
from swin_mm.engine.sharding import ShardedModel
from swin_mm.registry import HOOKS
from swin_mm.version import __version__

PACKAGES = ("torch", "mmengine", "mmcv", "mmcv-lite", "mmdet", "mmsegmentation")
MAX_WIDTH = 80  # columns, also in the log file

Rows = Sequence[tuple[str, str]]


@HOOKS.register_module()
class StartTableHook(Hook):
    """Logs one table before training or testing starts.

    Attributes:
        data: What `check_config` found. A tool that has checked the data sets it; otherwise the
            hook checks, so that faults of the data show before training under any tool.
    """

    priority = "VERY_LOW"  # the other hooks have resumed what they resume

    def __init__(self) -> None:
        self.data: DatasetSummary | None = None

    def before_train(self, runner: Runner) -> None:
        wrappers = optim_wrappers(runner)
        step = [
            ("precision", _describe_precision(wrappers[0])),
            ("batch", _describe_batch(runner)),
            *_describe_sharding(runner.model),
            *(("learning rate", _describe_optimizer(runner, w.optimizer)) for w in wrappers),
        ]
        data = self.data or check_config(runner.cfg)
        self._log("training", runner, data, step, [("schedule", _describe_schedule(runner))])

    def before_test(self, runner: Runner) -> None:
        self._log("testing", runner, self.data or check_config(runner.cfg, splits=("test",)))

    def _log(
        self, title: str, runner: Runner, data: DatasetSummary, step: Rows = (), end: Rows = ()
    ) -> None:
        model, start = _describe_model(bare_model(runner)), _describe_start(runner)
        rows = [*_describe_machine(), *step, *model, *start, *data.rows(), *end]
        runner.logger.info(_draw(title, [*rows, ("work folder", runner.work_dir)]))


def _describe_machine() -> Rows:
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
        device += f", {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB"
    else:
        device = f"CPU, {torch.get_num_threads()} of {os.cpu_count()} threads"
    if get_world_size() > 1:
        device = f"{get_world_size()} processes, each on {device}"
    installed = [f"swin_mm {__version__}"]
    for package in PACKAGES:
        try:
            installed.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return [("device", device), ("software", ", ".join(installed))]


def _describe_precision(optim_wrapper: Any) -> str:
    if not hasattr(optim_wrapper, "loss_scaler"):
        return "float32"
    # mmengine's wrapper takes float16 where nothing is said.
    dtype = getattr(optim_wrapper, "compute_dtype", optim_wrapper.cast_dtype or torch.float16)
    name = str(dtype).removeprefix("torch.")
    if dtype == torch.float32:
        return "float32 (mixed precision was asked for, and needs a GPU)"
    return f"{name} where it is safe, float32 elsewhere"


def _batch_factors(runner: Runner) -> tuple[int, int, int]:
    """Images of a process in a step, processes, accumulated steps."""
    per_process = runner.train_dataloader.batch_size
    if per_process is None:  # a batch sampler of the user's own
        per_process = runner.train_dataloader.batch_sampler.batch_size
    return per_process, get_world_size(), optim_wrappers(runner)[0]._accumulative_counts


def _describe_batch(runner: Runner) -> str:
    per_process, world, steps = _batch_factors(runner)
    factors = [f"{per_process} images"]
    factors += [f"{world} processes"] if world > 1 else []
    factors += [f"{steps} accumulated steps"] if steps > 1 else []
    total = per_process * world * steps
    return factors[0] if len(factors) == 1 else f"{total} = {' x '.join(factors)}"


def _describe_scaling(runner: Runner) -> str:
    """For how many images the learning rate is, if that is known."""
    scaling = runner.auto_scale_lr or {}
    base = scaling.get("base_batch_size")
    if base is None:
        return ""
    if scaling.get("enable"):
        return f", scaled from a batch of {base} images"
    if base != math.prod(_batch_factors(runner)):
        return f", made for a batch of {base}; --auto-scale-lr scales it"
    return f", scaled from {scaling['scaled_from']}" if "scaled_from" in scaling else ""


def _describe_optimizer(runner: Runner, optimizer: torch.optim.Optimizer) -> str:
    rates = sorted({group.get("initial_lr", group["lr"]) for group in optimizer.param_groups})
    text = f"{rates[0]:g}" if len(rates) == 1 else f"{rates[0]:g} to {rates[-1]:g}"
    text += f" ({type(optimizer).__name__}"
    text += _describe_scaling(runner)
    decays = sorted({group.get("weight_decay", 0) for group in optimizer.param_groups})
    return f"{text}, weight decay {' and '.join(f'{decay:g}' for decay in decays)})"


def _describe_sharding(model: nn.Module) -> Rows:
    if not isinstance(model, ShardedModel):
        return []
    own = sum(own_part(parameter).numel() for parameter in model.parameters())
    text = f"among {model.group_size} processes, in {len(model.units)} units"
    return [("sharding", f"{text}; {own / 1e6:.2f} M parameters in this process")]


def _describe_model(model: nn.Module) -> Rows:
    parameters = list(model.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    # A divided one is of a class that is made of its own.
    kinds = [kind for kind in type(model).__mro__ if not issubclass(kind, FSDPModule)]
    text = kinds[0].__name__
    backbone = getattr(model, "backbone", None)
    if backbone is not None:
        text += f" on {type(backbone).__name__}"
    frozen = f", {(total - trained) / 1e6:.2f} M of them frozen" if trained < total else ""
    return [("model", f"{text}, {total / 1e6:.2f} M parameters{frozen}")]


def _describe_start(runner: Runner) -> Rows:
    """Which weights the model starts from."""
    rows = []
    if runner._resume and runner._has_loaded:
        rows.append(("resumed", f"after epoch {runner.epoch}, step {runner.iter}"))
    elif runner._load_from:
        rows.append(("loaded", str(runner._load_from)))
    for name, module in bare_model(runner).named_modules():
        if hasattr(module, "load_report"):
            report = module.load_report or f"{name}: initialised from scratch"
            rows.append(("weights", str(report)))
    return rows


def _describe_schedule(runner: Runner) -> str:
    loop = runner.train_loop
    if isinstance(loop, EpochBasedTrainLoop):
        text, unit = f"{loop.max_epochs} epochs of {len(loop.dataloader)} steps", "epoch"
    else:
        text, unit = f"{loop.max_iters} steps", "step"
    if runner.val_loop is None:
        return f"{text}, no validation"
    interval = runner.val_interval
    return f"{text}, validated every {f'{interval} {unit}s' if interval > 1 else unit}"


def _draw(title: str, rows: Rows) -> str:
    # Drawn to text, so that the log file has it too.
    width = min(MAX_WIDTH, get_terminal_size((MAX_WIDTH, 24)).columns)
    drawn = StringIO()
    console = PlainConsole(file=drawn, width=width)
    console.print(make_table(rows, title=title))
    return "\n" + "\n".join(line.rstrip() for line in drawn.getvalue().splitlines())
