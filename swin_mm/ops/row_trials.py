"""Trials of the kernels between products and attention, see `swin_mm.ops.trial`."""

from collections.abc import Mapping
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from swin_mm.ops import trial
from swin_mm.ops.mlp import mlp
from swin_mm.ops.norm import Backend, Branch, Norm, add_norm, merge_norm, norm_add
from swin_mm.ops.trial import Subject

KEEP_PROB, EPS = 0.6, 1e-5
MLP_CHANNELS = 64  # around the hidden ones, which are all that kernels see
# Of a map: programs go through several tiles each, also on the largest GPUs.
ELEMENTS = 2_000_000


class Work(NamedTuple):
    """What is tried.

    Attributes:
        operator: Of `swin_mm.ops.norm` or `swin_mm.ops.mlp`.
        channels: Of its input; the hidden ones of an MLP.
        device: Where it runs.
        dtype: Of the map and of parameters.
        linear_dtype: Of what linear layers give and take.
    """

    operator: Literal["add_norm", "norm_add", "merge_norm", "mlp"]
    channels: int
    device: torch.device
    dtype: torch.dtype
    linear_dtype: torch.dtype

    def to_subject(self) -> Subject:
        details = f"{self.channels} channels", self.dtype, self.linear_dtype
        return Subject(self.operator, "PyTorch's operators", self.device, details)


def refusal(work: Work) -> str | None:
    """Tells why the kernels are not taken, by a trial at the first call; `None` where they are."""
    return trial.refusal(work.to_subject(), partial(_attempt, work))


def _attempt(work: Work) -> str | None:
    tensors = _draw(work)
    run = partial(_run, work)
    return trial.compare(tensors, partial(run, "triton"), partial(run, "reference"))


def _draw(work: Work) -> dict[str, Tensor]:
    """Maps of 5x7 tokens, parameters, and the noise of stochastic depth."""
    channels, wide, narrow = work.channels, work.dtype, work.linear_dtype
    batch = max(2, ELEMENTS // (5 * 7 * channels))
    shape = batch, 5, 7, channels
    kinds = {"x": (shape, wide), "value": (shape, narrow), "branch_bias": ((channels,), wide)}
    width = channels
    if work.operator == "merge_norm":
        kinds, width = {"x": (shape, wide)}, 4 * channels
    kinds |= {"weight": ((width,), wide), "bias": ((width,), wide)}
    if work.operator == "mlp":
        kinds = {
            "x": ((batch, 5, 7, MLP_CHANNELS), narrow),
            "fc1_weight": ((channels, MLP_CHANNELS), wide),
            "fc1_bias": ((channels,), wide),
            "fc2_weight": ((MLP_CHANNELS, channels), wide),
        }
    random = torch.Generator().manual_seed(0)
    tensors = {
        name: trial.draw(shape, random, dtype).to(work.device).requires_grad_()
        for name, (shape, dtype) in kinds.items()
    }
    if work.operator in ("add_norm", "norm_add"):
        tensors["noise"] = torch.rand(batch, generator=random, dtype=torch.float32).to(work.device)
    return tensors


def _run(work: Work, backend: Backend, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The operator's outputs; where tensors are float64, in that."""
    x = tensors["x"]
    dtype = torch.float64 if x.dtype == torch.float64 else work.linear_dtype
    if work.operator == "mlp":
        return [mlp(*tensors.values(), dtype, backend)]
    norm = Norm(tensors["weight"], tensors["bias"], EPS)
    if work.operator == "merge_norm":
        return [merge_norm(x, norm, dtype, backend)]
    value, bias = tensors["value"], tensors["branch_bias"]
    branch = Branch(value, bias, tensors["noise"], KEEP_PROB)
    if work.operator == "norm_add":
        return list(norm_add(x, branch, norm, dtype, backend))
    embedded = add_norm(None, Branch(value, bias), norm, dtype, backend)[1]
    return [*add_norm(x, branch, norm, dtype, backend), embedded]
