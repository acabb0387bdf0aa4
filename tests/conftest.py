"""Being here, it lets every test import the helpers in this folder, such as `toy_task`."""

import swin_mm  # noqa: F401  (without a compiled mmcv, mmdet can be imported only after it)
