"""Operators of `swin_mm.ops.reference`, each as one kernel."""

from swin_mm.ops.triton.add_norm import add_norm
from swin_mm.ops.triton.merge_norm import merge_norm
from swin_mm.ops.triton.mlp import mlp
from swin_mm.ops.triton.norm_add import norm_add

__all__ = ["add_norm", "merge_norm", "mlp", "norm_add"]
