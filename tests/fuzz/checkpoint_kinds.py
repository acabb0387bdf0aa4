"""Real checkpoints of several kinds, small ones, for `fuzz_checkpoints.py`."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OneCycleLR
from safetensors.torch import save_file
from torch import nn

from swin_mm import SwinTransformer
from swin_mm.checkpoint.layouts import HUGGINGFACE, MMDET, TIMM

TINY = dict(embed_dims=4, depths=(1, 1), num_heads=(1, 2), window_size=2, out_indices=(0, 1))
INDEX = "model.safetensors.index.json"


def tiny_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = SwinTransformer(**TINY)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return {key: value.detach() for key, value in model.state_dict().items()}


def make_run() -> dict:
    """A checkpoint as mmengine's runner writes it."""
    hub = MessageHub("fuzz_checkpoints")
    for step in range(5):
        hub.update_scalar("train/loss", 1 / (1 + step))
    hub.update_info_dict({"epoch": 1, "cfg": "lr = 0.1", "best": np.float64(0.5)})
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    schedule = OneCycleLR(optimizer, eta_max=0.1, total_steps=10)
    state = {f"backbone.{key}": value for key, value in MMDET.from_own(tiny_state()).items()}
    return {
        "meta": {"epoch": 1, "iter": 5, "seed": 7, "cfg": "lr = 0.1", "experiment_name": "a"},
        "state_dict": state,
        "message_hub": hub.state_dict(),
        "optimizer": optimizer.state_dict(),
        "param_schedulers": [schedule.state_dict()],
    }


def write_sharded(folder: Path) -> Path:
    state = TIMM.from_own(tiny_state())
    half = len(state) // 2
    parts = {"a.safetensors": list(state)[:half], "b.safetensors": list(state)[half:]}
    for name, keys in parts.items():
        save_file({key: state[key].contiguous() for key in keys}, folder / name)
    places = {key: name for name, keys in parts.items() for key in keys}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder / INDEX


def write_pickle(folder: Path) -> Path:
    model = {f"backbone.{key}": value.numpy() for key, value in tiny_state().items()}
    content = {"model": model, "__author__": "third_party", "matching_heuristics": True}
    (folder / "model.pkl").write_bytes(pickle.dumps(content, protocol=2))
    return folder / "model.pkl"


def torch_kind(make: Callable[[], dict], zipped: bool = True) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.save(make(), folder / "model.pth", _use_new_zipfile_serialization=zipped)
        return folder / "model.pth"

    return write


def write_safetensors(folder: Path) -> Path:
    save_file({key: value.contiguous() for key, value in tiny_state().items()}, folder / "model")
    return folder / "model"


# What writes a checkpoint into a folder, and returns the file to open.
KINDS: dict[str, Callable[[Path], Path]] = {
    "run": torch_kind(make_run),
    "run-legacy": torch_kind(make_run, zipped=False),
    "plain": torch_kind(tiny_state),
    "timm": torch_kind(lambda: TIMM.from_own(tiny_state())),
    "huggingface": torch_kind(lambda: HUGGINGFACE.from_own(tiny_state())),
    "legacy": torch_kind(lambda: {"model": tiny_state()}, zipped=False),
    "safetensors": write_safetensors,
    "sharded": write_sharded,
    "detectron2": write_pickle,
}
