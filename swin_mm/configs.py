"""Finds configs by path or name, and reads them."""

from difflib import get_close_matches
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.config import Config, ConfigDict

CONFIG_FOLDER = Path(__file__).parent / ".mim" / "configs"
SUFFIXES = (".py", ".json", ".yaml", ".yml")  # that mmengine reads

# Functions of `mmengine.config.Config` that read one file.
READERS = ("_file2dict", "_is_lazy_import", "_parse_lazy_import")


class ConfigError(ValueError):
    """A config, or an option that changes one, that cannot be used; the message says why."""


def packaged_configs() -> dict[str, Path]:
    """The configs that come with swin_mm, by short name."""
    return {path.stem: path for path in sorted(CONFIG_FOLDER.glob("*.py"))}


def find_config(name: str) -> Path:
    """Finds a config.

    Args:
        name: A path, or the name of a config that comes with swin_mm, with or without `.py`.

    Returns:
        The file.

    Raises:
        ConfigError: There is none; names the nearest.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    known = packaged_configs()
    short = name.removesuffix(".py")
    if short in known:
        return known[short]
    nearest = get_close_matches(path.stem, known, n=3, cutoff=0.4)
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    raise ConfigError(
        f"no config {name!r}: neither a file nor the name of a config of swin_mm{hint} "
        "(`swin-mm print-config` lists them)"
    )


def read_config(path: Path) -> "Config":
    """Reads a config file.

    Raises:
        ConfigError: It or one of its bases cannot be read; says which, in which line, and why.
    """
    from mmengine.config import Config

    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"{path} is not a config, whose name ends in {', '.join(SUFFIXES)}; where a command "
            "takes CONFIG CHECKPOINT, the config goes first"
        )
    try:
        return Config.fromfile(path)
    except Exception as error:  # a config is code and can fail in any way
        raise ConfigError(f"cannot read config {_describe_failure(path, error)}") from error


def _describe_failure(path: Path, error: Exception) -> str:
    """Says which file of the chain of bases failed, in which line, and why."""
    chain, line = [str(path)], None
    for frame, number in walk_tb(error.__traceback__):
        # mmengine's readers keep the file they are at in `filename`; its code runs under its name.
        if frame.f_code.co_name in READERS:
            chain.append(str(frame.f_locals.get("filename")))
        elif frame.f_code.co_filename == chain[-1]:
            line = number
    file = next(name for name in reversed(chain) if Path(name).is_file())
    if isinstance(error, SyntaxError):
        return f"{file}, line {error.lineno}: {error.msg}: {(error.text or '').strip()}"
    reason = error.args[0] if len(error.args) == 1 else error
    if isinstance(error, FileNotFoundError):
        return f"{file}: one of its bases is missing: {error.filename or reason}"
    place = file if line is None else f"{file}, line {line}"
    return f"{place}: {type(error).__name__}: {reason}"


def base_config(name: str) -> str:
    """Finds a config of swin_mm for the `_base_` of one that lies elsewhere.

    mmengine's own way, `package::folder/config.py`, is for OpenMMLab's packages alone. A config may
    say instead `_base_ = __import__("swin_mm").base_config("mask_rcnn_swin_t.py")`, which works
    from any folder and under any tool.

    Args:
        name: Path below the folder of configs, such as `_base_/default_runtime.py`.

    Returns:
        The whole path.

    Raises:
        ConfigError: There is none; names the nearest.
    """
    path = CONFIG_FOLDER / name
    return str((path if path.is_file() else find_config(Path(name).name)).resolve())


def bare_type(settings: Any) -> str:
    """The `type` of a part of a config without its scope; empty where it has none.

    Pure Python configs have the class itself.
    """
    kind = settings.get("type") if isinstance(settings, dict) else None
    return kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", "")


def find_scope(cfg: "Config") -> str:
    """Finds out which package a config is for: mmdet for detection, mmseg for segmentation.

    Args:
        cfg: The config. One in pure Python style may have no scope, but then its model is a class.

    Returns:
        The name of the package.

    Raises:
        ConfigError: The config does not say.
    """
    scope = cfg.get("default_scope")
    kind = (cfg.get("model") or {}).get("type")
    if not scope and isinstance(kind, type):
        scope = kind.__module__.partition(".")[0]
    if not scope:
        raise ConfigError(
            f"{cfg.filename} has no default_scope: set it to 'mmdet' for detection or to 'mmseg' "
            "for segmentation"
        )
    return scope


def type_name(settings: Any) -> str | None:
    """The `type` of a part of a config, as text; pure Python configs have the class itself."""
    kind = settings.get("type") if isinstance(settings, dict) else None
    return getattr(kind, "__name__", kind)


def innermost_dataset(dataset: "ConfigDict") -> "ConfigDict":
    """The settings of the data set within wrappers such as `RepeatDataset`."""
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    return dataset


def fit_to_workers(loader: dict) -> None:
    """Takes out of a data loader's settings what PyTorch refuses without workers."""
    if not loader.get("num_workers"):
        for key in ("persistent_workers", "prefetch_factor", "multiprocessing_context", "timeout"):
            loader.pop(key, None)
