"""What the Triton kernels cannot take, and why. Needs no Triton itself."""

import importlib.util

import torch

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MAX_HEAD_DIM = 64
MIN_CAPABILITY = (8, 0)  # the first with bfloat16 and asynchronous copies


def refusal(device: torch.device, dtype: torch.dtype, head_dim: int, dropout: float) -> str | None:
    """Tells why the kernels cannot run, or `None` where they can.

    Args:
        device: Where the tensors are.
        dtype: Of query, key and value.
        head_dim: Channels of a head.
        dropout: Probability of dropping an attention weight.
    """
    if not _has_triton():
        return "Triton is not installed"
    if device.type == "cuda" and torch.version.hip is not None:
        return "the kernels are written for CUDA, this is ROCm"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
        found, needed = torch.cuda.get_device_capability(device), MIN_CAPABILITY
        return "it needs compute capability {}.{}, {} has {}.{}".format(*needed, device, *found)
    if dtype not in DTYPES:
        return f"it takes {', '.join(str(known) for known in DTYPES)}, got {dtype}"
    if head_dim > MAX_HEAD_DIM:
        return f"it takes heads of up to {MAX_HEAD_DIM} channels, got {head_dim}"
    if dropout > 0:
        return f"it has no dropout of attention weights, got {dropout}"
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return "an exported graph must run without Triton"
    # No public function tells this; torch.autograd.Function asks the same one.
    if torch._C._are_functorch_transforms_active():
        return "it cannot be transformed by torch.func, as by vmap"
    return None


def _has_triton() -> bool:
    try:
        return importlib.util.find_spec("triton") is not None
    except ValueError:  # blocked by an entry without a spec in sys.modules
        return False
