"""The check of a config's data before training or testing starts.

Every check raises `DatasetError` where what it checks does not hold; an `Inspection` decides
whether that ends the check. Arguments mean the same everywhere: `source` is a data set of the
config, `where` its path in the config, `coco` the content of an annotation file (whose form is in
order once it has been read), `path` that file, `folder` the folder of the images, `reader` what
training loads them with, `labelled` whether annotations are required, without which a test set may
come, and `inspection` how closely to look. `where`, `what`, `command` and `remedy` are for
messages. What has a list for its result returns warnings.
"""

from swin_mm.datasets.check.config import check_config, inspect_config
from swin_mm.datasets.check.inspection import Inspection
from swin_mm.datasets.check.summary import DatasetError, DatasetSummary, SplitSummary

__all__ = [
    "DatasetError",
    "DatasetSummary",
    "Inspection",
    "SplitSummary",
    "check_config",
    "inspect_config",
]
