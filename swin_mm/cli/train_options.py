"""The options that only training has: each changes a few lines of the config."""

import argparse
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config

from swin_mm.cli.config import positive
from swin_mm.configs import ConfigError, bare_type, type_name

AUTO = "auto"
# Of 5000 steps, the mean of about so many. It is mmengine's default.
EMA_MOMENTUM = 0.0002
TRACKERS = {
    "tensorboard": dict(type="TensorboardVisBackend"),
    "wandb": dict(type="swin_mm.WandbVisBackend"),
}


def add_train_options(parser: argparse.ArgumentParser) -> None:
    """Adds them to a command line."""
    parser.add_argument(
        "--resume",
        nargs="?",
        const=AUTO,
        metavar="CKPT",
        help="continue from this checkpoint, or without CKPT from the newest in the work folder; "
        "if there is none, start at the beginning",
    )
    parser.add_argument(
        "--weights",
        metavar="NAME",
        help="start from published weights of the whole model (`swin-mm weights` lists names), or "
        "from a file or address; parts that do not fit, such as a head for other classes, are left "
        "out and named in the log",
    )
    methods = parser.add_argument_group("methods (docs/training.md)")
    methods.add_argument(
        "--amp",
        nargs="?",
        const=True,
        choices=["float16", "bfloat16"],
        help="train in mixed precision, by default in float16, on a CPU with AMX in bfloat16; "
        "other CPUs train in float32 unless bfloat16 is given",
    )
    add_compile_option(methods)
    methods.add_argument(
        "--shard",
        action="store_true",
        help="divide parameters, gradients and states of the optimizer among the processes "
        "(FSDP2); see docs/distributed.md",
    )
    methods.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate by the images per step over those the config was made for",
    )
    methods.add_argument(
        "--accumulate",
        type=positive,
        metavar="N",
        help="change the weights every N batches, by the mean of their gradients",
    )
    methods.add_argument(
        "--ema",
        nargs="?",
        type=float,
        const=EMA_MOMENTUM,
        metavar="MOMENTUM",
        help="validate and save weights averaged over time, each step by MOMENTUM towards the "
        f"newest ({EMA_MOMENTUM})",
    )
    methods.add_argument(
        "--lora",
        type=int,
        metavar="RANK",
        help="of the backbone train only low-rank updates of its linear layers (needs peft)",
    )
    methods.add_argument(
        "--val-loss", action="store_true", help="compute the loss on the validation data as well"
    )
    methods.add_argument(
        "--early-stop",
        type=positive,
        metavar="N",
        help="end after N validations without a better metric, that of the best checkpoint",
    )
    methods.add_argument(
        "--non-finite",
        choices=["stop", "skip"],
        help="what to do when a loss or a gradient is NaN or infinite: stop (default), or skip the "
        "step; either way the images are named",
    )
    tracking = parser.add_argument_group("tracking")
    tracking.add_argument("--tensorboard", action="store_true", help="log to TensorBoard as well")
    tracking.add_argument(
        "--wandb",
        action="store_true",
        help="log to Weights & Biases as well, in the work folder; WANDB_MODE=online sends it",
    )


def add_compile_option(parser: argparse._ActionsContainer) -> None:
    """Adds `--compile`, which `apply_compile_option` applies."""
    parser.add_argument(
        "--compile",
        action="store_true",
        help="run backbone and neck through torch.compile, which takes a minute or two at the "
        "first step and a C++ compiler",
    )


def apply_compile_option(cfg: Config, args: argparse.Namespace) -> None:
    """Has a run compile backbone and neck."""
    if args.compile:
        _add_hook(cfg, "--compile", type="swin_mm.CompileHook")


def apply_train_options(cfg: Config, args: argparse.Namespace) -> None:
    """Applies them to a config, but for `--auto-scale-lr`."""
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == AUTO else args.resume
    if args.weights:
        if args.resume:
            raise ConfigError(
                "--weights starts a new run and --resume continues one: give --weights alone to "
                "start, --resume alone to go on"
            )
        cfg.load_from = args.weights
    if args.amp:
        _use_mixed_precision(cfg, args.amp)
    if args.shard:
        _use_sharding(cfg)
    apply_compile_option(cfg, args)
    if args.accumulate is not None:
        cfg.optim_wrapper.accumulative_counts = args.accumulate
    if args.lora is not None:
        _use_lora(cfg, args.lora)
    if args.ema is not None:
        if not 0 < args.ema < 1:
            raise ConfigError(f"--ema must be between 0 and 1, got {args.ema}")
        average = "swin_mm.ExponentialMovingAverage"
        _add_hook(cfg, "--ema", type="EMAHook", ema_type=average, momentum=args.ema)
    if args.val_loss:
        _add_hook(cfg, "--val-loss", type="swin_mm.ValLossHook")
    if args.early_stop is not None:
        _add_hook(cfg, "--early-stop", type="swin_mm.EarlyStoppingHook", patience=args.early_stop)
    if args.non_finite:
        cfg.default_hooks.pop("non_finite", None)  # which stops
        _add_hook(cfg, "--non-finite", type="swin_mm.NonFiniteLossHook", action=args.non_finite)
    for name in TRACKERS:
        if getattr(args, name):
            _use_tracker(cfg, name)


def _use_mixed_precision(cfg: Config, dtype: str | bool) -> None:
    kind = type_name(cfg.get("optim_wrapper"))
    if kind in (None, "OptimWrapper", "swin_mm.OptimWrapper"):
        cfg.optim_wrapper.type = "swin_mm.AmpOptimWrapper"
    elif kind != "swin_mm.AmpOptimWrapper":
        raise ConfigError(f"--amp is for optim_wrapper.type=OptimWrapper; it is {kind}")
    if isinstance(dtype, str):
        cfg.optim_wrapper.dtype = dtype
    elif "dtype" not in cfg.optim_wrapper and _has_only_amx():
        cfg.optim_wrapper.dtype = "bfloat16"
        print("--amp: there is no GPU, and this CPU multiplies bfloat16 (AMX): training in that")


def _has_only_amx() -> bool:
    """Whether there is no GPU, and a CPU on which bfloat16 pays."""
    import torch
    from mmengine.device import get_device

    return get_device() == "cpu" and torch.cpu.get_capabilities().get("amx_bf16", False)


def _use_lora(cfg: Config, rank: int) -> None:
    backbone = cfg.model.get("backbone") or {}
    if type_name(backbone) not in ("swin_mm.SwinTransformer", "swin_mm.SwinTransformerV2"):
        raise ConfigError(
            "--lora needs model.backbone.type=swin_mm.SwinTransformer or SwinTransformerV2, it is "
            f"{type_name(backbone)}"
        )
    backbone["lora"] = {**(backbone.get("lora") or {}), "r": rank}


def _use_sharding(cfg: Config) -> None:
    if cfg.get("launcher", "none") == "none":
        raise ConfigError(
            "--shard divides the model among the processes of a run, and this run has one: start "
            "it with tools/dist_train.sh CONFIG GPUS --shard or by torchrun, --launcher pytorch"
        )
    wrapper = cfg.get("model_wrapper_cfg") or {}
    kind = bare_type(wrapper)
    if kind not in ("", "MMDistributedDataParallel", "ShardedModel"):
        raise ConfigError(f"--shard: model_wrapper_cfg of the config is of type {kind}")
    if kind != "ShardedModel":
        unused = wrapper.get("find_unused_parameters", cfg.get("find_unused_parameters", False))
        wrapper = dict(type="swin_mm.ShardedModel", find_unused_parameters=unused)
    cfg.model_wrapper_cfg = wrapper


def _add_hook(cfg: Config, option: str, **settings: Any) -> None:
    """Adds a hook to the config, unless it has one of this kind, with settings of its own."""
    hooks = cfg.get("custom_hooks") or []
    kind = bare_type(settings)
    if any(bare_type(hook) == kind for hook in hooks):
        raise ConfigError(f"{option}: custom_hooks of the config has a {kind} already")
    cfg.custom_hooks = [*hooks, settings]


def _use_tracker(cfg: Config, name: str) -> None:
    """Has what mmengine logs sent to a tracker as well."""
    if find_spec(name) is None:
        raise ConfigError(f"--{name} needs the package {name}: pip install 'swin-mm[tracking]'")
    visualizer = cfg.get("visualizer") or dict(type="Visualizer")
    backends = visualizer.get("vis_backends") or [dict(type="LocalVisBackend")]
    if bare_type(TRACKERS[name]) not in map(bare_type, backends):
        backends = [*backends, TRACKERS[name]]
    cfg.visualizer = {**visualizer, "vis_backends": backends}


def scale_learning_rate(cfg: Config, num_processes: int) -> str:
    """Scales the learning rate by the images of a step, as Goyal et al. do; says so in one line.

    Unlike mmengine's own scaling it counts accumulated batches. Afterwards the config says for how
    many images its rate is, so that doing it twice changes nothing.

    Source:
        Goyal et al., Accurate, Large Minibatch SGD, 2017, https://arxiv.org/abs/1706.02677,
        section 2.1.
    """
    scaling = cfg.get("auto_scale_lr") or {}
    base = scaling.get("base_batch_size")
    optimizer = cfg.optim_wrapper.get("optimizer") or {}
    per_process = cfg.train_dataloader.get("batch_size")
    wanted = {
        "auto_scale_lr.base_batch_size, the images per step that the learning rate is for": base,
        "optim_wrapper.optimizer.lr": optimizer.get("lr"),
        "train_dataloader.batch_size": per_process,
    }
    for name, value in wanted.items():
        if value is None:
            raise ConfigError(f"--auto-scale-lr needs {name}; the config has none")
    steps = cfg.optim_wrapper.get("accumulative_counts", 1)
    images = per_process * num_processes * steps
    old, new = optimizer["lr"], optimizer["lr"] * images / base
    optimizer["lr"] = new
    scaled = f"{old:g}, for {base} images"
    cfg.auto_scale_lr = dict(enable=False, base_batch_size=images, scaled_from=scaled)
    return (
        f"Learning rate scaled from {old:g}, for {base} images a step, to {new:g}, for {images}: "
        f"{per_process} images x {num_processes} processes x {steps} accumulated batches"
    )
