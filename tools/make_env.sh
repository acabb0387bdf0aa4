#!/usr/bin/env bash
# Makes .venv with swin_mm (editable) and the extras asked for, or leaves it as it is when nothing
# that decides its contents has changed. Sourced or run: `bash tools/make_env.sh [EXTRA,EXTRA]`.
# PYTHON names the interpreter that the environment is made with (default: python3).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
extras=${1:-}
python=${PYTHON:-python3}

"$python" - <<'END' || exit 1
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.exit(
        f"swin_mm needs Python 3.10 to 3.13, found {sys.version.split()[0]}: "
        "name another interpreter with PYTHON=python3.12 bash ..."
    )
END

[ -x "$root/.venv/bin/python" ] || "$python" -m venv "$root/.venv"
IFS=, read -ra names <<< "${extras:-plain}"
wanted=$(cat "$root/setup.cfg" "$root/pyproject.toml" | sha256sum)
missing=
for name in "${names[@]}"; do
  [ "$(cat "$root/.venv/.installed-$name" 2>/dev/null)" = "$wanted" ] || missing=yes
done
if [ -n "$missing" ]; then
  echo "Installing swin_mm${extras:+ with [$extras]} into .venv (PyTorch is large: a few minutes)"
  # pip would compile 20,000 files on one core. Left to the first import, nothing would be compiled
  # where PYTHONDONTWRITEBYTECODE is set. Some packages hold files that are no Python: no errors.
  "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
    --editable "$root${extras:+[$extras]}"
  "$root/.venv/bin/python" -m compileall -qq -j 0 "$root/.venv/lib" || true
  for name in "${names[@]}"; do
    echo "$wanted" > "$root/.venv/.installed-$name"
  done
fi
