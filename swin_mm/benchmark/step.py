"""Candidates, and what each does in one step."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from swin_mm.benchmark.backbones import (
    MissingPeerError,
    build_backbone,
    check_maps,
    make_images,
)
from swin_mm.benchmark.measure import Runner, synchronizer
from swin_mm.benchmark.memory import measure_growth
from swin_mm.benchmark.necks import build_neck, make_maps
from swin_mm.benchmark.whole import WholeStep
from swin_mm.benchmark.work import DTYPES, Work

How = Literal["eager", "compile", "graphs", "compile+graphs"]
HOWS = ("eager", "compile", "graphs", "compile+graphs")
CAPTURE_WARM_UP = 3  # steps on a side stream, as PyTorch's notes on CUDA graphs ask for


class Candidate(NamedTuple):
    """A library and how its model is run."""

    library: str
    how: How

    def __str__(self) -> str:
        return f"{self.library} {self.how}"


@dataclass
class Prepared:
    """A candidate that is ready to run.

    Attributes:
        runner: Runs its steps.
        parameters: Number of parameters.
        peak_bytes: Most memory of a step, with parameters, gradients and inputs, without what
            belongs to other candidates; `None` where it is not measured.
    """

    runner: Runner
    parameters: int
    peak_bytes: int | None


def refuse(candidate: Candidate, work: Work) -> str | None:
    """Why a candidate cannot be run in this way, or `None`."""
    if not candidate.how.endswith("graphs"):
        return None
    if work.device.type != "cuda":
        return "CUDA graphs need a CUDA device"
    if work.mode == "train":
        return "CUDA graphs are for inference"
    if work.part == "config":
        return "a whole model waits for its device within a step, which a graph cannot"
    return None


def prepare(candidate: Candidate, work: Work) -> Prepared:
    """Builds a candidate and runs its first steps.

    Raises:
        MissingPeerError: It cannot do this work.
        Exception: Whatever the library raises.
    """
    if reason := refuse(candidate, work):
        raise MissingPeerError(reason)
    device = work.device
    before = _allocated(device)
    kind = WholeStep if work.part == "config" else ModuleStep
    step = kind(candidate.library, work, is_compiled=candidate.how.startswith("compile"))
    if work.part == "backbone":
        for i, size in enumerate(work.sizes):
            check_maps(work, step.forward(i), size)
    run, indices = step.run, range(len(work.sizes))
    for i in indices:
        run(i)  # compiles
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    if candidate.how.endswith("graphs"):
        run = capture(step, work)

    def run_all() -> None:
        for i in indices:
            run(i)

    peak = None
    if device.type == "cuda":
        run_all()
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device) - before
    elif isinstance(step, ModuleStep):
        growth = measure_growth(run_all)
        peak = None if growth is None else step.count_held_bytes() + growth
    runner = Runner(run, len(work.sizes), synchronizer(device))
    return Prepared(runner, count_parameters(step.model), peak)


class ModuleStep:
    """Forward, and in training backward, of a backbone or a neck.

    Backward starts from gradients that are given, so that no loss is measured with it.

    Args:
        library: Whose.
        work: What it does.
        is_compiled: Whether `torch.compile` is used.
    """

    def __init__(self, library: str, work: Work, is_compiled: bool) -> None:
        torch.manual_seed(0)
        is_backbone = work.part == "backbone"
        build, make = (build_backbone, make_images) if is_backbone else (build_neck, make_maps)
        model = build(library, work)
        model.train(work.mode == "train")  # mmdet's eval() does not return the model
        if work.casts_weights:
            model.to(DTYPES[work.dtype])
        model.to(work.device)
        if is_compiled:
            model.compile(dynamic=len(work.sizes) > 1 or None)
        self.model = model
        self.work = work
        self.inputs = make(work)
        if work.casts_weights:
            self.inputs = [_cast(x, DTYPES[work.dtype]) for x in self.inputs]
        self.gradients: dict[int, list[Tensor]] = {}
        self.parameters = list(model.parameters())

    def run(self, index: int) -> Any:
        """One step on the inputs of `index`."""
        return self._train(index) if self.work.mode == "train" else self.forward(index)

    @torch.no_grad()
    def forward(self, index: int) -> tuple[Tensor, ...]:
        """The maps, without gradient."""
        with self.work.autocast():
            return self.model(self.inputs[index])

    def count_held_bytes(self) -> int:
        """Bytes of parameters and their gradients, inputs, and gradients that backward is given."""
        tensors = [*self.parameters, *(p.grad for p in self.parameters if p.grad is not None)]
        for given in (*self.inputs, *self.gradients.values()):
            tensors += [given] if isinstance(given, Tensor) else given
        return sum(t.nbytes for t in tensors)

    def _train(self, index: int) -> None:
        inputs = self.inputs[index]
        for leaf in (*self.parameters, *(inputs if isinstance(inputs, list) else ())):
            leaf.grad = None
        with self.work.autocast():
            maps = self.model(inputs)
        if index not in self.gradients:  # in the layout and dtype of this library's maps
            self.gradients[index] = [torch.ones_like(m) for m in maps]
        torch.autograd.backward(maps, self.gradients[index])


def _cast(inputs: Tensor | list[Tensor], dtype: torch.dtype) -> Tensor | list[Tensor]:
    return [x.to(dtype) for x in inputs] if isinstance(inputs, list) else inputs.to(dtype)


def capture(step: ModuleStep, work: Work) -> Callable[[int], None]:
    """Captures a graph for each size of the inputs.

    Args:
        step: Inference of a backbone or a neck, on CUDA.
        work: What it does.

    Returns:
        What copies new inputs into place and replays the graph, as one has to in practice.
    """
    sources = [_clone(x) for x in step.inputs]
    graphs = []
    stream = torch.cuda.Stream(work.device)
    for i in range(len(work.sizes)):
        stream.wait_stream(torch.cuda.current_stream(work.device))
        with torch.cuda.stream(stream):
            for _ in range(CAPTURE_WARM_UP):
                step.forward(i)
        torch.cuda.current_stream(work.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            maps = step.forward(i)
        graphs.append((graph, maps))  # maps keep their memory while the graph writes to it

    def replay(index: int) -> None:
        source, target = sources[index], step.inputs[index]
        if isinstance(source, list):
            torch._foreach_copy_(target, source)
        else:
            target.copy_(source)
        graphs[index][0].replay()

    return replay


def _clone(inputs: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    return [x.clone() for x in inputs] if isinstance(inputs, list) else inputs.clone()


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def release(device: torch.device) -> None:
    """Gives back what candidates of an earlier piece of work have left."""
    torch.compiler.reset()  # else sizes of earlier work count against the limit of recompilations
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def count_parameters(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())
