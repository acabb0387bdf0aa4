"""`upernet_swin_mini_shapes` with mixed-context attention: means of each window and of the map.

No published result; measured: mIoU 73.5 (three seeds; the plain one 73.7, see README.md here).
Otherwise the same, to compare the two.
Command: `python tools/train.py configs/upernet_swin_mini_context_shapes.py`
"""

_base_ = "upernet_swin_mini_shapes.py"

model = dict(backbone=dict(context_scales=("window", "global")))
