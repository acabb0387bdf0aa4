"""The console command `swin-mm`, and what it shares with the scripts in tools/."""

import os
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType
from typing import Any

from swin_mm.cli.errors import explain_error, was_interrupted
from swin_mm.text import printable
from swin_mm.version import __version__

PROGRAM = "swin-mm"
DEBUG_VARIABLE = "SWIN_MM_DEBUG"

# Each is a module of this package with a function `main(argv)` that returns an exit status or None,
# imported when it is called for: most of them need torch, which takes seconds.
COMMANDS = {
    "train": "train a detector or a segmentor",
    "test": "measure a checkpoint and draw what it predicts",
    "predict": "predict image files, plainly, in several views or in slices",
    "demo": "try a model on a page in the browser",
    "export": "write a model as a file for onnxruntime or OpenVINO",
    "init-config": "write a config for your own data",
    "print-config": "print a config with its bases filled in, or list the configs",
    "get-flops": "count parameters and operations of a model, part by part",
    "analyze-results": "say where a model goes wrong, as a page with pictures",
    "explain": "draw what a model attends to at one pixel, and its feature maps",
    "convert": "rewrite a checkpoint in the layout of another library",
    "inspect": "say what is in a checkpoint",
    "weights": "list published weights, which have names",
    "benchmark": "measure time and memory, beside other libraries",
    "doctor": "check this installation and say how to fix it",
    "shapes": "draw the built-in data set",
    "prepare-dataset": "fetch a public data set and put it where configs look for it",
    "check-dataset": "check all data of a config, and count what is in it",
    "browse-dataset": "draw what training sees, after augmentation",
}
# Those whose name a module cannot have: beside the scripts of this package, `inspect` would stand
# before Python's own.
MODULES = {"convert": "convert_checkpoint", "inspect": "inspect_checkpoint"}

HELP = f"""\
usage: {PROGRAM} COMMAND ...

Swin Transformer detectors and segmentors on MMDetection and MMSegmentation.

commands:
{{commands}}

options:
  -h, --help    show this help, or after a command that command's
  --version     print the version

examples:
  {PROGRAM} print-config
  {PROGRAM} train mask_rcnn_swin_t_shapes
  {PROGRAM} train my_config.py --amp --resume --cfg-options train_dataloader.batch_size=4
  {PROGRAM} test mask_rcnn_swin_t_shapes work_dirs/mask_rcnn_swin_t_shapes/epoch_12.pth \\
      --show-dir pictures

A CONFIG is a path or the name of a config that comes with swin_mm. Errors are one line;
{DEBUG_VARIABLE}=1 shows where they come from."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, 1 for an error, 2 for a wrong command line, 130 for Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP.format(commands="\n".join(f"  {n:<17}{h}" for n, h in COMMANDS.items())))
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"{PROGRAM} {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        nearest = get_close_matches(argv[0], [*COMMANDS, "--help", "--version"], n=1, cutoff=0.4)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(COMMANDS)}"
        print(f"{PROGRAM}: error: no command {argv[0]!r}: {hint}", file=sys.stderr)
        return 2
    # argparse names the program by this.
    sys.argv[0] = f"{PROGRAM} {argv[0]}"
    return run_command(argv[0], argv[1:])


def run_command(name: str, argv: Sequence[str] | None = None) -> int:
    """Runs one command; errors that its user can fix are printed as one line."""
    argv = list(sys.argv[1:] if argv is None else argv)
    format_warning = warnings.formatwarning

    def escape_warning(*args: Any, **kwargs: Any) -> str:
        """Warnings name files and keys, whose escape sequences a terminal would act on."""
        return printable(format_warning(*args, **kwargs), keep="\n\t")

    vars(warnings)["formatwarning"] = escape_warning
    try:
        return import_command(name).main(argv) or 0
    except (KeyboardInterrupt, Exception) as error:
        if was_interrupted(error):
            hint = "; --resume continues from the last checkpoint" if name == "train" else ""
            print(f"\n{PROGRAM}: interrupted{hint}", file=sys.stderr)
            return 130
        message = explain_error(error)
        if message is None or os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
            raise
        print(f"{PROGRAM}: error: {printable(message)}", file=sys.stderr)
        return 1
    finally:
        vars(warnings)["formatwarning"] = format_warning


def import_command(name: str) -> ModuleType:
    """Imports the module of a command, a key of `COMMANDS`."""
    return import_module(f"swin_mm.cli.{MODULES.get(name, name.replace('-', '_'))}")


if __name__ == "__main__":
    sys.exit(main())
