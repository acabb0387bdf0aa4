"""Small detectors and segmentors, trained for some steps in one process or divided among several.

    python tests/shard_training.py [NAMES ...] [--processes 2 4] [--steps 5]

prints how far losses and weights of recipes are from those of one process. Each step has `BATCHES`
batches, each with random numbers of its own: one process accumulates them, several take their
shares.
"""

import argparse
import sys
import tempfile
import warnings
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent / "configs"))

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.hooks import EMAHook
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from recipe_tools import build_small, detection_data, load, narrow_heads, segmentation_data
from torch.nn.modules.batchnorm import _BatchNorm

import swin_mm  # noqa: F401
from swin_mm.engine.runner_parts import gather_tensor, own_part
from swin_mm.engine.sharding import ShardedModel, ShardHook

BATCHES = 4
EVALUATED = 10**6  # number of the batch that is predicted for
NAMES = ("mask_rcnn_swin_t", "cascade_mask_rcnn_swin_t", "upernet_swin_t", "mask2former_swin_t")
MIN_PARAMETERS = 2000  # so that parts of the small heads are units
PATIENCE = timedelta(minutes=5)
OPTIM_WRAPPER = dict(
    type="swin_mm.OptimWrapper",
    # With a larger eps than usual: AdamW makes whole steps of gradients that are rounding errors.
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=0.05, eps=1e-3),
    clip_grad=dict(max_norm=1.0),
)


def build(name: str, **backbone):
    """The small model of a recipe, the same in every process."""
    torch.manual_seed(0)
    cfg = load(name)
    cfg.model.backbone.update(backbone)
    if cfg.default_scope == "mmdet":
        for part in {"neck", "rpn_head", "roi_head"} & set(cfg.model):
            narrow_heads(cfg.model[part])
    else:
        cfg.model.data_preprocessor.update(size=None, size_divisor=1)
    return build_small(cfg).train()


def make_batch(name: str, number: int) -> dict:
    """A batch by its number; also sets the random numbers of its step."""
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002
    if "upernet" not in name:
        return detection_data()
    data = segmentation_data()  # of equal images, whose variances are rounding errors
    return {**data, "inputs": [torch.randint_like(image, 256) for image in data["inputs"]]}


def train(
    name: str,
    steps: int,
    rank: int = 0,
    world: int = 1,
    settings=None,
    ema=False,
    group_size=None,
    **backbone,
) -> dict:
    """Trains in this process, which is one of `world`; the model is divided where there is a group.

    Returns:
        Losses by the number of their batch, all weights after the last step, how many of them this
        process has itself, and what the model then predicts for a batch.
    """
    model = build(name, **backbone)
    wrapper = build_optim_wrapper(model, {**OPTIM_WRAPPER, **(settings or {})})
    wrapper._accumulative_counts = BATCHES // world
    runner = SimpleNamespace(model=model, optim_wrapper=wrapper, hooks=[], iter=0)
    if ema:
        average = EMAHook(ema_type="swin_mm.ExponentialMovingAverage", momentum=0.1)
        average.before_run(runner)
        runner.hooks.append(average)
    if dist.is_initialized():
        runner.model = ShardedModel(model, group_size, MIN_PARAMETERS)
        ShardHook().before_train(runner)
    losses = {}
    for number in range(rank, steps * BATCHES, world):
        logged = runner.model.train_step(make_batch(name, number), wrapper)
        losses[number] = {key: value.item() for key, value in logged.items()}
        if wrapper.should_update():
            for hook in runner.hooks:
                hook.after_train_iter(runner, 0)
    models = [model, *(hook.ema_model.module for hook in runner.hooks)]
    weights = [
        {key: gather_tensor(value).clone() for key, value in one.state_dict().items()}
        for one in models
    ]
    own = sum(own_part(parameter).numel() for parameter in model.parameters())
    return dict(losses=losses, weights=weights, own=own, predicted=predict(runner.model, name))


def predict(model, name: str) -> torch.Tensor | None:
    """Scores and boxes of a batch; none of a model with batch norm, whose statistics differ."""
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        return None
    model.eval()
    with torch.no_grad():
        samples = model.val_step(make_batch(name, EVALUATED))
    model.train()
    found = [sample.pred_instances for sample in samples]
    return torch.cat([torch.cat([one.scores[:, None], one.bboxes], 1) for one in found])


def run_rank(rank: int, world: int, folder: str, arguments: dict) -> None:
    """Trains as one of several processes and writes what came out into a folder."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{folder}/store", rank=rank, world_size=world, timeout=PATIENCE
    )
    torch.save(train(rank=rank, world=world, **arguments), f"{folder}/{rank}.pth")
    dist.destroy_process_group()


def train_divided(world: int, **arguments) -> dict:
    """`train` in several processes, each a fork, since new ones would import everything again."""
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(run_rank, (world, folder, arguments), world, start_method="fork")
        found = [torch.load(f"{folder}/{rank}.pth") for rank in range(world)]
    losses = {number: values for part in found for number, values in part["losses"].items()}
    return {**found[0], "losses": losses}


def differences(found: dict, wanted: dict) -> tuple[float, float]:
    """The largest difference of losses, relative where they exceed 1, and that of weights.

    Predictions must be the same to `1e-4`, in scores and relative to boxes.
    """
    torch.testing.assert_close(found["predicted"], wanted["predicted"], rtol=1e-4, atol=1e-4)
    assert found["losses"].keys() == wanted["losses"].keys()
    losses = 0.0
    for number, values in wanted["losses"].items():
        assert found["losses"][number].keys() == values.keys()
        for key, value in values.items():
            error = abs(found["losses"][number][key] - value) / max(1, abs(value))
            losses = max(losses, error)
    weights = 0.0
    for ours, theirs in zip(found["weights"], wanted["weights"], strict=True):
        for key, value in theirs.items():
            if value.is_floating_point() and "running_" not in key:  # each process has its own
                weights = max(weights, (ours[key] - value).abs().max().item())
    return losses, weights


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--processes", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    MMLogger.get_instance("mmengine", log_level="WARNING")
    torch.set_num_threads(1)
    for name in args.names:
        alone = train(name, args.steps)
        for world in args.processes:
            found = train_divided(world, name=name, steps=args.steps)
            losses, weights = differences(found, alone)
            print(f"{name}, {world} processes: losses {losses:.1e}, weights {weights:.1e}")


if __name__ == "__main__":
    main()
