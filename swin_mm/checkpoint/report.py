"""What was loaded, in one line."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from swin_mm.text import printable

# Longer names than this are cut.
MAX_NAME = 200
# More names than this are counted instead of listed.
MAX_NAMES = 4

# Buffers that every block has, computed from its window.
DERIVED = ("relative_position_index", "relative_coords_table", "attn_mask")


@dataclass(frozen=True)
class LoadReport:
    """What became of one checkpoint in one backbone.

    Attributes:
        module: Name of the backbone within the model, e.g. `backbone`.
        layout: Name of the layout that was recognised.
        loaded: Parameters taken from the checkpoint, of `total` that the backbone has.
        dropped: Keys of the checkpoint that the backbone does not need.
        initial: Modules that the checkpoint lacks and that keep their values.
        resized: Parameters that were fitted to another size.
        plain_blocks: Blocks whose mixed context stays at the identity, as the checkpoint has none.
        pretrained_window_sizes: The argument with which a V2 would have the positions of the
            checkpoint, where it has others.
        assumed_window_sizes: The training windows that a V2 assumes, where they are not recorded.
        skipped_prefixes: Prefixes of other backbones in the checkpoint, averages of the one loaded.
        file: Where the checkpoint came from, if known.
    """

    module: str = "backbone"
    layout: str = "Microsoft"
    loaded: int = 0
    total: int = 0
    dropped: tuple[str, ...] = ()
    initial: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    plain_blocks: int = 0
    pretrained_window_sizes: tuple[int, ...] = ()
    assumed_window_sizes: tuple[int, ...] = ()
    skipped_prefixes: tuple[str, ...] = ()
    file: str | None = None

    def __str__(self) -> str:
        """One line, such as `backbone: loaded 173/173 (mmdet layout), dropped head.weight`."""
        file = f" from {self.file}" if self.file else ""
        parts = [f"{self.module}: loaded {self.loaded}/{self.total}{file} ({self.layout} layout)"]
        # Position parameters are alike in every block.
        resized = [key.rpartition(".")[2] if "position" in key else key for key in self.resized]
        for verb, names in (
            ("skipped", self.skipped_prefixes),
            ("dropped", self.dropped),
            ("kept initial", self.initial),
            ("resized", resized),
        ):
            if names:
                parts.append(f"{verb} {list_names(names)}")
        if self.plain_blocks:
            parts.append(f"left the mixed context of {self.plain_blocks} blocks at the identity")
        if self.pretrained_window_sizes:
            parts.append(
                "BUT positions are in other units than in training, for the numbers of training "
                f"set pretrained_window_sizes={self.pretrained_window_sizes}"
            )
        if self.assumed_window_sizes:
            parts.append(
                "training windows are not recorded, assumed "
                f"pretrained_window_sizes={self.assumed_window_sizes}"
            )
        return ", ".join(parts)


def list_names(names: Sequence[str]) -> str:
    """Lists a few keys of a state dict, and counts many by what they belong to.

    For example `head.weight, head.bias`, or `12 x relative_position_index, 40 x roi_head.*`.
    """
    if len(names) <= MAX_NAMES:
        return ", ".join(map(_shorten, names))
    counts = Counter(_group(name) for name in names)
    return ", ".join(f"{count} x {_shorten(group)}" for group, count in counts.items())


def _shorten(name: str) -> str:
    name = printable(name)
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}..."


def _group(name: str) -> str:
    parts = name.split(".")
    if len(parts) == 1 or parts[-1] in DERIVED:
        return parts[-1]
    return ".".join(parts[: 2 if parts[0] == "layers" else 1]) + ".*"
