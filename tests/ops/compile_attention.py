"""Compiles the kernels of window attention, which needs no GPU; run by a test.

    python tests/ops/compile_attention.py bfloat16 32 90 100    # dtype, head width, capabilities

Prints a line for each kernel and capability, with what it takes; see `kernel_usage.py`.
"""

import sys

import torch
import triton
from kernel_usage import compile_for, describe_usage
from triton.compiler import ASTSource

from swin_mm.ops.triton import launch

WINDOW = {"one_tile": (7, 7), "many_tiles": (12, 12)}
NAMES = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
WIDE = ("bias_ptr", "grad_bias_ptr", "grad_pad_ptr", "stats_ptr")  # float32 always


def compile_kernel(name: str, dtype: torch.dtype, head_dim: int, capability: int):
    """A kernel for shifted windows that do not divide the map."""
    launched, (win_h, win_w) = (
        launch.choose_launch(name, dtype, head_dim),
        WINDOW[name.partition(".")[0]],
    )
    kernel, side = launched.kernel, launch.tile_side(dtype)
    constants = dict(NUM_HEADS=3, HEAD_DIM=head_dim, FILLS_PADDING=True, PRECISION="ieee")
    constants |= dict(WINDOW=(win_h, win_w, win_h // 2, win_w // 2))
    constants |= dict(DOT_DTYPE=launch.dot_dtype(dtype))
    if name.startswith("one_tile"):
        constants["BLOCK"] = triton.next_power_of_2(win_h * win_w)
    else:
        constants |= dict(BLOCK_M=side, BLOCK_N=side)
    constants["BLOCK_D"] = triton.next_power_of_2(head_dim)
    kinds = dict.fromkeys(kernel.arg_names, "i32") | {"scale": "fp32"}
    kinds["strides"] = ("i32",) * 3
    kinds |= dict.fromkeys(constants, "constexpr")
    kinds |= {a: "*fp32" if a in WIDE else NAMES[dtype] for a in kinds if a.endswith("_ptr")}
    # As a launch finds them: pointers, and strides of whole heads.
    names, aligned = list(kinds), [["tt.divisibility", 16]]
    attrs = {(i,): aligned for i, name in enumerate(names) if name.endswith("_ptr")}
    attrs |= {(names.index("strides"), i): aligned for i in range(3)}
    source = ASTSource(kernel, kinds, constants, attrs)
    num_warps, num_stages = launched.num_warps, launched.num_stages
    return compile_for(source, capability, num_warps=num_warps, num_stages=num_stages)


if __name__ == "__main__":
    dtype, head_dim = getattr(torch, sys.argv[1]), int(sys.argv[2])
    for name in launch.LAUNCHES:
        if name.startswith("one_tile") and launch.tile_side(dtype) < 49:
            continue
        for capability in map(int, sys.argv[3:]):
            compiled = compile_kernel(name, dtype, head_dim, capability)
            print(name, capability, describe_usage(compiled), flush=True)
