"""Trains and tests a token classifier; without arguments, on the built-in language."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from projects.token_classification.conll import list_labels  # noqa: E402
from swin_mm.cli.config import add_config_options  # noqa: E402
from swin_mm.compat.terminal import TerminalRunner  # noqa: E402
from swin_mm.configs import ConfigError  # noqa: E402

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "language.py"


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Trains a config and tests the weights that did best on the validation data.

    Returns:
        `f1` of the test data's entities and `accuracy` of its words.
    """
    args = parse_args(argv)
    if not Path(args.config).is_file():
        raise ConfigError(f"there is no config {args.config}")
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    folder = args.work_dir or str(Path("work_dirs", Path(args.config).stem))
    runner = build_runner(cfg, Path(folder), args.seed)
    runner.train()
    best = runner.message_hub.get_info("best_ckpt")
    runner.load_checkpoint(best)
    runner.logger.info(f"Testing {best}")
    scores = runner.test()
    runner.logger.info(f"Reports: {Path(folder, 'report.txt')}")
    return scores


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train and test a token classifier.")
    parser.add_argument("config", nargs="?", default=str(DEFAULT_CONFIG), help="path of a config")
    parser.add_argument("--work-dir", metavar="DIR", help="folder for results (work_dirs/CONFIG)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches (0)")
    add_config_options(parser)
    return parser.parse_args(argv)


def build_runner(cfg: Config, folder: Path, seed: int) -> TerminalRunner:
    """Loads the data and builds the tokenizer, the model and what trains it."""
    from projects.token_classification.dataset import (
        TokenDataset,
        load_splits,
        loader_settings,
        make_tokenizer,
    )
    from projects.token_classification.metric import EntityMetric

    splits = load_splits(cfg.data)
    tokenizer = make_tokenizer(cfg.tokenizer, splits["train"], cfg.vocab_size)
    tokenizer.save_pretrained(folder / "tokenizer")
    names = list_labels(splits["train"])
    loaders, metrics = {}, {}
    for split, sentences in splits.items():
        dataset = TokenDataset(sentences, tokenizer, names, cfg.max_length)
        loaders[f"{split}_dataloader"] = loader_settings(dataset, cfg.batch_size, split == "train")
        reports = folder if split == "test" else folder / "val"
        metrics[split] = [EntityMetric(names, reports, f"{split} data")]
    model = dict(cfg.model, vocab_size=len(tokenizer), num_labels=len(names))
    return TerminalRunner(
        model=model,
        work_dir=str(folder),
        **loaders,
        train_cfg=dict(by_epoch=True, max_epochs=cfg.max_epochs, val_interval=1),
        val_cfg=dict(),
        test_cfg=dict(),
        val_evaluator=metrics["val"],
        test_evaluator=metrics["test"],
        optim_wrapper=cfg.optim_wrapper,
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.01, end=cfg.warmup_steps, by_epoch=False),
            dict(type="CosineAnnealingLR", T_max=cfg.max_epochs, convert_to_iter_based=True),
        ],
        default_hooks=cfg.default_hooks,
        default_scope="swin_mm",
        log_processor=dict(window_size=20),
        randomness=dict(seed=seed),
        experiment_name=f"{folder.name}_{seed}",
        cfg=Config(dict(label_names=names)),
    )


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, OSError) as error:
        sys.exit(f"train.py: error: {error}")
