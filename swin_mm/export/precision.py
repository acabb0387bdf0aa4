"""Turns a recorded file into one of a format and a precision."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from swin_mm.export.package import write_package
from swin_mm.export.runtime import METADATA_KEY

Inputs = dict[str, np.ndarray]
# Computed in lower precision, as by autocast in training; boxes and scores stay as they are: half
# precision has steps of a pixel from 1024 on.
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def convert(
    recorded: Path,
    file: Path,
    precision: str,
    metadata: dict[str, Any],
    inputs: Iterable[Inputs] = (),
) -> None:
    """Writes a `.onnx`, `.xml` or `.pt2` in `float32`, `half` or `int8` from a recorded file.

    What is recorded is an ONNX file in float32, or for `.pt2` a package. Int8 is calibrated on
    `inputs`, those of one image each.
    """
    file.parent.mkdir(exist_ok=True)
    if file.suffix == ".pt2":
        write_package(recorded, file, metadata)
    elif file.suffix == ".onnx":
        _save_onnx(_to_onnx(recorded, precision, inputs), file, metadata)
    else:
        model = _to_openvino(recorded, precision, inputs)
        _save_openvino(model, file, metadata, half=precision == "half")


def write_metadata(source: Path, file: Path, metadata: dict[str, Any]) -> None:
    """Writes a copy of a file with other metadata."""
    if file.suffix == ".pt2":
        write_package(source, file, metadata)
    elif file.suffix == ".onnx":
        import onnx

        _save_onnx(onnx.load(source), file, metadata)
    else:
        import openvino

        _save_openvino(openvino.Core().read_model(source), file, metadata)


def _save_onnx(model: Any, file: Path, metadata: dict[str, Any]) -> None:
    import onnx

    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata)})
    onnx.save(model, file)


def _save_openvino(model: Any, file: Path, metadata: dict[str, Any], half: bool = False) -> None:
    import openvino

    model.set_rt_info(json.dumps(metadata), METADATA_KEY)
    openvino.save_model(model, str(file), compress_to_fp16=half)


def _to_onnx(recorded: Path, precision: str, inputs: Iterable[Inputs]) -> Any:
    import onnx

    if precision == "int8":
        from onnxruntime.quantization import QuantType, quantize_static

        quantized = recorded.with_name("quantized.onnx")
        quantize_static(
            recorded,
            quantized,
            _Calibration(inputs),
            op_types_to_quantize=list(PRODUCTS),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Products of two inputs, as in attention, are as short as they are sensitive.
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(quantized)
    model = onnx.load(recorded)
    if precision == "half":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        # onnxruntime before 1.24 names a cast after its node, and nodes may have no name.
        for number, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{number}"
        others = sorted({node.op_type for node in model.graph.node} - set(PRODUCTS))
        model = convert_float_to_float16(model, keep_io_types=True, op_block_list=others)
    return model


class _Calibration:
    """Inputs as onnxruntime's `CalibrationDataReader` gives them."""

    def __init__(self, inputs: Iterable[Inputs]) -> None:
        self.inputs: Iterator[Inputs] = iter(inputs)

    def get_next(self) -> Inputs | None:
        return next(self.inputs, None)


def _to_openvino(recorded: Path, precision: str, inputs: Iterable[Inputs]) -> Any:
    import openvino

    model = openvino.convert_model(str(recorded))
    if precision == "int8":
        import nncf

        items = list(inputs)
        model = nncf.quantize(
            model,
            nncf.Dataset(items),
            subset_size=len(items),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(types=["ROIAlign"], validate=False),
        )
    return model
