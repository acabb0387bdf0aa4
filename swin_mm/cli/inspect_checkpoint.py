"""Says what is in a checkpoint: whose layout, which Swin, and what else the file holds."""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swin_mm.checkpoint import CheckpointError, load_checkpoint_file
from swin_mm.checkpoint.find import Backbone, find_backbone
from swin_mm.checkpoint.finite import list_non_finite
from swin_mm.checkpoint.report import list_names
from swin_mm.checkpoint.variant import list_output_norms
from swin_mm.cli.parser import CommandParser
from swin_mm.console import PlainConsole, make_table
from swin_mm.models.backbones.arguments import ARCHS

MIB = 2**20
# Longer texts than this, such as the config in mmdet's files, are not printed.
MAX_TEXT = 60
# What defines a published variant.
ARCH_ARGUMENTS = ("embed_dims", "depths", "num_heads")
# Stages of every published Swin.
NUM_STAGES = 4
# Arguments with the value that a published Swin has, so that it is not worth telling.
USUAL = {
    "in_channels": 3,
    "patch_size": (4, 4),
    "mlp_ratio": 4,
    "qkv_bias": True,
    "patch_norm": True,
    "use_abs_pos_embed": False,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Inspects one file; returns 1 if weights are NaN or infinite."""
    parser = CommandParser(
        description="Say what is in a checkpoint: layout, Swin variant, window, what else it "
        "holds. Nothing in the file is executed."
    )
    parser.add_argument(
        "file", help="checkpoint (.pth, .bin, .safetensors), or the folder of a sharded one"
    )
    add_prefix_option(parser)
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    args = parser.parse_args(argv)

    checkpoint = load_checkpoint_file(args.file)
    backbone = find_in_file(args.file, checkpoint, args.prefix)
    facts = collect_facts(args.file, checkpoint, backbone)
    status = int(bool(facts["non_finite"]))
    if args.json:
        print(json.dumps(facts, indent=2))
        return status
    PlainConsole().print(make_table(describe_facts(facts)))
    return status


def add_prefix_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--prefix` to a command that reads a backbone from a file."""
    parser.add_argument(
        "--prefix",
        default="",
        metavar="TEXT",
        help="look only at keys that begin with TEXT, for a file with several backbones",
    )


def find_in_file(path: str, checkpoint: Mapping[str, Any], prefix: str) -> Backbone:
    """As `find_backbone`, with errors that name the file."""
    try:
        return find_backbone(checkpoint, prefix)
    except CheckpointError as error:
        raise CheckpointError(f"cannot use {path}: {error}") from None


def collect_facts(path: str, checkpoint: Mapping[str, Any], backbone: Backbone) -> dict[str, Any]:
    """Gathers facts by name; sizes in bytes, windows in tokens, patches in pixels."""
    values = list(backbone.state.values())
    variant, place = backbone.read_variant(), Path(path).expanduser()
    files = [file for file in place.iterdir() if file.is_file()] if place.is_dir() else [place]
    return {
        "file": path,
        "bytes": sum(file.stat().st_size for file in files),
        "layout": backbone.layout.name,
        "model": describe_model(backbone),
        "arch": name_arch(variant),
        "variant": variant,
        "parameters": sum(value.numel() for value in values),
        "tensors": len(values),
        "dtypes": sorted({str(value.dtype).removeprefix("torch.") for value in values}),
        "wrapper": backbone.wrapper,
        "prefix": backbone.prefix,
        "output_norms": list_output_norms(backbone.state),
        "surplus": backbone.unused,
        "unknown": backbone.unknown,
        "other_parts": dict(Counter(key.partition(".")[0] for key in backbone.others)),
        "non_finite": list_non_finite(checkpoint),
        "beside": {str(k): _outline(v) for k, v in checkpoint.items() if str(k) in backbone.beside},
    }


def name_arch(variant: Mapping[str, Any]) -> str | None:
    """Name of the published variant that has these widths and depths, None for others."""
    numbers = tuple(variant.get(name) for name in ARCH_ARGUMENTS)
    return next((name for name, arch in ARCHS.items() if tuple(arch) == numbers), None)


def describe_model(backbone: Backbone) -> str:
    """Names the model in a few words, such as `Swin V1 tiny, window 7`."""
    variant = backbone.read_variant()
    words = name_arch(variant) or ", ".join(
        f"{name} {_text(variant[name])}" for name in ARCH_ARGUMENTS if name in variant
    )
    if "window_size" in variant:
        words += f", window {_side(variant['window_size'])}"
    if variant["context_scales"]:
        words += f", mixed context of {variant['context_scales']} scales"
    return f"Swin V{variant['version']} {words}"


def describe_facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Describes what `collect_facts` gathered, the important facts first."""
    variant = facts["variant"]
    rows = [
        ("file", f"{facts['file']} ({facts['bytes'] / MIB:.1f} MiB)"),
        ("layout", facts["layout"]),
        ("model", facts["model"]),
        ("window", _describe_window(variant)),
        ("mixed context", _describe_context(variant)),
        ("input channels", str(variant.get("in_channels", "unknown"))),
        ("patch", _describe_pair(variant.get("patch_size", ("unknown",)), "pixels")),
        (
            "parameters",
            f"{facts['parameters'] / 1e6:.2f} M in {facts['tensors']} tensors of "
            f"{', '.join(facts['dtypes'])}",
        ),
        ("output norms", ", ".join(facts["output_norms"]) or "none"),
        ("prefix", facts["prefix"] or "none"),
        ("within", repr(facts["wrapper"]) if facts["wrapper"] else ""),
        ("to load it", suggest_config(facts)),
    ]
    parts = (f"{name} ({count} tensors)" for name, count in facts["other_parts"].items())
    beside = (f"{name}: {_describe(value)}" for name, value in facts["beside"].items())
    rows += [
        ("NaN or infinite", list_names(facts["non_finite"])),
        ("not needed", list_names(facts["surplus"])),
        ("not understood", list_names(facts["unknown"])),
        ("other parts", ", ".join(parts)),
        ("beside it", "; ".join(beside)),
    ]
    return [(name, text) for name, text in rows if text]


def suggest_config(facts: Mapping[str, Any]) -> str:
    """Writes the backbone of a config that takes the file as it is."""
    variant = facts["variant"]
    kind = "SwinTransformer" if variant["version"] == 1 else "SwinTransformerV2"
    shown: dict[str, Any] = {"type": f"swin_mm.{kind}"}
    if facts["arch"]:
        shown["arch"] = facts["arch"]
    else:
        shown |= {name: variant[name] for name in ARCH_ARGUMENTS if name in variant}
    if "window_size" in variant:
        shown["window_size"] = _side(variant["window_size"])
    for name, usual in USUAL.items():
        if variant.get(name, usual) != usual:
            shown[name] = _side(variant[name])
    if "patch_size" in shown:
        shown["strides"] = (shown["patch_size"], 2, 2, 2)
    if len(variant["depths"]) != NUM_STAGES:
        shown["out_indices"] = tuple(range(len(variant["depths"])))
    return f"dict({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


def _describe_window(variant: Mapping[str, Any]) -> str:
    if "window_size" in variant:
        return _describe_pair(variant["window_size"], "tokens")
    if variant["version"] == 2:
        return "not in the file: take that of training, or name it in pretrained_window_sizes"
    return "not square, and the file does not say its sides"


def _describe_context(variant: Mapping[str, Any]) -> str:
    number = variant["context_scales"]
    return f"{number} scales; the config must name them in context_scales" if number else ""


def _describe_pair(pair: tuple, unit: str) -> str:
    return f"{' x '.join(map(str, pair))} {unit}"


def _side(pair: Any) -> Any:
    """One number for a pair of equal ones."""
    return pair[0] if isinstance(pair, tuple) and pair[0] == pair[1] else pair


def _outline(value: Any) -> Any:
    """Shortens what is beside the weights to what JSON can hold and a reader wants to know."""
    if isinstance(value, Mapping):
        plain = {str(key): item for key, item in value.items() if _is_short(item)}
        return plain or f"{len(value)} entries"
    if _is_short(value):
        return value
    return f"{len(value)} entries" if isinstance(value, list | tuple) else type(value).__name__


def _is_short(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_TEXT and "\n" not in value
    return isinstance(value, bool | int | float)


def _describe(outline: Any) -> str:
    if isinstance(outline, Mapping):
        return ", ".join(f"{name} {value}" for name, value in outline.items())
    return str(outline)


def _text(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
