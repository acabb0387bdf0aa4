"""The first use of kernels on a device: they serve once they have given there what others give.

Kernels are checked in Triton's interpreter and by compilers, and not on every GPU that there is.
What they compute wrongly need not show in a loss. So before `auto` takes them, a trial runs them on
small tensors made for it, beside the readable operators. Where they fail, those serve for the rest
of the process, and one warning tells why. Kernels asked for by name run without one.
"""

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

logger = logging.getLogger("swin_mm")

UNTRIED = "they have not been tried there, and no trial can run under a compiler or in a CUDA graph"
NO_MEMORY = "there was no memory for a trial, which the next use repeats"


class Subject(NamedTuple):
    """What is tried.

    Attributes:
        kernels: What they compute, such as `window attention`.
        fallback: What serves where they fail, such as `SDPA`.
        device: Where they are to run.
        details: What else decides which code runs, such as dtypes and widths.
    """

    kernels: str
    fallback: str
    device: torch.device
    details: tuple[Hashable, ...] = ()


# By subject: why the kernels are not taken, or `None` where they are. For the whole process.
_results: dict[Subject, str | None] = {}


def is_gpu(device: torch.device) -> bool:
    """Whether `auto` may take the kernels on a device; elsewhere there is only an interpreter."""
    return device.type == "cuda"


def refusal(subject: Subject, attempt: Callable[[], str | None]) -> str | None:
    """Tells why kernels are not taken, by a trial at the first call; `None` where they are.

    A trial has a thread of its own. There are no autocast, saved tensor hooks, dispatch modes nor
    streams of the caller, and what it sets is gone with it.

    Args:
        subject: What is tried.
        attempt: The trial. It tells what is wrong, or `None`, and takes no random numbers from
            PyTorch's global generators.
    """
    if torch.compiler.is_compiling():
        return _recall(*subject)
    if subject not in _results:
        if subject.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return UNTRIED
        if not any(subject.device == tried.device for tried in _results):
            logger.info("Compiling and trying kernels on %s, which takes a while", subject.device)
        with ThreadPoolExecutor(max_workers=1) as pool:
            try:
                result = pool.submit(_run, subject, attempt).result()
            except torch.OutOfMemoryError:
                return NO_MEMORY
        _record(subject, result)
    return _in_words(subject)


def _run(subject: Subject, attempt: Callable[[], str | None]) -> str | None:
    with torch.cuda.device(subject.device if subject.device.type == "cuda" else -1):
        try:
            return attempt()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # compilers and drivers fail in many ways, and others serve
            return _to_text(error)


def condemn(subject: Subject, error: Exception) -> None:
    """Has kernels that raise after their trial taken no more."""
    _record(subject, f"{_to_text(error)}, after it")


def _to_text(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


@torch.compiler.assume_constant_result  # no graph can ask a dictionary of devices and dtypes
def _recall(*subject) -> str | None:
    return _in_words(Subject(*subject))


def _in_words(subject: Subject) -> str | None:
    result = _results.get(subject, "")
    if result == "":
        return UNTRIED
    return None if result is None else f"trial failed: {result}"


def _record(subject: Subject, result: str | None) -> None:
    """Keeps a result, and warns of the first failure of some kernels on a device."""
    has_failed = any(s[:3] == subject[:3] and found for s, found in _results.items())
    _results[subject] = result
    if result is not None and not has_failed:
        logger.warning(
            "%s by %s on %s: the Triton kernels failed their trial (%s). Results stay right, and "
            "slower. Please report this with the output of `swin-mm doctor`.",
            *subject[:3],
            ": ".join([*filter(None, [", ".join(map(str, subject.details))]), result]),
        )


def compare(
    tensors: Mapping[str, Tensor],
    kernels: Callable[[Mapping[str, Tensor]], Sequence[Tensor]],
    readable: Callable[[Mapping[str, Tensor]], Sequence[Tensor]],
) -> str | None:
    """Tells what is wrong with values and gradients of kernels; `None` for nothing.

    Errors against the readable operator in float64 may be twice those of the readable operator in
    the dtypes at hand, and one unit in the last place. Two runs must agree to the last bit.

    Args:
        tensors: By name. Those that want a gradient get one.
        kernels: From tensors to outputs.
        readable: The same by other means.
    """
    wide = {n: t.detach().double().requires_grad_(t.requires_grad) for n, t in tensors.items()}
    exact, stock = _differentiate(readable, wide), _differentiate(readable, tensors)
    found, again = (_differentiate(kernels, tensors) for _ in range(2))
    for name, value in found.items():
        if not torch.equal(value, again[name]) and not value.isnan().any():
            return f"two runs give different numbers: {name}"
        error, budget = ((t[name].double() - exact[name]).norm().item() for t in (found, stock))
        unit = exact[name].norm().item() * torch.finfo(value.dtype).eps
        if not error <= 2 * budget + unit:  # nor NaN
            return f"{name} has an error of {error:.2g}, where {2 * budget + unit:.2g} is granted"
    return None


def draw(shape: Sequence[int], random: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Normally distributed numbers on the CPU, whose generators are the same everywhere."""
    return torch.randn(shape, generator=random, dtype=torch.float32, device="cpu").to(dtype)


def _differentiate(
    run: Callable[[Mapping[str, Tensor]], Sequence[Tensor]], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Outputs, and gradients in a direction of each."""
    outs = run(tensors)
    random = torch.Generator().manual_seed(1)
    # Of few bits, so that outputs of any dtype have the same.
    directions = [draw(out.shape, random, torch.bfloat16).to(out) for out in outs]
    leaves = {f"gradient of {n}": t for n, t in tensors.items() if t.requires_grad}
    grads = torch.autograd.grad(outs, list(leaves.values()), directions)
    results = {f"output {number}": out for number, out in enumerate(outs)}
    return results | dict(zip(leaves, grads, strict=True))
