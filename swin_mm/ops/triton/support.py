"""What the Triton kernels can run, and otherwise why not. Needs no Triton itself."""

import importlib.util
from functools import lru_cache

import torch

from swin_mm.ops.setting import Setting

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MAX_HEAD_DIM = 64
MAX_CHANNELS = 4096  # a row is held in the registers of one program
MIN_CAPABILITY = (8, 0)  # the first with bfloat16 and asynchronous copies


def why_not_attention(setting: Setting, head_dim: int, dropout: float) -> str | None:
    """Why the attention kernels cannot run in the setting of `qkv`; `None` where they can."""
    if reason := _why_not_here(setting):
        return reason
    if head_dim > MAX_HEAD_DIM:
        return f"they take heads of up to {MAX_HEAD_DIM} channels, got {head_dim}"
    if dropout > 0:
        return f"they have no dropout of attention weights, got {dropout}"
    return None


def why_not_rows(setting: Setting, channels: int) -> str | None:
    """Why the kernels that go by rows cannot run; `None` where they can.

    `channels` is the width of a row that is normalised.
    """
    if setting.graph == "compile":
        return "compiled code has its own fusion"
    if reason := _why_not_here(setting):
        return reason
    if channels > MAX_CHANNELS:
        return f"they take rows of up to {MAX_CHANNELS} channels, got {channels}"
    return None


def _why_not_here(setting: Setting) -> str | None:
    if reason := _why_not_machine(setting.device):
        return reason
    if setting.device.type != "cuda" and not _is_interpreted():
        return f"they run on CUDA, the tensors are on {setting.device}"
    if setting.graph in ("export", "trace"):
        return "an exported graph must run without Triton"
    if setting.is_transformed:
        return "they cannot be transformed by torch.func, as by vmap, nor differentiated forward"
    if not setting.is_exact_tensor:
        return "a tensor is of a subclass"
    if setting.dtype not in DTYPES:
        return f"they take {', '.join(str(known) for known in DTYPES)}, got {setting.dtype}"
    return None


def _is_interpreted() -> bool:
    from swin_mm.ops.triton.tile import IS_INTERPRETED  # imports Triton

    return IS_INTERPRETED


@torch.compiler.assume_constant_result  # it asks the driver, which no graph can hold
def _why_not_machine(device: torch.device) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if device.type != "cuda":
        return None
    if torch.version.hip is not None:
        return "the kernels are written for CUDA, this is ROCm"
    try:
        found = torch.cuda.get_device_capability(device)
    except (RuntimeError, AssertionError) as error:  # by PyTorch without a GPU, or without CUDA
        return f"{device} cannot be used: {error}"
    if found < MIN_CAPABILITY:
        return "they need compute capability {}.{}, {} has {}.{}".format(
            *MIN_CAPABILITY, device, *found
        )
    return None


def refuse_second_gradient() -> None:
    """Raises in a backward pass whose gradients are to be differentiated again."""
    if torch.is_grad_enabled():  # by create_graph=True
        raise RuntimeError(
            "gradients of Triton kernels cannot be differentiated again: build the backbone with "
            "attn_backend='reference' for create_graph=True"
        )


@lru_cache
def count_processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; 1 in the interpreter."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count
