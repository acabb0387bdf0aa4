"""Compiles the NMS kernel for an H100, which needs no GPU; run by a test.

In a process of its own, since the tests import Triton as an interpreter. Prints a line for each
size of groups: the bytes that a thread spills from its registers.
"""

from compile_rows import TARGET, count_spilled_bytes
from triton.compiler import ASTSource, compile

from swin_mm.heads.ops.triton_nms import BOXES_PER_WARP, nms_kernel

KINDS = dict(boxes_ptr="*fp32", valid_ptr="*u8", keep_ptr="*u8", num_boxes="i32", threshold="fp32")

if __name__ == "__main__":
    for block in (2048, 4096):
        source = ASTSource(nms_kernel, dict(KINDS, BLOCK="constexpr"), dict(BLOCK=block))
        options = dict(num_warps=block // BOXES_PER_WARP, enable_fp_fusion=False)
        ptx = compile(source, target=TARGET, options=options).asm["ptx"]
        print(f"{block} boxes: {count_spilled_bytes(ptx)}")
