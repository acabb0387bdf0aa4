"""Puts the repairs in place before any test module imports what they repair."""

import swin_mm  # noqa: F401
