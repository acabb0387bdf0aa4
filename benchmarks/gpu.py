"""What is to be run on a GPU that is lent for minutes: `check`, then `measure`.

    python benchmarks/gpu.py check [--seconds 180] [--out DIR]
    python benchmarks/gpu.py measure [--seconds 360] [--out DIR]

`check` compares values and gradients of every Triton kernel, at the widths of Swin-T and Swin-L,
and of whole backbones, with the reference operators in float64, and two runs with one another.
`measure` times the rows of a table of goals, the most valuable first. Each writes a result as soon
as it is known, and a second start goes on with what is missing. Neither takes longer than
`--seconds`: what was not reached is named at the end.

`--rehearse` runs all of it with tiny sizes on a CPU, in Triton's interpreter.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", choices=["check", "measure"])
    parser.add_argument("--seconds", type=float, help="180 for check, 360 for measure")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "gpu")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, in the interpreter")
    args = parser.parse_args()
    seconds = args.seconds or (180 if args.work == "check" else 360)
    if args.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton
    began = time.monotonic()
    results = Results(args.out / f"{args.work}.jsonl")
    tasks = plan_checks(args.rehearse) if args.work == "check" else plan_rows(args.rehearse)
    names = [task.name for task in tasks]

    def stop() -> None:
        print("the time is over; the same command goes on")
        results.close(names)
        os._exit(1)

    # A thread stops the process also where a kernel hangs.
    timer = threading.Timer(seconds - (time.monotonic() - began), stop)
    timer.daemon = True
    timer.start()
    for task in tasks:
        results.take(task)
    timer.cancel()
    return results.close(names)


class Task(NamedTuple):
    """Something to be done once; `run` returns what is stored, with `failed` where it is wrong."""

    name: str
    run: Callable[[], dict[str, Any]]


class Results:
    """Results of tasks, one line of JSON each, that outlive the process."""

    def __init__(self, path: Path) -> None:
        from swin_mm.benchmark.machine import find_commit

        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.began, self.commit = path, time.monotonic(), find_commit(ROOT)
        lines = path.read_text().splitlines() if path.is_file() else []
        self.known = {row["name"]: row for row in map(json.loads, lines)}

    def take(self, task: Task) -> None:
        """Runs a task, unless this commit has its result."""
        if self.known.get(task.name, {}).get("commit") == self.commit:
            return
        began = time.monotonic()
        try:
            found = task.run()
        except Exception as error:  # the others go on
            found = {"failed": f"{type(error).__name__}: {error}"}
        taken = round(time.monotonic() - began, 1)
        row = {"name": task.name, "commit": self.commit, "seconds_taken": taken, **found}
        self.known[task.name] = row
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{task.name}: {found.get('failed') or found.get('text', 'right')} ({taken} s)")
        sys.stdout.flush()

    def close(self, names: Sequence[str]) -> int:
        """Prints what is wrong and what is missing; returns the status."""
        rows = [self.known[name] for name in names if name in self.known]
        failed = [row["name"] for row in rows if row.get("failed")]
        missing = [name for name in names if name not in self.known]
        took = time.monotonic() - self.began
        print(
            f"{len(rows)} of {len(names)} done in {took:.0f} s, {len(failed)} failed: {self.path}"
        )
        if missing:
            print(f"missing: {', '.join(missing)}")
        sys.stdout.flush()
        return int(bool(failed or missing))


# Check.

ROW_OPERATORS = ("add_norm", "norm_add", "merge_norm", "mlp")
WIDTHS = (96, 192, 384, 768, 1536)  # of the stages of Swin-T and Swin-L
WINDOWS = (7, 12, 8, 16)  # of V1, and of V2
HEAD_DIM = 32


def plan_checks(rehearse: bool) -> list[Task]:
    """The machine, attention and row kernels one by one, then backbones."""
    import torch

    from swin_mm.ops import self_test

    device = torch.device("cpu" if rehearse else "cuda")
    dtypes = [torch.bfloat16, torch.float16, torch.float32]
    windows, widths = WINDOWS, WIDTHS
    if rehearse:
        self_test.ATTENTION_TOKENS, self_test.ROW_ELEMENTS = 100, 2000
        windows, widths, dtypes = (4, 9), (96,), dtypes[:1]
    tasks = [Task("machine", partial(describe, device))]
    for dtype in dtypes:
        name = str(dtype).removeprefix("torch.")
        for window in windows:
            test = partial(self_test.why_not_attention, device, dtype, (window, window), HEAD_DIM)
            tasks.append(Task(f"attention, window {window}, {name}", partial(judge, test)))
        for width in widths:
            for operator in ROW_OPERATORS:
                hidden = 4 * width if operator == "mlp" else width
                kernel = self_test.RowKernel(operator, hidden, device, dtype, dtype)
                test = partial(self_test.why_not_rows, kernel)
                tasks.append(Task(f"{operator}, {width} channels, {name}", partial(judge, test)))
    for arch, window, size in (("tiny", 7, (800, 1344)), ("large", 12, (400, 680))):
        for dtype in dtypes:
            name = f"Swin-{arch}, {size[0]}x{size[1]}, {str(dtype).removeprefix('torch.')}"
            test = partial(test_backbone, arch, window, size, dtype, device, rehearse)
            tasks.append(Task(name, partial(judge, test)))
    return tasks


def describe(device: Any) -> dict[str, Any]:
    """Device and versions."""
    from swin_mm.benchmark.machine import describe_machine

    machine = describe_machine(device)
    return {"machine": machine, "text": machine["device"]}


def judge(test: Callable[[], str | None]) -> dict[str, Any]:
    """The result of a test that returns what is wrong."""
    reason = test()
    return {"failed": reason} if reason else {}


def test_backbone(
    arch: str, window: int, size: tuple[int, int], dtype: Any, device: Any, rehearse: bool
) -> str | None:
    """A backbone with Triton kernels beside the reference, in training mode without drop path."""
    import torch
    from torch.func import functional_call

    from swin_mm.models import SwinTransformer
    from swin_mm.ops.self_test import compare

    settings: dict[str, Any] = dict(arch=arch, window_size=window, drop_path_rate=0.0)
    if rehearse:
        size = (30, 50)
        settings = dict(embed_dims=32, depths=(2, 1), num_heads=(1, 2), drop_path_rate=0.0)
        settings |= dict(window_size=4, strides=(4, 2), out_indices=(0, 1))
    models = {}
    for backend in ("triton", "reference"):
        torch.manual_seed(0)
        models[backend] = SwinTransformer(**settings, attn_backend=backend).to(device)
    tensors = {
        name: value.detach().to(dtype).requires_grad_()
        for name, value in models["reference"].named_parameters()
    }
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    tensors["image"] = image.to(device, dtype).requires_grad_()

    def run(backend: str, tensors: Any) -> Sequence[Any]:
        parameters = {name: value for name, value in tensors.items() if name != "image"}
        return functional_call(models[backend], parameters, (tensors["image"],))

    return compare(tensors, partial(run, "triton"), partial(run, "reference"))


# Measure.


class Row(NamedTuple):
    """A row of the table of goals.

    Attributes:
        name: What is measured.
        work: Fields of `Workload` that differ from the first row's; `config` is a name.
        peers: Beside swin_mm.
        run: Key of `RUN_MODES` of swin_mm and its peers.
        goal: Milliseconds of a step on an H100.
    """

    name: str
    work: dict[str, Any]
    peers: tuple[str, ...] = ()
    run: str = "eager"
    goal: float | None = None


LARGE = ((800, 1344),)
BACKBONE = dict(mode="train", batch=2)
INFERENCE = dict(mode="inference", batch=2)
MASK_RCNN = dict(config="mask_rcnn_swin_t", mode="train", dtype="fp16", batch=2)
CASCADE = MASK_RCNN | dict(config="cascade_mask_rcnn_swin_t", batch=8)
UPERNET = MASK_RCNN | dict(config="upernet_swin_t", batch=16, sizes=((512, 512),))
SWIN_L = dict(arch="large", window=12, sizes=((1280, 1280),), batch=1)
SWIN_V2 = dict(arch="base", version=2, window=16, sizes=((1024, 1024),), batch=1)
COMPILED = ("timm", "mmdet", "transformers")

# The most valuable first: what a lent GPU has time for is not known before.
ROWS = (
    Row("backbone train b2", BACKBONE, ("mmdet",), goal=9),
    Row("Mask R-CNN train b2", MASK_RCNN, ("mmdet",), goal=60),
    Row("backbone inference b2", INFERENCE, ("mmdet",), goal=2),
    Row("backbone train b8", BACKBONE | dict(batch=8), ("mmdet",), goal=20),
    Row("Mask R-CNN train b8", MASK_RCNN | dict(batch=8), ("mmdet",), goal=130),
    Row("backbone train b2 sdpa", BACKBONE | dict(attn_backend="sdpa")),
    Row("backbone inference b8", INFERENCE | dict(batch=8), ("mmdet",), goal=6),
    Row("backbone train b2 compiled", BACKBONE, COMPILED, run="compile", goal=9),
    Row("backbone inference b2 compiled", INFERENCE, COMPILED, run="compile", goal=2),
    Row("UPerNet train b16", UPERNET, ("mmseg",), goal=170),
    Row("Mask R-CNN inference b1", MASK_RCNN | INFERENCE | dict(batch=1), ("mmdet",), goal=12),
    Row("Cascade Mask R-CNN train b8", CASCADE, ("mmdet",), goal=200),
    Row("backbone train b2 changing sizes", BACKBONE | dict(sizes="changing"), ("mmdet",), goal=9),
    Row("Swin-L 1280 train", BACKBONE | SWIN_L, ("mmdet",), goal=36),
    Row("Swin-L 1280 inference", INFERENCE | SWIN_L, ("mmdet",), goal=10),
    Row("Swin V2-B 1024 train", BACKBONE | SWIN_V2, ("timm",), goal=25),
    Row("Swin V2-B 1024 inference", INFERENCE | SWIN_V2, ("timm",), goal=6),
    Row("UPerNet inference b1", UPERNET | INFERENCE | dict(batch=1), ("mmseg",), goal=8),
    Row("backbone train b8 sdpa", BACKBONE | dict(batch=8, attn_backend="sdpa")),
    Row("backbone train b8 compiled", BACKBONE | dict(batch=8), COMPILED, run="compile", goal=20),
)


def plan_rows(rehearse: bool) -> list[Task]:
    """The machine, then the rows."""
    import torch
    from mmengine.logging import MMLogger

    MMLogger.get_current_instance().setLevel("ERROR")  # models log how they are initialised
    device = torch.device("cpu" if rehearse else "cuda")
    rows = [Task(row.name, partial(measure_row, row, device, rehearse)) for row in ROWS]
    attention = [
        Task(f"attention of stage {stage} {mode}", partial(time_attention, stage, mode, device))
        for stage in (1, 3)
        for mode in ("inference", "train")
        if not rehearse or (stage, mode) == (3, "inference")  # no gradient on CPUs
    ]
    return [Task("machine", partial(describe, device)), *rows[:6], *attention, *rows[6:]]


def time_attention(stage: int, mode: str, device: Any) -> dict[str, Any]:
    """Window attention of Swin-T alone: our kernel beside FlexAttention, in bfloat16.

    Maps are those of two images of 800x1344, or tiny without a GPU, where nothing is compiled.
    """
    import torch
    from flex_attention import count_traffic, window_attention
    from torch.nn.attention.flex_attention import flex_attention
    from torch.utils.benchmark import Timer

    from swin_mm.ops.triton.window_attention import window_attention as kernel

    on_gpu, heads, side = device.type == "cuda", 3 * 2 ** (stage - 1), 2 ** (stage + 1)
    size = (800 // side, 1344 // side) if on_gpu else (9, 12)
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Any:
        made = torch.randn(shape, generator=random).to(device, torch.bfloat16)
        return made.requires_grad_(mode == "train")

    tensors = draw(2, *size, 3 * 32 * heads), draw(heads, 49, 49), draw(3 * 32 * heads)
    options = dict(num_heads=heads, window_size=(7, 7), shift_size=(3, 3), scale=32**-0.5)
    attend = torch.compile(flex_attention) if on_gpu else flex_attention
    runs = {
        "swin_mm": partial(kernel, *tensors, **options),
        "flex_attention": partial(window_attention, *tensors, **options, attend=attend),
    }
    outs = {name: run() for name, run in runs.items()}
    torch.testing.assert_close(*outs.values(), rtol=2e-2, atol=2e-2)

    def step(name: str) -> None:
        out = runs[name]()
        if mode == "train":
            torch.autograd.grad(out, tensors, outs["swin_mm"].detach())

    medians = {}
    for name in runs:
        timer = Timer("step(name)", globals={"step": step, "name": name})
        medians[name] = timer.blocked_autorange(min_run_time=0.5 if on_gpu else 0.01).median * 1e3
    text = "; ".join(f"{name} {median:.3f} ms" for name, median in medians.items())
    return {"median_ms": medians, "traffic": count_traffic(mode == "train"), "text": text}


def measure_row(row: Row, device: Any, rehearse: bool) -> dict[str, Any]:
    """Times a row beside its peers."""
    from swin_mm.benchmark.step import Candidate, run_case

    work = make_work(dict(row.work), device)
    if rehearse:
        work = shrink(work)
    run = "eager" if rehearse else row.run  # compiling for a CPU takes minutes
    candidates = [Candidate(name, run) for name in ("swin_mm", *row.peers)]
    case = run_case(work, candidates, rounds=1 if rehearse else 5)
    return {"case": case, "goal_ms": row.goal, "failed": None, **summarise(case, row.goal)}


def make_work(fields: dict[str, Any], device: Any) -> Any:
    """The workload of a row: the Triton kernels by name, bfloat16, 800x1344 by default."""
    from swin_mm.benchmark.workload import Workload, multi_scale_sizes
    from swin_mm.cli.config import load_config
    from swin_mm.models.backbones.arguments import ARCHS

    fields = dict(version=1, arch="tiny", window=7, sizes=LARGE, dtype="bf16") | fields
    backend = fields.pop("attn_backend", "triton")
    config = None
    if name := fields.pop("config", None):
        config = load_config(name)
        config.model.backbone.attn_backend = backend
    if fields["sizes"] == "changing":
        fields["sizes"] = multi_scale_sizes(LARGE[0])
    return Workload(
        part="config" if config else "backbone",
        device=device,
        attn_backend=backend,
        config=config,
        **{**fields, "arch": ARCHS[fields["arch"]]},
    )


def shrink(work: Any) -> Any:
    """The workload at a size that the interpreter runs in seconds."""
    from swin_mm.models.backbones.arguments import Arch

    arch, batch = Arch(32, (1, 1, 1, 1), (1, 2, 4, 8)), min(work.batch, 2)
    small = replace(work, batch=batch, arch=arch, window=4, dtype="bf16")
    if work.config is None:
        return replace(small, sizes=tuple((24 + 8 * i, 40) for i in range(len(work.sizes[:2]))))
    work.config.model.backbone.update(arch=None, window_size=4, **arch._asdict())
    widths = [32, 64, 128, 256]
    for name, key in (("neck", "in_channels"), ("decode_head", "in_channels")):
        if part := work.config.model.get(name):
            part[key] = widths
    if part := work.config.model.get("auxiliary_head"):
        part.in_channels = widths[part.in_index]
    return replace(small, sizes=((96, 128),))


def summarise(case: dict[str, Any], goal: float | None) -> dict[str, Any]:
    """A line with the medians, and what failed of swin_mm."""
    shown, failed = [], None
    for row in case["rows"]:
        if "error" in row:
            shown.append(f"{row['library']} failed: {row['error']}")
            failed = row["error"] if row["library"] == "swin_mm" else failed
        else:
            peak = f", {row['peak_mib']:.0f} MiB" if row.get("peak_mib") else ""
            shown.append(f"{row['library']} {row['median_ms']:.2f} ms{peak}")
    text = "; ".join([*shown, *([f"goal {goal} ms"] if goal else [])])
    return {"text": text, "failed": failed}


if __name__ == "__main__":
    sys.exit(main())
