#!/usr/bin/env bash
# Makes .venv with swin_mm (editable) and the extras asked for, or leaves it as it is when nothing
# that decides its contents has changed. Sourced or run: `bash tools/make_env.sh [EXTRAS]`.
# PYTHON names the interpreter that the environment is made with (default: python3).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
extras=${1:-}
python=${PYTHON:-python3}

"$python" - <<'EOF' || exit 1
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.exit(
        f"swin_mm needs Python 3.10 to 3.13, found {sys.version.split()[0]}: "
        "name another interpreter with PYTHON=python3.12 bash ..."
    )
EOF

[ -x "$root/.venv/bin/python" ] || "$python" -m venv "$root/.venv"
stamp=$root/.venv/.installed-${extras:-plain}
wanted=$(cat "$root/setup.cfg" "$root/pyproject.toml" | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "Installing swin_mm${extras:+ with [$extras]} into .venv (PyTorch is large: a few minutes)"
  "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root${extras:+[$extras]}"
  echo "$wanted" > "$stamp"
fi
