"""The package's version, read by setup.cfg and by `swin-mm doctor`."""

__version__ = "0.1.0"
