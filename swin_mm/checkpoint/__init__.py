"""Reading published Swin weights: files without running their code, layouts, fitting, reports."""

from swin_mm.checkpoint.errors import CheckpointError
from swin_mm.checkpoint.hook import register_load_hook
from swin_mm.checkpoint.load import load_checkpoint_file
from swin_mm.checkpoint.lora import merge_lora
from swin_mm.checkpoint.report import LoadReport

__all__ = [
    "CheckpointError",
    "LoadReport",
    "load_checkpoint_file",
    "merge_lora",
    "register_load_hook",
]
