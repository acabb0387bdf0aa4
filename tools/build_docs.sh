#!/usr/bin/env bash
# Makes the environment and builds the docs site in build/site. Arguments go to mkdocs:
# `bash tools/build_docs.sh serve` shows it and follows changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/make_env.sh docs
if [[ $# -eq 0 ]]; then
  set -- build --strict
fi
exec .venv/bin/python -m mkdocs "$@"
