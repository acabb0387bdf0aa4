"""Where a measurement was taken: device, versions, commit."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import swin_mm

PACKAGES = (
    "torch",
    "triton",
    "torchvision",
    "mmengine",
    "mmcv-lite",
    "mmdet",
    "mmsegmentation",
    "timm",
    "transformers",
)
# What decides a CPU's speed in matrix products.
INSTRUCTIONS = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "amx_int8")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Device, threads, versions and commit, as JSON has them."""
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "float32 matmul": torch.get_float32_matmul_precision(),
        "python": platform.python_version(),
        "swin_mm": swin_mm.__version__,
        "commit": find_commit(Path(swin_mm.__file__).parent),
        "versions": {d.name: d.version for d in metadata.distributions() if d.name in PACKAGES},
    }


def device_name(device: torch.device) -> str:
    """Name of a GPU, or of the CPU with its vector and matrix instructions."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    names = [name for name in INSTRUCTIONS if found.get(name)]
    name = found.get("cpu_name") or platform.processor() or platform.machine()
    return f"{name} ({' '.join(names)})" if names else name


def find_commit(folder: Path) -> str | None:
    """The commit of the checkout that holds a folder, with `-dirty` after local changes.

    `None` if there is no checkout or no git.
    """
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
