"""What training and testing share: options, processes, checks before work starts, the runner."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from mmengine.config import Config

from swin_mm.cli.config import LOADERS, add_config_options, load_config
from swin_mm.configs import ConfigError, bare_type, find_scope, type_name

if TYPE_CHECKING:
    from mmengine.runner import Runner

    from swin_mm.datasets.check import DatasetSummary

# Types of mmengine for which ours, of the same name, takes the same arguments and does more.
REPLACED = (
    *("AmpOptimWrapper", "CheckpointHook", "OptimWrapper"),
    *("EpochBasedTrainLoop", "IterBasedTrainLoop"),
)
# How long processes wait for each other unless `env_cfg.dist_cfg.timeout` is set. For large data
# sets the first computes metrics for longer than the ten minutes that PyTorch allows with GPUs.
WAIT_SECONDS = 1800
# Hooks of our tools that a config made for others lacks.
OWN_HOOKS = {
    "start_table": "StartTableHook",
    "progress": "ProgressHook",
    "curves": "CurvesHook",
    "non_finite": "NonFiniteLossHook",
    "prediction_sheet": "PredictionSheetHook",
    "runtime_info": "RuntimeInfoHook",
    "resumed_schedules": "ResumedSchedulesHook",
}


def add_launch_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `train` and `test` have in common."""
    parser.add_argument(
        "--work-dir",
        metavar="DIR",
        help="folder for logs, checkpoints and results (work_dirs/NAME-OF-CONFIG)",
    )
    add_config_options(parser)
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="what started the processes; tools/dist_*.sh and tools/slurm_*.sh set it",
    )
    # Given by launchers older than torchrun, in one spelling or the other.
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)


def prepare_config(args: argparse.Namespace) -> Config:
    """Reads the config that a command line names and applies what it says.

    The config has `launcher` and `work_dir`. With a GPU, data loaders pin memory unless they say
    otherwise.
    """
    cfg = load_config(args.config, args.cfg_options)
    find_scope(cfg)
    cfg.launcher = args.launcher
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs", Path(args.config).stem))
    cfg.setdefault("default_hooks", {})
    if torch.cuda.is_available():  # elsewhere PyTorch warns of it
        for loader in (cfg.get(name) for name in LOADERS):
            if loader is not None:
                loader.setdefault("pin_memory", True)
    return cfg


def check_loops(cfg: Config) -> None:
    """Refuses a config that has a part of what a loop needs, which mmengine prints whole."""
    evaluated = [
        [f"{s}_{part}" for part in ("dataloader", "cfg", "evaluator")] for s in ("val", "test")
    ]
    for names in (["train_dataloader", "train_cfg", "optim_wrapper"], *evaluated):
        lacking = [name for name in names if cfg.get(name) is None]
        if lacking and len(lacking) < len(names) and "runner_type" not in cfg:
            raise ConfigError(
                f"{cfg.filename} has no {' and no '.join(lacking)}: {', '.join(names)} go together"
            )


def use_own_types(cfg: Config) -> list[str]:
    """Puts our types in the place of mmengine's and adds our hooks; returns their names."""
    hooks, train_cfg = cfg.default_hooks, cfg.get("train_cfg") or {}
    hooks.setdefault("checkpoint", dict(type="CheckpointHook"))
    if "type" not in train_cfg and "by_epoch" in train_cfg:
        kind = "Epoch" if train_cfg.pop("by_epoch") else "Iter"
        train_cfg["type"] = f"{kind}BasedTrainLoop"
    used = []
    for settings in (hooks.checkpoint, cfg.get("optim_wrapper"), train_cfg):
        if (name := type_name(settings)) in REPLACED:
            settings["type"] = f"swin_mm.{name}"
            used.append(name)
    custom = [bare_type(hook) for hook in cfg.get("custom_hooks") or []]
    is_sharded = bare_type(cfg.get("model_wrapper_cfg")) == "ShardedModel"
    own = {**OWN_HOOKS, "shard": "ShardHook"} if is_sharded else OWN_HOOKS
    for name, kind in own.items():
        if name not in hooks and kind not in custom:
            hooks[name] = dict(type=f"swin_mm.{kind}")
            used.append(kind)
        if hooks.get(name) is None:  # switched off, which mmengine knows of its own hooks alone
            hooks.pop(name, None)
    return used


def start_processes(cfg: Config) -> None:
    """Joins the processes of a distributed run, on GPUs or, with `gloo`, on CPUs.

    mmengine would do it later, and only with GPUs.
    """
    from mmengine.dist import init_dist, is_distributed
    from mmengine.utils.dl_utils import set_multi_processing

    if cfg.launcher == "none" or is_distributed():
        return
    if cfg.launcher == "pytorch" and "RANK" not in os.environ:
        raise ConfigError("--launcher pytorch is for torchrun: use tools/dist_train.sh")
    env_cfg = cfg.get("env_cfg", {})
    set_multi_processing(**env_cfg.get("mp_cfg", {}), distributed=True)
    dist_cfg = {"timeout": WAIT_SECONDS, **env_cfg.get("dist_cfg", {})}
    if torch.cuda.is_available():
        gpus, number = torch.cuda.device_count(), int(os.environ["LOCAL_RANK"])
        if cfg.launcher == "pytorch" and number >= gpus:
            raise ConfigError(f"this machine has {gpus} GPUs, too few for process {number + 1}")
        init_dist(cfg.launcher, **dist_cfg)
        return
    if cfg.launcher != "pytorch":
        raise ConfigError(f"--launcher {cfg.launcher} needs GPUs; on CPUs use tools/dist_train.sh")
    limit = timedelta(seconds=dist_cfg["timeout"])
    torch.distributed.init_process_group("gloo", timeout=limit)
    if bare_type(cfg.get("model_wrapper_cfg")) not in ("", "MMDistributedDataParallel"):
        return
    # By default mmengine names a GPU to the wrapper. The other two are its own defaults.
    wrapper = dict(
        type="MMDistributedDataParallel",
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get("find_unused_parameters", False),
    )
    wrapper.update(cfg.get("model_wrapper_cfg") or {})
    cfg.model_wrapper_cfg = wrapper


@contextmanager
def joined_processes(cfg: Config) -> Iterator[None]:
    """Joins the processes of a distributed run, watches them, and leaves them at the end.

    Raises:
        LostRankError: Another process has ended before this one was done, or cannot be reached.
    """
    from torch.distributed import DistError

    from swin_mm.engine.rank_watch import LostRankError, RankWatch

    try:
        start_processes(cfg)
    except DistError as error:
        address = ":".join(os.environ.get(f"MASTER_{part}", "?") for part in ("ADDR", "PORT"))
        reason = str(error).strip().partition("\n")[0]
        raise LostRankError(
            f"the processes of this run cannot meet at {address} ({reason}): one has ended, and "
            "its own output says why, or the address is wrong or in use; start the run again"
        ) from error
    with RankWatch():
        yield
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def check_checkpoint(path: str) -> str:
    """Checks that a checkpoint is there and whole; an address is not looked at.

    Returns:
        The path, or the address of published weights that are given by name.
    """
    from swin_mm.checkpoint import CheckpointError
    from swin_mm.checkpoint.published import resolve_weights
    from swin_mm.engine.checkpoint_files import find_damage

    path = resolve_weights(path)
    damage = None if "://" in path else find_damage(Path(path).expanduser())
    if damage is not None:
        raise CheckpointError(f"cannot load checkpoint {path}: {damage}")
    return path


def check_pretrained(cfg: Config) -> None:
    """As `check_checkpoint`, for the files in `init_cfg` of the model and of its parts."""
    parts = [cfg.get("model")]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if type_name(part) == "Pretrained" and part.get("checkpoint"):
                check_checkpoint(part["checkpoint"])
            parts += part.values()
        elif isinstance(part, list | tuple):
            parts += part


def build_runner(cfg: Config, data: "DatasetSummary | None" = None) -> "Runner":
    """Builds the runner; `data` is what the check found, for the table at the start."""
    from mmengine.registry import RUNNERS

    from swin_mm.compat.terminal import TerminalRunner, silence_packages
    from swin_mm.engine import StartTableHook

    silence_packages()
    used = use_own_types(cfg)
    runner = RUNNERS.build(cfg) if "runner_type" in cfg else TerminalRunner.from_cfg(cfg)
    if used:
        runner.logger.info(
            f"Uses these of swin_mm, which the config does not name: {', '.join(used)}"
        )
    for hook in runner.hooks:
        if isinstance(hook, StartTableHook):
            hook.data = data
    return runner
