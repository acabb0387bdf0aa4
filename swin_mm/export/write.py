"""Records a model and writes it as a file, which is checked before it is kept."""

import copy
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swin_mm.compat.constant_sizes import constant_sizes
from swin_mm.export.check import Difference, check_file
from swin_mm.export.package import compile_package
from swin_mm.export.plan import MIN_SIDE, ExportError, Plan
from swin_mm.export.precision import convert, write_metadata
from swin_mm.export.prepare import prepare
from swin_mm.export.runtime import SUFFIXES, ExportedModel
from swin_mm.version import __version__

OPSET = 18
EXAMPLE = (256, 320)
# Multiples of all that is padded to, and sizes that are not.
OTHER_SIZES = ((320, 224), (203, 301))


@dataclass
class Lower:
    """A precision below float32.

    Attributes:
        precision: `half` or `int8`.
        images: To calibrate int8 on, `(H, W, bands)` uint8, RGB.
        evaluate: Measures a file, before and after; `None` for not.
    """

    precision: str
    images: Iterable[np.ndarray] = ()
    evaluate: Callable[[ExportedModel], dict[str, float]] | None = None


@dataclass
class ExportResult:
    """A file that was written.

    Attributes:
        path: The file.
        metadata: What it says of itself.
        differences: How it differs in float32 from the model, at each size tried.
    """

    path: Path
    metadata: dict[str, Any]
    differences: list[Difference]


def export_model(
    plan: Plan,
    out: str | Path,
    classes: Sequence[str] = (),
    palette: Sequence[Sequence[int]] = (),
    file_format: str | None = None,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    check: bool = True,
    picture: np.ndarray | None = None,
    lower: Lower | None = None,
) -> ExportResult:
    """Writes a model as a file.

    Args:
        plan: The model; it is left as it is.
        out: The file, `.onnx`, `.xml` or `.pt2`.
        classes: Names of the classes.
        palette: Colour of each, RGB 0-255.
        file_format: `onnx`, `openvino` or `torch`; by default what `out` ends in.
        size: `(H, W)` of all images; `None` for any.
        batch: Number of images; `None` for any.
        check: Whether the file is run beside the model, in float32.
        picture: `(H, W, bands)` uint8, RGB, to run them on; `None` draws some.
        lower: Another precision than float32.

    Raises:
        ExportError: The model cannot be recorded, or the file computes something else; then no file
            is left.
    """
    out = Path(out).expanduser()
    precision = "float32" if lower is None else lower.precision
    file_format = check_request(out, file_format, size, batch, precision)
    if plan.needs_size and (size is None or batch is None):
        name = type(getattr(plan.module.model, "decode_head", plan.module.model)).__name__
        raise ExportError(f"{name} is exported for one size alone: give size and batch")
    module = copy.deepcopy(plan.module)
    prepare(module.model)
    recorded, min_side = record(module, plan.bands, size, batch)
    metadata = _describe(plan, module, size, batch, min_side)
    metadata |= dict(classes=list(classes), palette=[[int(c) for c in one] for one in palette])
    out.parent.mkdir(parents=True, exist_ok=True)
    differences: list[Difference] = []
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as name:
        folder = Path(name)
        draft, file = folder / "0" / out.name, folder / "1"
        if file_format == "torch":
            source = folder / "recorded.pt2"
            with _explained():
                compile_package(recorded, source)
        else:
            source = folder / "recorded.onnx"
            to_onnx(recorded, module, metadata["inputs"]).save(source)
        convert(source, draft, "float32", metadata)
        if check:
            sizes = _sizes(size, batch)
            exported = ExportedModel(draft, trust=True)
            differences = check_file(exported, plan.module.model, plan, sizes, picture)
            metadata["difference"] = {d.describe().split(":")[0]: d.values for d in differences}
        if lower is not None:
            draft = _lower(lower, source, draft, metadata)
        file.mkdir()
        write_metadata(draft, file / out.name, metadata)
        for part in file.iterdir():
            shutil.move(part, out.parent / part.name)
    return ExportResult(out, metadata, differences)


def _lower(lower: Lower, source: Path, draft: Path, metadata: dict[str, Any]) -> Path:
    """Writes a file of lower precision and notes what it reaches; returns its path."""
    exported = ExportedModel(draft)
    inputs = (exported.feed(*exported.prepare(image)) for image in lower.images)
    metadata["precision"] = lower.precision
    lowered = draft.parents[1] / "lowered" / draft.name
    convert(source, lowered, lower.precision, metadata, inputs)
    if lower.evaluate is not None:
        before, after = lower.evaluate(exported), lower.evaluate(ExportedModel(lowered))
        metadata["metrics"] = {
            name: [float(value), float(after[name])] for name, value in before.items()
        }
    return lowered


def check_request(
    out: Path,
    file_format: str | None,
    size: tuple[int, int] | None,
    batch: int | None,
    precision: str,
) -> str:
    """Refuses what cannot be written whatever the model, before one is loaded or recorded.

    Returns:
        The kind of file that is asked for, or that `out` ends in.

    Raises:
        ExportError: Ending, size or batch are wrong, or a package is not installed.
    """
    formats = {suffix: name for name, suffix in SUFFIXES.items()}
    if file_format is None and out.suffix not in formats:
        raise ExportError(f"the file must end in one of {tuple(formats)}, got {out.name!r}")
    file_format = file_format or formats[out.suffix]
    if file_format not in SUFFIXES:
        raise ExportError(f"format must be one of {tuple(SUFFIXES)}, got {file_format!r}")
    if out.suffix != SUFFIXES[file_format]:
        raise ExportError(
            f"a file of {file_format} ends in {SUFFIXES[file_format]}, got {out.name!r}"
        )
    _check_packages(file_format, precision)
    if size is not None and (len(size) != 2 or min(size) < 32):
        raise ExportError(f"size must be (H, W) from 32 pixels, got {size}")
    if batch is not None and batch < 1:
        raise ExportError(f"batch must be 1 or more, got {batch}")
    return file_format


def _check_packages(file_format: str, precision: str) -> None:
    if file_format == "torch":
        if precision != "float32":
            raise ExportError("half and int8 are for onnx and openvino")
        return
    extra, needed = file_format, ["onnx", "onnxscript", "onnxruntime"]
    if file_format == "openvino":
        needed[2] = "openvino"
        if precision == "int8":
            extra, needed = "int8", [*needed, "nncf"]
    try:
        for name in needed:
            import_module(name)
    except ImportError as error:
        raise ExportError(
            f"{extra} needs {error.name}: pip install 'swin-mm[{file_format},{extra}]'"
        ) from error


def _sizes(size: tuple[int, int] | None, batch: int | None) -> list[tuple[int, int, int]]:
    shapes = [size] if size else [EXAMPLE, *OTHER_SIZES]
    batches = [batch] * len(shapes) if batch else [1, 2, 1]
    return [(count, *shape) for count, shape in zip(batches, shapes, strict=False)]


def record(
    module: Any, bands: int, size: tuple[int, int] | None, batch: int | None
) -> tuple[torch.export.ExportedProgram, int]:
    """Records a prepared module as a graph of PyTorch's operators and ours.

    Returns:
        The program, and the smallest side that an image may have.

    Raises:
        ExportError: It cannot be recorded, or only for some sizes.
    """
    any_size = torch.export.Dim.DYNAMIC
    dims = {}
    if batch is None:
        dims[0] = any_size
    if size is None:
        dims |= {1: any_size, 2: any_size}
    # A batch of one would be recorded as one for good.
    example = [torch.zeros(batch or 2, *(size or EXAMPLE), bands, dtype=torch.uint8)]
    inputs = _input_names(module, size)
    if len(inputs) > 1:
        example.append(torch.tensor(EXAMPLE))
    with _explained(), constant_sizes() if size and batch else nullcontext():
        recorded = torch.export.export(
            module,
            tuple(example),
            dynamic_shapes=(dims or None, None)[: len(inputs)],
            strict=False,
        )
    images = next(n for n in recorded.graph.nodes if n.name in recorded.graph_signature.user_inputs)
    names = {0: "batch", 1: "height", 2: "width"}
    for axis, dim in enumerate(images.meta["val"].shape):
        if axis in dims and isinstance(dim, int):
            raise ExportError(f"the recorded {names[axis]} is {dim} alone: give --size and --batch")
    lowest = 1
    if size is None:
        bounds = [int(found.lower) for found in recorded.range_constraints.values()]
        lowest = max([MIN_SIDE, *bounds])
    return recorded, lowest


def to_onnx(recorded: torch.export.ExportedProgram, module: Any, inputs: Sequence[str]) -> Any:
    """Translates what `record` gives to PyTorch's `ONNXProgram`.

    Raises:
        ExportError: It cannot be translated to standard operators.
    """
    from swin_mm.export.onnx_operators import TRANSLATIONS

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with _explained():
        program: Any = torch.onnx.export(
            recorded,
            input_names=list(inputs),
            output_names=list(module.output_names),
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
            custom_translation_table=TRANSLATIONS,
        )
    _require_standard(program.model)
    return program


@contextmanager
def _explained() -> Iterator[None]:
    """Without gradients; errors of PyTorch, SymPy and onnxscript as `ExportError`."""
    try:
        with torch.no_grad():
            yield
    except Exception as error:
        raise ExportError(f"the model cannot be recorded: {str(error).strip()[:600]}") from error


def _input_names(module: Any, size: tuple[int, int] | None) -> list[str]:
    """Beside images, segmentors of any size take that of the label map."""
    has_size = size is None and module.takes_size
    return ["image", "size"] if has_size else ["image"]


def _require_standard(model: Any) -> None:
    others = {f"{n.domain}::{n.op_type}" for n in model.graph if n.domain not in ("", "ai.onnx")}
    if others or len(model.functions):
        raise ExportError(f"operators that are not ONNX's are left: {', '.join(sorted(others))}")


def _describe(
    plan: Plan,
    module: Any,
    size: tuple[int, int] | None,
    batch: int | None,
    min_side: int,
) -> dict[str, Any]:
    return dict(
        format=1,
        task=plan.task,
        inputs=_input_names(module, size),
        outputs=list(module.output_names),
        bands=plan.bands,
        size=list(size) if size else None,
        batch=batch,
        min_side=min_side,
        resize=plan.resize,
        padding=plan.padding,
        turn=plan.turn,
        mask_threshold=plan.mask_threshold,
        panoptic=plan.panoptic,
        mask_frame=[-(-s // d) * d for s in size for d in [module.image_input.divisor]]
        if size
        else None,
        precision="float32",
        versions=dict(swin_mm=__version__, torch=torch.__version__, opset=OPSET),
        difference=None,
    )
