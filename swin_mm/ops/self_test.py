"""The self-test of Triton kernels on a device, at their first use there.

Kernels are checked in Triton's interpreter and by compilers, but not on every GPU that exists, and
what they compute wrongly may go unnoticed in a loss. So before `auto` uses them, they run on small
tensors made for that, beside the reference operators. Where they fail, those are used for the rest
of the process, and one warning says why. Kernels requested by name run without a self-test.
"""

import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import ModuleType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from swin_mm.ops import reference
from swin_mm.ops.reference import Branch, Norm
from swin_mm.ops.setting import self_test_results

logger = logging.getLogger("swin_mm")

NOT_TESTED = "not self-tested there, which cannot be done under a compiler or in a CUDA graph"
NO_MEMORY = "there was no memory for a self-test; the next use repeats it"
ATTENTION_HEADS = 2
# Programs go through several windows or tiles each, also on the largest GPUs.
ATTENTION_TOKENS = 12_000  # of all maps together
ROW_ELEMENTS = 2_000_000  # of a map
MLP_CHANNELS = 64  # around the hidden ones, which are all that kernels see
DROP_PATH_KEEP, EPS = 0.6, 1e-5

RowOperator = Literal["add_norm", "norm_add", "merge_norm", "mlp"]


class KernelKey(NamedTuple):
    """Which compiled code a self-test is about."""

    kernels: str  # what they compute, such as `window attention`
    fallback: str  # what is used where they fail, such as `SDPA`
    device: torch.device
    details: tuple[Hashable, ...] = ()  # what else decides which code runs, such as dtypes


# By key: why the kernels are not used, or `None` where they are. For the whole process.
_results: dict[KernelKey, str | None] = {}


def is_gpu(device: torch.device) -> bool:
    """Whether `auto` may use the kernels on a device; elsewhere there is only an interpreter."""
    return device.type == "cuda"


def why_not(key: KernelKey, run: Callable[[], str | None]) -> str | None:
    """Why kernels are not used, by a self-test at the first call; `None` where they are.

    A self-test has a thread of its own, without the caller's autocast, saved tensor hooks, dispatch
    modes and streams. It returns what is wrong, or `None`, and takes no random numbers from
    PyTorch's global generators.
    """
    if torch.compiler.is_compiling():
        return _recall(*key)
    if key not in _results:
        if key.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return NOT_TESTED
        start = time.perf_counter()
        with ThreadPoolExecutor(max_workers=1) as pool:
            try:
                result = pool.submit(_run, key, run).result()
            except torch.OutOfMemoryError:
                return NO_MEMORY
        logger.info(
            "Self-test of %s on %s (%s): %s in %.1f s",
            *(key.kernels, key.device, ", ".join(map(str, key.details))),
            "failed" if result else "passed",
            time.perf_counter() - start,
        )
        _record(key, result)
    return _in_words(key)


def _run(key: KernelKey, run: Callable[[], str | None]) -> str | None:
    with torch.cuda.device(key.device if key.device.type == "cuda" else -1):
        try:
            return run()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # compilers and drivers fail in many ways
            return _to_text(error)


def disable(key: KernelKey, error: Exception) -> None:
    """Stops using kernels that raise after their self-test."""
    _record(key, f"{_to_text(error)}, after it")


def _to_text(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


@torch.compiler.assume_constant_result  # no graph can ask a dictionary of devices and dtypes
def _recall(*key: Any) -> str | None:
    return _in_words(KernelKey(*key))


def _in_words(key: KernelKey) -> str | None:
    result = _results.get(key, "")
    if result == "":
        return NOT_TESTED
    return None if result is None else f"self-test failed: {result}"


def _record(key: KernelKey, result: str | None) -> None:
    """Stores a result, and warns of the first failure of some kernels on a device."""
    has_failed = any(k[:3] == key[:3] and found for k, found in _results.items())
    _results[key] = result
    self_test_results.append(key)
    if result is not None and not has_failed:
        logger.warning(
            "%s by %s on %s: the Triton kernels failed their self-test (%s). Results stay right, "
            "but training is slower. Please report this with the output of `swin-mm doctor`.",
            *key[:3],
            ": ".join([*filter(None, [", ".join(map(str, key.details))]), result]),
        )


def compare(
    tensors: Mapping[str, Tensor],
    kernels: Callable[[Mapping[str, Tensor]], Sequence[Tensor]],
    expected: Callable[[Mapping[str, Tensor]], Sequence[Tensor]],
) -> str | None:
    """What is wrong with values and gradients of kernels; `None` for nothing.

    Errors against the reference in float64 may be twice those of the reference in the dtypes at
    hand, plus one unit in the last place. Two runs must agree to the last bit. Gradients are those
    of the tensors that require one.
    """
    wide = {n: t.detach().double().requires_grad_(t.requires_grad) for n, t in tensors.items()}
    exact, stock = _differentiate(expected, wide), _differentiate(expected, tensors)
    found, again = (_differentiate(kernels, tensors) for _ in range(2))
    for name, value in found.items():
        if not torch.equal(value, again[name]) and not value.isnan().any():
            return f"two runs give different numbers: {name}"
        error, budget = ((t[name].double() - exact[name]).norm().item() for t in (found, stock))
        unit = exact[name].norm().item() * torch.finfo(value.dtype).eps
        if not error <= 2 * budget + unit:  # nor NaN
            return f"{name} has an error of {error:.2g}, the limit is {2 * budget + unit:.2g}"
    return None


def _draw(shape: Sequence[int], random: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Normally distributed numbers on the CPU, whose generators are the same everywhere."""
    return torch.randn(shape, generator=random, dtype=torch.float32, device="cpu").to(dtype)


def _differentiate(
    run: Callable[[Mapping[str, Tensor]], Sequence[Tensor]], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Outputs, and gradients in a direction of each."""
    outs = run(tensors)
    random = torch.Generator().manual_seed(1)
    # Of few bits, so that outputs of any dtype have the same.
    directions = [_draw(out.shape, random, torch.bfloat16).to(out) for out in outs]
    leaves = {f"gradient of {n}": t for n, t in tensors.items() if t.requires_grad}
    grads = torch.autograd.grad(outs, list(leaves.values()), directions)
    results = {f"output {number}": out for number, out in enumerate(outs)}
    return results | dict(zip(leaves, grads, strict=True))


def attention_key(
    device: torch.device, dtype: torch.dtype, window_size: tuple[int, int], head_dim: int
) -> KernelKey:
    """The attention kernels for query, key and value of a dtype, by window and head width.

    V1 and V2 differ in the factor on queries alone, and share their kernels.
    """
    details: tuple[Any, ...] = dtype, "window {}x{}".format(*window_size), f"heads of {head_dim}"
    if dtype == torch.float32:
        details += (f"products in {_product_precision()}",)
    return KernelKey("window attention", "SDPA", device, details)


@torch.compiler.assume_constant_result  # compilers cannot ask, and compile anew where it changes
def _product_precision() -> str:
    """How PyTorch multiplies float32 matrices on a GPU."""
    return torch.backends.cuda.matmul.fp32_precision


def why_not_attention(
    device: torch.device, dtype: torch.dtype, window_size: tuple[int, int], head_dim: int
) -> str | None:
    """Why the attention kernels are not used, by a self-test at the first call, or `None`."""
    key = attention_key(device, dtype, window_size, head_dim)
    return why_not(key, partial(_test_attention, device, dtype, window_size, head_dim))


def _test_attention(
    device: torch.device, dtype: torch.dtype, window_size: tuple[int, int], head_dim: int
) -> str | None:
    """Shifted windows of maps that they do not divide, with the scores of V1, then of V2."""
    from swin_mm.ops.triton.window_attention import window_attention  # imports Triton

    win_h, win_w = window_size
    height, width = 2 * win_h - 1, win_w + win_w // 2 + 1
    channels, tokens = ATTENTION_HEADS * head_dim, win_h * win_w
    batch = max(2, ATTENTION_TOKENS // (height * width))
    random = torch.Generator().manual_seed(0)
    shapes = {
        "query, key and value": (batch, height, width, 3 * channels),
        "position bias": (ATTENTION_HEADS, tokens, tokens),
        "padding": (3 * channels,),
    }
    tensors = {
        name: _draw(shape, random, dtype).to(device).requires_grad_()
        for name, shape in shapes.items()
    }
    # The second is larger than V2's 100, for queries of length 1.
    for scale in (head_dim**-0.5, 8.0):
        settings = dict(
            num_heads=ATTENTION_HEADS,
            window_size=window_size,
            shift_size=(win_h // 2, win_w // 2),
            scale=scale,
        )

        def run(
            attend: Callable[..., Tensor],
            tensors: Mapping[str, Tensor],
            settings: dict[str, Any] = settings,
        ) -> list[Tensor]:
            return [attend(*tensors.values(), **settings)]

        expected = partial(run, reference.window_attention)
        if reason := compare(tensors, partial(run, window_attention), expected):
            return reason
    return None


class RowKernel(NamedTuple):
    """A kernel between products of matrices and attention."""

    operator: RowOperator
    channels: int  # of its input; the hidden ones of an MLP
    device: torch.device
    dtype: torch.dtype  # of the map and of parameters
    linear_dtype: torch.dtype  # of what linear layers give and take

    def to_key(self) -> KernelKey:
        details = f"{self.channels} channels", self.dtype, self.linear_dtype
        return KernelKey(self.operator, "PyTorch's operators", self.device, details)


def why_not_rows(kernel: RowKernel) -> str | None:
    """Why a kernel is not used, by a self-test at the first call; `None` where it is."""
    return why_not(kernel.to_key(), partial(_test_rows, kernel))


def _test_rows(kernel: RowKernel) -> str | None:
    from swin_mm.ops.triton import operators  # imports Triton

    run = partial(_run_rows, kernel)
    return compare(_draw_rows(kernel), partial(run, operators), partial(run, reference))


def _draw_rows(kernel: RowKernel) -> dict[str, Tensor]:
    """Maps of 5x7 tokens, parameters, and the noise of stochastic depth."""
    channels, dtype, linear_dtype = kernel.channels, kernel.dtype, kernel.linear_dtype
    batch = max(2, ROW_ELEMENTS // (5 * 7 * channels))
    shape = batch, 5, 7, channels
    vector = (channels,), dtype
    kinds = {"x": (shape, dtype), "value": (shape, linear_dtype), "branch_bias": vector}
    width = channels
    if kernel.operator == "merge_norm":
        kinds, width = {"x": (shape, dtype)}, 4 * channels
    kinds |= {"weight": ((width,), dtype), "bias": ((width,), dtype)}
    if kernel.operator == "mlp":
        kinds = {
            "x": ((batch, 5, 7, MLP_CHANNELS), linear_dtype),
            "fc1_weight": ((channels, MLP_CHANNELS), dtype),
            "fc1_bias": vector,
            "fc2_weight": ((MLP_CHANNELS, channels), dtype),
        }
    random = torch.Generator().manual_seed(0)
    tensors = {
        name: _draw(shape, random, dtype).to(kernel.device).requires_grad_()
        for name, (shape, dtype) in kinds.items()
    }
    if kernel.operator in ("add_norm", "norm_add"):
        noise = torch.rand(batch, generator=random, dtype=torch.float32)
        tensors["noise"] = noise.to(kernel.device)
    return tensors


def _run_rows(
    kernel: RowKernel, operators: ModuleType, tensors: Mapping[str, Tensor]
) -> list[Tensor]:
    """The operator's outputs; where tensors are float64, in that."""
    x = tensors["x"]
    dtype = torch.float64 if x.dtype == torch.float64 else kernel.linear_dtype
    if kernel.operator == "mlp":
        return [operators.mlp(*tensors.values(), dtype)]
    norm = Norm(tensors["weight"], tensors["bias"], EPS)
    if kernel.operator == "merge_norm":
        return [operators.merge_norm(x, norm, dtype)]
    value, bias = tensors["value"], tensors["branch_bias"]
    branch = Branch(value, bias, tensors["noise"], DROP_PATH_KEEP)
    if kernel.operator == "norm_add":
        return list(operators.norm_add(x, branch, norm, dtype))
    embedded = operators.add_norm(None, Branch(value, bias), norm, dtype)[1]
    return [*operators.add_norm(x, branch, norm, dtype), embedded]
