"""Reading files of weights and of predictions as data: the one door to all of them."""

from swin_mm.checkpoint.files.read import read_file
from swin_mm.checkpoint.files.torch_files import read_pickle
from swin_mm.checkpoint.files.values import FileContentError, ForbiddenError

__all__ = ["FileContentError", "ForbiddenError", "read_file", "read_pickle"]
