"""The built-in language with plain windows, to see what mixed context gives."""

_base_ = "language.py"

model = dict(context_scales=())
