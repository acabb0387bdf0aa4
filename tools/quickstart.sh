#!/usr/bin/env bash
# From an empty clone to two trained models: makes .venv, draws the built-in data, trains Mask R-CNN
# and then UPerNet on it, tests both and draws pictures, all under work_dirs/quickstart/. Takes a GPU
# where there is one. Started again, it goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/make_env.sh
source .venv/bin/activate

out=work_dirs/quickstart

# train_and_test CONFIG: leaves checkpoints, metrics and pictures in $out/CONFIG.
train_and_test() {
  local config=$1 dir=$out/$1
  if [ ! -e "$dir/trained" ]; then
    python tools/train.py "$config" --work-dir "$dir" --resume
    touch "$dir/trained"
  fi
  python tools/test.py "$config" "$(cat "$dir/last_checkpoint")" --work-dir "$dir"
}

swin-mm shapes easy
train_and_test mask_rcnn_swin_mini_shapes
train_and_test upernet_swin_mini_shapes

echo
echo "Done. Metrics, curves and predictions:"
ls -1 "$out"/*/metrics.json "$out"/*/*.png
