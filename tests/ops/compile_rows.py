"""Compiles the kernels that go by rows, which needs no GPU; run by a test.

    python tests/ops/compile_rows.py 96,1536 90 100    # channels, capabilities

Prints a line for each kernel, width and capability, with what it takes (see `kernel_usage.py`) and
how many of its divisions are not rounded to nearest.
"""

import re
import sys

from kernel_usage import compile_for, describe_usage
from triton.compiler import ASTSource

from swin_mm.ops.triton import add_norm, merge_norm, mlp, norm_add, rows

WIDE, NARROW = "*fp32", "*bf16"
INT, FLOAT = "i32", "fp32"
# (kernel, elements of a tile; all arguments but constants)
ROWS = dict(noise_ptr=WIDE, stats_ptr=WIDE, num_rows=INT, rows_per_sample=INT)
PROGRAMS = dict(partial_ptr=WIDE, num_programs=INT)
KERNELS = {
    "add_norm.forward": (
        add_norm.forward_kernel,
        rows.FORWARD_TILE,
        dict(x_ptr=WIDE, value_ptr=NARROW, branch_bias_ptr=WIDE, weight_ptr=WIDE, bias_ptr=WIDE)
        | dict(total_ptr=WIDE, out_ptr=NARROW, keep_prob=FLOAT, eps=FLOAT, **ROWS),
    ),
    "add_norm.backward": (
        add_norm.backward_kernel,
        rows.BACKWARD_TILE,
        dict(saved_ptr=WIDE, saved_bias_ptr=None, weight_ptr=WIDE, grad_total_ptr=WIDE)
        | dict(grad_out_ptr=NARROW, grad_x_ptr=WIDE, grad_value_ptr=NARROW, keep_prob=FLOAT)
        | ROWS
        | PROGRAMS,
    ),
    "norm_add.forward": (
        norm_add.forward_kernel,
        rows.FORWARD_TILE,
        dict(x_ptr=WIDE, value_ptr=NARROW, branch_bias_ptr=WIDE, weight_ptr=WIDE, bias_ptr=WIDE)
        | dict(total_ptr=WIDE, copy_ptr=NARROW, keep_prob=FLOAT, eps=FLOAT, **ROWS),
    ),
    "norm_add.backward": (
        norm_add.backward_kernel,
        rows.BACKWARD_TILE,
        dict(value_ptr=NARROW, branch_bias_ptr=WIDE, weight_ptr=WIDE, grad_total_ptr=WIDE)
        | dict(grad_copy_ptr=NARROW, grad_x_ptr=WIDE, grad_value_ptr=NARROW, keep_prob=FLOAT)
        | ROWS
        | PROGRAMS,
    ),
    "merge_norm.forward": (
        merge_norm.forward_kernel,
        rows.FORWARD_TILE,
        dict(x_ptr=WIDE, weight_ptr=WIDE, bias_ptr=WIDE, out_ptr=NARROW, stats_ptr=WIDE)
        | dict(num_rows=INT, height=INT, width=INT, eps=FLOAT),
    ),
    "merge_norm.backward": (
        merge_norm.backward_kernel,
        rows.BACKWARD_TILE,
        dict(x_ptr=WIDE, weight_ptr=WIDE, stats_ptr=WIDE, grad_out_ptr=NARROW, grad_x_ptr=WIDE)
        | dict(num_rows=INT, height=INT, width=INT, **PROGRAMS),
    ),
    "mlp.forward": (
        mlp.forward_kernel,
        None,
        dict(product_ptr=NARROW, bias_ptr=WIDE, out_ptr=NARROW, num_rows=INT),
    ),
    "mlp.backward": (
        mlp.backward_kernel,
        None,
        dict(product_ptr=NARROW, bias_ptr=WIDE, grad_out_ptr=NARROW, out_ptr=NARROW)
        | dict(grad_product_ptr=NARROW, num_rows=INT, **PROGRAMS),
    ),
}


def compile_kernel(kernel, elements: int | None, arguments: dict, channels: int, capability: int):
    """A kernel for maps of `channels`."""
    joined = 4 * channels if kernel in vars(merge_norm).values() else channels
    tile = rows.choose_tile(joined, elements) if elements else None
    tile = tile or dict(BLOCK_R=mlp.BLOCK_R, BLOCK_C=mlp.BLOCK_C, num_warps=4)
    num_warps = tile.pop("num_warps")
    constants = dict(CHANNELS=channels, **tile)
    constants |= {name: None for name, kind in arguments.items() if kind is None}
    kinds = {name: arguments.get(name) or "constexpr" for name in kernel.arg_names}
    # As a launch does, for pointers are aligned to 16 bytes.
    aligned = [["tt.divisibility", 16]]
    attrs = {(i,): aligned for i, kind in enumerate(kinds.values()) if kind.startswith("*")}
    source = ASTSource(kernel, kinds, constants, attrs)
    return compile_for(source, capability, num_warps=num_warps)


if __name__ == "__main__":
    for name, (kernel, elements, arguments) in KERNELS.items():
        for channels in map(int, sys.argv[1].split(",")):
            for capability in map(int, sys.argv[2:]):
                compiled = compile_kernel(kernel, elements, arguments, channels, capability)
                rough = len(re.findall(r"div\.(?!rn)\w+\.f32", compiled.asm["ptx"]))
                print(f"{name},{channels}", capability, describe_usage(compiled), rough, flush=True)
