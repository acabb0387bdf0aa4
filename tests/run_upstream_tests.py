"""Runs mmdet's own tests with this package's classes, and mmcv's tests of operators.

    python tests/run_upstream_tests.py mmdet path/to/mmdetection
    python tests/run_upstream_tests.py mmcv path/to/mmcv

Both want a checkout of the installed version, and the package parameterized. mmdet's tests run
twice, with its own classes and with ours of the same names; those that end otherwise are listed,
and those that fail with both. Tests that ask for a GPU run on the CPU. docs/compatibility.md
explains what is listed.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

MMDET_TESTS = (
    "test_models/test_backbones/test_swin.py",
    "test_models/test_necks/test_necks.py",
    "test_models/test_dense_heads/test_rpn_head.py",
    "test_models/test_roi_heads/test_standard_roi_head.py",
    "test_models/test_roi_heads/test_cascade_roi_head.py",
    "test_models/test_roi_heads/test_htc_roi_head.py",
    "test_models/test_roi_heads/test_mask_heads",
    "test_models/test_data_preprocessors/test_data_preprocessor.py",
    "test_models/test_detectors/test_rpn.py",
    "test_models/test_detectors/test_two_stage.py",
    "test_evaluation/test_metrics/test_coco_metric.py",
)
ON_CPU = {"torch.cuda.is_available()": "True", ".cuda()": "", "'cuda'": "'cpu'"}
OUTCOME = re.compile(r"^(PASSED|FAILED|ERROR|SKIPPED) (\S+)(?: - (.*))?$", re.MULTILINE)

# A plugin for pytest, which puts our classes in the place of mmdet's.
SWAP = """
import sys

import swin_mm  # brings mmcv's operators
import mmdet.registry
import mmdet.testing._utils
import swin_mm.registry
import torch
from mmdet.utils import register_all_modules

register_all_modules()


def pytest_runtest_setup():
    torch.manual_seed(2)


mmdet.testing._utils._get_config_directory = lambda: {configs!r}
for kind in ("MODELS", "METRICS") if {is_swapped} else ():
    registry, own = getattr(mmdet.registry, kind), getattr(swin_mm.registry, kind)
    own.import_from_location()
    for name in own.module_dict.keys() & registry.module_dict.keys():
        stock, ours = registry.module_dict[name], own.module_dict[name]
        registry.module_dict[name] = ours
        for key, module in list(sys.modules.items()):
            if key.startswith("mmdet.") and getattr(module, name, None) is stock:
                setattr(module, name, ours)
"""


def run_pytest(folder: Path, *arguments: str) -> dict[str, tuple[str, str]]:
    """Runs tests: of each its outcome and message."""
    command = [sys.executable, "-m", "pytest", "-n0", "-q", "-rA", "-p", "no:cacheprovider"]
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "300"}
    found = subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    outcomes = {name: (kind, why) for kind, name, why in OUTCOME.findall(found.stdout)}
    if not outcomes:
        sys.exit(found.stdout[-3000:] + found.stderr[-3000:])
    return outcomes


def copy_for_cpu(checkout: Path, folder: Path) -> list[str]:
    """Copies mmdet's tests and the data beside them; gives those to run."""
    chosen = []
    for name in MMDET_TESTS:
        source = checkout / "tests" / name
        for path in source.rglob("test_*.py") if source.is_dir() else [source]:
            text = path.read_text()
            for gpu, cpu in ON_CPU.items():
                text = text.replace(gpu, cpu)
            target = folder / path.relative_to(checkout)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            chosen.append(str(target.relative_to(folder)))
    return chosen


def compare_mmdet(checkout: Path) -> None:
    results = []
    for is_swapped in (False, True):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            configs = str(checkout.resolve() / "configs")
            plugin = SWAP.format(configs=configs, is_swapped=is_swapped)
            (folder / "swapped.py").write_text(plugin)
            results.append(run_pytest(folder, "-p", "swapped", *copy_for_cpu(checkout, folder)))
    stock, ours = results
    for name in sorted({*stock, *ours}):
        before, after = (r.get(name, ("MISSING", "")) for r in (stock, ours))
        if before[0] != after[0]:
            print(f"{before[0]} -> {after[0]} {name}: {after[1] or before[1]}")
        elif before[0] in ("FAILED", "ERROR"):
            print(f"{before[0]} with both {name}: {before[1]}")
    for label, found in (("mmdet's classes", stock), ("ours", ours)):
        print(f"{label}: {count(found)}")


def run_mmcv(checkout: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tests").symlink_to(checkout.resolve() / "tests")
        ignored = "--ignore=tests/test_ops/test_onnx.py"  # needs onnx, and exports no model
        found = run_pytest(folder, "-p", "swin_mm", ignored, "tests/test_ops")
    for name, (kind, why) in sorted(found.items()):
        if kind in ("FAILED", "ERROR"):
            print(f"{kind} {name}: {why}")
    print(count(found))


def count(found: dict[str, tuple[str, str]]) -> str:
    kinds = [kind for kind, _ in found.values()]
    return ", ".join(f"{kinds.count(kind)} {kind.lower()}" for kind in sorted(set(kinds)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("package", choices=("mmdet", "mmcv"))
    parser.add_argument("checkout", type=Path, help="folder with the tests of the package")
    args = parser.parse_args()
    {"mmdet": compare_mmdet, "mmcv": run_mmcv}[args.package](args.checkout)


if __name__ == "__main__":
    main()
