"""Compiles the NMS kernel, which needs no GPU; run by a test.

    python tests/ops/compile_nms.py 90 100    # capabilities

In a process of its own, since the tests import Triton as an interpreter. Prints a line for each
size of groups and capability, with what it takes; see `kernel_usage.py`.
"""

import sys

from kernel_usage import compile_for, describe_usage
from triton.compiler import ASTSource

from swin_mm.heads.ops.triton_nms import BOXES_PER_WARP, nms_kernel

KINDS = dict(boxes_ptr="*fp32", valid_ptr="*u8", keep_ptr="*u8", num_boxes="i32", threshold="fp32")

if __name__ == "__main__":
    for block in (2048, 4096):
        source = ASTSource(nms_kernel, dict(KINDS, BLOCK="constexpr"), dict(BLOCK=block))
        options = dict(num_warps=block // BOXES_PER_WARP, enable_fp_fusion=False)
        for capability in map(int, sys.argv[1:]):
            compiled = compile_for(source, capability, **options)
            print(f"nms,{block}", capability, describe_usage(compiled), flush=True)
