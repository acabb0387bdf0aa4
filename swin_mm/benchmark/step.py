"""Candidates, what each does in one step, and a case: one workload run by all of them."""

import gc
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from swin_mm.benchmark.measure import Step, measure, warm_up
from swin_mm.benchmark.memory import measure_growth
from swin_mm.benchmark.peers import DIFFERENCES, MissingPeerError, build_module, make_inputs
from swin_mm.benchmark.report import make_case
from swin_mm.benchmark.whole import ModelStep
from swin_mm.benchmark.workload import Workload

# How a model is run: arguments of `torch.compile`, or None.
RUN_MODES: dict[str, dict[str, str] | None] = {
    "eager": None,
    "compile": {},
    "graphs": {"backend": "cudagraphs"},  # CUDA graphs of PyTorch's own kernels
    "compile+graphs": {"mode": "reduce-overhead"},
}


class Candidate(NamedTuple):
    """A library, and how its model is run: one of `RUN_MODES`."""

    library: str
    run: str


class ModuleStep:
    """Forward, and in training backward, of a backbone or a neck.

    Backward starts from given gradients, so that no loss is measured with it.
    """

    def __init__(self, library: str, work: Workload, compile_args: dict | None = None) -> None:
        torch.manual_seed(0)
        self.model = build_module(library, work)
        self.model.train(work.mode == "train")  # mmdet's eval() does not return the model
        self.model.to(work.device)
        self.inputs = make_inputs(work)
        if compile_args is not None:
            self.model.compile(dynamic=len(work.sizes) > 1 or None, **compile_args)
        self.work = work
        self.gradients: dict[int, list[Tensor]] = {}

    def run(self, index: int) -> Any:
        """One step on the inputs of `index`."""
        return self._train(index) if self.work.mode == "train" else self.forward(index)

    @torch.no_grad()
    def forward(self, index: int) -> Sequence[Tensor]:
        """The maps, without gradient."""
        return self._call(index)

    def kept(self) -> Any:
        """Tensors beside parameters that stay from step to step."""
        return self.inputs, self.gradients

    def _call(self, index: int) -> Sequence[Tensor]:
        inputs = self.inputs[index]
        with self.work.autocast():
            return self.model(inputs[0] if self.work.part == "backbone" else inputs)

    def _train(self, index: int) -> None:
        for leaf in (*self.model.parameters(), *self.inputs[index]):
            leaf.grad = None
        maps = self._call(index)
        if index not in self.gradients:  # in the layout and dtype of this library's maps
            self.gradients[index] = [torch.ones_like(m) for m in maps]
        torch.autograd.backward(maps, self.gradients[index])


def prepare(candidate: Candidate, work: Workload) -> tuple[Step, dict[str, Any]]:
    """Builds a candidate and runs its first steps.

    Returns:
        What runs a step, and the row of the result with the number of parameters and `peak_bytes`:
        peak memory of a step, with parameters, gradients and inputs, without what belongs to other
        candidates; `None` if it is not measured.

    Raises:
        MissingPeerError: It cannot do this work.
        Exception: Whatever the library raises.
    """
    if reason := cannot_run(candidate, work):
        raise MissingPeerError(reason)
    device, indices = work.device, range(len(work.sizes))
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    build: Any = ModelStep if work.part == "config" else ModuleStep
    step = build(candidate.library, work, RUN_MODES[candidate.run])
    if work.part == "backbone":
        for i in indices:
            check_maps(work, step.forward(i), i)

    def run_all() -> None:
        for i in indices:
            step.run(i)

    run_all()  # compiles
    parameters = list(step.model.parameters())
    peak = None
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        run_all()
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device) - before
    elif (growth := measure_growth(run_all)) is not None:
        kept = tree_leaves((parameters, [p.grad for p in parameters], step.kept()))
        peak = growth + sum(t.nbytes for t in kept if isinstance(t, Tensor))
    row = candidate._asdict() | {"parameters": sum(p.numel() for p in parameters)}
    if work.part == "backbone":
        row["differs"] = DIFFERENCES.get((candidate.library, work.version), "")
    return step.run, row | {"peak_bytes": peak}


def cannot_run(candidate: Candidate, work: Workload) -> str | None:
    """Why a candidate cannot be run, or `None`."""
    if find_spec(candidate.library) is None:
        return "not installed"
    if candidate.run.endswith("graphs") and work.device.type != "cuda":
        return "CUDA graphs need a CUDA device"
    return None


def check_maps(work: Workload, maps: Sequence[Tensor], index: int) -> None:
    """Raises MissingPeerError if the maps are not those that the workload asks for."""
    sides = work.map_sizes(work.sizes[index])
    wanted = [(work.batch, c, *side) for c, side in zip(work.channels, sides, strict=True)]
    found = [tuple(m.shape) for m in maps]
    if found != wanted:
        raise MissingPeerError(f"does other work: its maps are {found}, not {wanted}")


def run_case(
    work: Workload,
    candidates: Sequence[Candidate],
    rounds: int,
    on_turn: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Measures one workload; a candidate that fails gets a row with the reason.

    `on_turn` is called `len(candidates) * (rounds + 2)` times, unless candidates fail.
    """
    release(work.device)
    steps: dict[Candidate, Step] = {}
    passes: dict[Candidate, int] = {}
    rows = {candidate: dict[str, Any](candidate._asdict()) for candidate in candidates}

    def note_error(candidate: Candidate, error: Exception) -> None:
        rows[candidate]["error"] = describe_error(error)

    for candidate in candidates:
        try:
            step, rows[candidate] = prepare(candidate, work)
            passes[candidate] = warm_up(step, len(work.sizes))
            steps[candidate] = step
        except Exception as error:  # any library may fail in any way, and the others go on
            note_error(candidate, error)
        on_turn()
    seconds = measure(steps, passes, len(work.sizes), rounds, on_error=note_error, on_turn=on_turn)
    for candidate, values in seconds.items():
        rows[candidate]["seconds"] = values
    return make_case(work.describe(), work.to_dict(), list(rows.values()))


def release(device: torch.device) -> None:
    """Frees what candidates of an earlier workload have left."""
    torch.compiler.reset()  # else earlier sizes count against the limit of recompilations
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def describe_error(error: Exception) -> str:
    """One line for the table."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    if isinstance(error, MissingPeerError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
