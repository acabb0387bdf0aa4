"""Saves divided models: in a folder that every process writes its part to, or in one file."""

import copy
import io
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmengine
import torch
import torch.distributed.checkpoint as dcp
from mmengine.dist import all_gather_object, barrier, is_main_process
from mmengine.runner import Runner, save_checkpoint
from torch import Tensor
from torch.distributed.tensor import DTensor

from swin_mm.checkpoint import CheckpointError, load_checkpoint_file
from swin_mm.checkpoint.files.sharded import INDEX
from swin_mm.engine.checkpoint_files import partial_folder, replace_folder, write_atomically
from swin_mm.engine.runner_parts import bare_model, gather_tensor

FILE_SUFFIX = ".pth"


def save_divided(
    runner: Runner,
    out_dir: str,
    filename: str,
    file_client_args: dict | None = None,
    save_optimizer: bool = True,
    save_param_scheduler: bool = True,
    meta: dict | None = None,
    by_epoch: bool = True,
    backend_args: dict | None = None,
) -> None:
    """Does what `Runner.save_checkpoint` does for whole models; all processes must call it.

    A name that ends in `.pth` is of a file, for which the first process gathers everything. Any
    other is of a folder; see `swin_mm.checkpoint.files.sharded`.
    """
    meta = {} if meta is None else meta
    meta.setdefault("epoch", runner.epoch + by_epoch)
    meta.setdefault("iter", runner.iter + (not by_epoch))
    checkpoint = {"meta": meta, **_collect_state(runner, save_optimizer, save_param_scheduler)}
    meta.update(
        cfg=runner.cfg.pretty_text,
        seed=runner.seed,
        experiment_name=runner.experiment_name,
        time=time.strftime("%Y%m%d_%H%M%S"),
        mmengine_version=mmengine.__version__,
    )
    if hasattr(runner.train_dataloader.dataset, "metainfo"):
        meta["dataset_meta"] = runner.train_dataloader.dataset.metainfo
    runner.call_hook("before_save_checkpoint", checkpoint=checkpoint)
    path = Path(out_dir, filename)
    if filename.endswith(FILE_SUFFIX):
        options = dict(file_client_args=file_client_args, backend_args=backend_args)
        _write_file(path, checkpoint, **options)
    else:
        write_folder(path, checkpoint)


def _collect_state(runner: Runner, with_optimizer: bool, with_schedules: bool) -> dict[str, Any]:
    state = {
        "state_dict": bare_model(runner).state_dict(),
        "message_hub": runner.message_hub.state_dict(),
    }
    if with_optimizer:
        state["optimizer"] = runner.optim_wrapper.state_dict()
    schedules = runner.param_schedulers
    if with_schedules and schedules is not None:
        is_dict = isinstance(schedules, dict)
        named = schedules.items() if is_dict else [("", schedules)]
        states = {name: [one.state_dict() for one in several] for name, several in named}
        state["param_schedulers"] = states if is_dict else states[""]
    return state


def _map_tensors(value: Any, function: Callable[[tuple, Tensor], Any], keys: tuple = ()) -> Any:
    """A copy of dicts and lists, where a function of keys and tensor gives what tensors become."""
    if isinstance(value, Tensor):
        return function(keys, value)
    if type(value) in (dict, OrderedDict):
        copied = copy.copy(value)
        for key, item in value.items():
            copied[key] = _map_tensors(item, function, (*keys, key))
        return copied
    if isinstance(value, list):
        return [_map_tensors(item, function, (*keys, i)) for i, item in enumerate(value)]
    return value


def _write_file(path: Path, checkpoint: dict[str, Any], **options: Any) -> None:
    is_first = is_main_process()

    def gather(_: tuple, value: Tensor) -> Tensor | None:
        whole = gather_tensor(value)
        return whole.cpu() if is_first else None

    whole = _map_tensors(checkpoint, gather)
    if is_first:
        save_checkpoint(whole, str(path), **options)
    barrier()


def write_folder(path: Path, checkpoint: dict[str, Any]) -> None:
    """Writes a checkpoint in a folder, which has its name when it is whole.

    What is there is replaced. A checkpoint is made of dicts and lists of anything. All but divided
    tensors is the first process's.

    Raises:
        CheckpointError: The processes do not write to one folder.
    """
    divided: dict[tuple, DTensor] = {}

    def take(keys: tuple, value: Tensor) -> Tensor | None:
        if not isinstance(value, DTensor):
            return value.cpu()
        divided[keys] = value
        return None

    rest = _map_tensors(checkpoint, take)
    partial = partial_folder(path)
    if is_main_process():
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    barrier()
    names = {".".join(map(str, keys)): keys for keys in divided}
    metadata = dcp.save({n: divided[k] for n, k in names.items()}, checkpoint_id=partial)
    parts: dict[tuple, list[tuple]] = {keys: [] for keys in divided}
    for index, place in metadata.storage_data.items():
        part = (tuple(index.offset), place.relative_path, place.offset, place.length)
        parts[names[index.fqn]].append(part)
    files = {part[1] for found in parts.values() for part in found}
    absent = sorted(name for name in files if not (partial / name).is_file())
    if absent := all_gather_object(absent)[0]:
        raise CheckpointError(
            f"{path} is not whole for the first process: {', '.join(absent)} were written to other "
            "disks. A folder of all processes needs a shared disk; with default_hooks.checkpoint."
            "whole_files=True the first process writes everything in one file"
        )
    if is_main_process():
        # Plain tuples: a file has no classes of ours. They are those of `Divided` and `Part`.
        found = [(keys, tuple(divided[keys].shape), parts[keys]) for keys in divided]
        with open(partial / INDEX, "wb") as file:
            torch.save({"checkpoint": rest, "divided": found}, file)
            file.flush()
            os.fsync(file.fileno())
        replace_folder(partial, path)
    barrier()


def make_file(folder: str | Path, path: str | Path) -> None:
    """Writes the checkpoint of a folder as one file, which any tool for PyTorch loads.

    Raises:
        CheckpointError: The folder holds no whole checkpoint.
    """
    checkpoint = load_checkpoint_file(folder)
    known = checkpoint.get("message_hub", {}).get("runtime_info", {})
    if "last_ckpt" in known:
        known["last_ckpt"] = str(path)
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    write_atomically(path, buffer.getvalue())
