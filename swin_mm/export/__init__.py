"""Trained models as files that run without PyTorch.

`plan` says which models can be exported, and wraps one so that it takes an image and returns
tensors of known shapes; `prepare` replaces layers that an exporter cannot record; `operators` and
`onnx_operators` are what has no counterpart in ONNX, as operators of PyTorch and as graphs of
standard operators; `write` makes the file, and `check` runs it beside the model. `runtime` is the
other side: one module that reads such files with NumPy and Pillow.
"""
