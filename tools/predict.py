"""`swin-mm predict` for those who work in a checkout."""

import sys

from swin_mm.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("predict"))
