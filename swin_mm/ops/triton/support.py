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
    reason = _machine_refusal(device)
    if reason is not None:
        return reason
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


@torch.compiler.assume_constant_result  # it asks the driver, which no graph can hold
def _machine_refusal(device: torch.device) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if device.type != "cuda":
        return None
    if torch.version.hip is not None:
        return "the kernels are written for CUDA, this is ROCm"
    found = torch.cuda.get_device_capability(device)
    if found < MIN_CAPABILITY:
        return "it needs compute capability {}.{}, {} has {}.{}".format(
            *MIN_CAPABILITY, device, *found
        )
    return None
