"""Built-in data: procedurally drawn, deterministic scenes of textured shapes."""

from swin_mm.datasets.shapes.presets import (
    CLASSES,
    PALETTE,
    PRESETS,
    SEMANTIC_CLASSES,
    SEMANTIC_PALETTE,
    Preset,
)
from swin_mm.datasets.shapes.scene import Scene, draw_scene
from swin_mm.datasets.shapes.write import ensure_shapes, write_shapes

__all__ = [
    "CLASSES",
    "PALETTE",
    "PRESETS",
    "SEMANTIC_CLASSES",
    "SEMANTIC_PALETTE",
    "Preset",
    "Scene",
    "draw_scene",
    "ensure_shapes",
    "write_shapes",
]
