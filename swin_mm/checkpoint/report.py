"""What was loaded, in one line."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

# More names than this are counted instead of listed.
MAX_NAMES = 4

# Buffers that every block has, told from its window.
DERIVED = ("relative_position_index", "relative_coords_table", "attn_mask")


@dataclass(frozen=True)
class LoadReport:
    """What became of one checkpoint in one backbone.

    Attributes:
        module: Name of the backbone within the model, e.g. `backbone`.
        layout: Name of the layout that was recognised.
        loaded: Parameters taken from the checkpoint.
        total: Parameters of the backbone.
        dropped: Keys of the checkpoint that the backbone does not need.
        initial: Modules that the checkpoint lacks and that keep their values.
        resized: Parameters that were fitted to another size.
        plain_blocks: Blocks whose mixed context was left at the identity, as the checkpoint has
            none.
        passed_over: Prefixes of other backbones in the checkpoint, averages of the one loaded.
        file: Where the checkpoint came from, if known.
    """

    module: str
    layout: str
    loaded: int
    total: int
    dropped: tuple[str, ...] = ()
    initial: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    plain_blocks: int = 0
    passed_over: tuple[str, ...] = ()
    file: str | None = None

    def __str__(self) -> str:
        """One line, such as `backbone: loaded 173/173 (mmdet layout), dropped head.weight`."""
        file = f" from {self.file}" if self.file else ""
        parts = [f"{self.module}: loaded {self.loaded}/{self.total}{file} ({self.layout} layout)"]
        # Position parameters are alike in every block.
        resized = [key.rpartition(".")[2] if "position" in key else key for key in self.resized]
        for verb, names in (
            ("passed over", self.passed_over),
            ("dropped", self.dropped),
            ("kept initial", self.initial),
            ("resized", resized),
        ):
            if names:
                parts.append(f"{verb} {list_names(names)}")
        if self.plain_blocks:
            parts.append(f"left the mixed context of {self.plain_blocks} blocks at the identity")
        return ", ".join(parts)


def list_names(names: Sequence[str]) -> str:
    """Lists a few names, and counts many by what they belong to.

    Args:
        names: Keys of a state dict.

    Returns:
        For example `head.weight, head.bias`, or `12 x relative_position_index, 40 x roi_head.*`.
    """
    if len(names) <= MAX_NAMES:
        return ", ".join(names)
    counts = Counter(_group(name) for name in names)
    return ", ".join(f"{count} x {group}" for group, count in counts.items())


def _group(name: str) -> str:
    parts = name.split(".")
    if len(parts) == 1 or parts[-1] in DERIVED:
        return parts[-1]
    return ".".join(parts[: 2 if parts[0] == "layers" else 1]) + ".*"
