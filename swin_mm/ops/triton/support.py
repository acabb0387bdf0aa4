"""What the Triton kernels cannot take, and why. Needs no Triton itself."""

import importlib.util

import torch

from swin_mm.ops.transforms import is_plain, is_transformed

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MAX_HEAD_DIM = 64
MAX_CHANNELS = 4096  # a row is held in the registers of one program
MIN_CAPABILITY = (8, 0)  # the first with bfloat16 and asynchronous copies


def refusal(device: torch.device, dtype: torch.dtype, head_dim: int, dropout: float) -> str | None:
    """Tells why the kernels cannot run, or `None` where they can.

    Args:
        device: Where the tensors are.
        dtype: Of query, key and value.
        head_dim: Channels of a head.
        dropout: Probability of dropping an attention weight.
    """
    reason = _machine_refusal(device)
    if reason is not None:
        return reason
    if dtype not in DTYPES:
        return f"it takes {', '.join(str(known) for known in DTYPES)}, got {dtype}"
    if head_dim > MAX_HEAD_DIM:
        return f"it takes heads of up to {MAX_HEAD_DIM} channels, got {head_dim}"
    if dropout > 0:
        return f"it has no dropout of attention weights, got {dropout}"
    return _transform_refusal()


def row_refusal(channels: int, *tensors: torch.Tensor) -> str | None:
    """Tells why the kernels that go by rows cannot run, or `None` where they can.

    Args:
        channels: Width of a row that is normalised.
        tensors: Inputs, at least one.
    """
    device = tensors[0].device
    reason = _machine_refusal(device)
    if reason is not None:
        return reason
    if device.type != "cuda" and not _is_interpreted():
        return f"they run on CUDA, the tensors are on {device}"
    if torch.compiler.is_compiling():
        return "compiled code has its own fusion"
    for tensor in tensors:
        if not is_plain(tensor):
            return f"a tensor is of a class of its own, {type(tensor).__name__}"
        if tensor.dtype not in DTYPES:
            return f"they take {', '.join(str(known) for known in DTYPES)}, got {tensor.dtype}"
        if tensor.device != device:
            return f"tensors are on {device} and {tensor.device}"
    if channels > MAX_CHANNELS:
        return f"they take rows of up to {MAX_CHANNELS} channels, got {channels}"
    return _transform_refusal()


def _is_interpreted() -> bool:
    from swin_mm.ops.triton.launch import IS_INTERPRETED  # imports Triton

    return IS_INTERPRETED


def _transform_refusal() -> str | None:
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return "an exported graph must run without Triton"
    if is_transformed():
        return "it cannot be transformed by torch.func, as by vmap, nor differentiated forward"
    return None


@torch.compiler.assume_constant_result  # it asks the driver, which no graph can hold
def _machine_refusal(device: torch.device) -> str | None:
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
        return "it needs compute capability {}.{}, {} has {}.{}".format(
            *MIN_CAPABILITY, device, *found
        )
    return None
