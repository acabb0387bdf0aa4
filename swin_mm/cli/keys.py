"""Finds keys of a config that nothing would read, before anything is built.

A part of a config with a `type` is compared with the signature of the class that is registered
under that name, and with its base's where the class hands `**kwargs` on. What cannot be decided
passes: names that no registry has, classes that take any argument. At the top level any name may be
a variable of the config's author, so only one that looks like a misspelt setting of the runner, and
that the config itself does not use, is refused.
"""

import ast
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mmengine import registry as roots
from mmengine.config import Config
from mmengine.registry import Registry

from swin_mm.cli.overrides import DELETE, runner_keys
from swin_mm.configs import ConfigError

# Read by mmengine's builders and never given to the class.
BUILDER_KEYS = frozenset({"type", "_scope_"})
# Read besides the arguments of the class, by the end of the setting that the part stands under.
OTHER_READERS = {
    "optim_wrapper": {"constructor", "paramwise_cfg"},
    "param_scheduler": {"convert_to_iter_based"},
    "default_hooks": {"priority"},
    "custom_hooks": {"priority"},
    "init_cfg": {"override", "name"},
    "override": {"name"},
    "norm_cfg": {"requires_grad"},
    "train_cfg": {"by_epoch"},
}
# Ends of settings whose parts are not built from their `type` with the other keys as arguments.
BUILT_OTHERWISE = ("conv_cfg", "dcn", "nms", "plugins", "upsample_cfg", "roi_layer")
SLIDING = ("crop_size", "stride", "windows_per_batch")  # of a segmentor, in its test_cfg
# Dicts whose keys are names of the config's author.
FREE_KEYS = ("custom_keys", "data_prefix", "default_hooks", "metainfo")
LOADER_KEYS = frozenset(
    {"batch_sampler", "collate_fn", "dataset", "num_batch_per_epoch", "sampler", "worker_init_fn"}
)
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
REGISTRIES = [found for found in vars(roots).values() if isinstance(found, Registry)]
# How alike a name and a key must be for one to be a misspelling of the other: `load_form` is.
ALIKE = 0.88


def check_keys(cfg: Config) -> None:
    """Refuses a config with keys that nothing would read.

    Args:
        cfg: Whole config, after overrides.

    Raises:
        ConfigError: There are some; names the file, each key and the nearest that there is.
    """
    _raise_faults(cfg, _find_faults(cfg))


def check_overrides(before: Mapping[str, Any], cfg: Config, keys: Iterable[str]) -> None:
    """Refuses overrides of keys that nothing would read.

    Args:
        before: The config without the overrides, as plain dicts and lists.
        cfg: The config with them.
        keys: Dotted keys of the overrides.

    Raises:
        ConfigError: There are some; names each key and the nearest that there is.
    """
    keys = list(keys)
    wrong = [
        fault
        for fault in _find_faults(cfg)
        if any(f"{key}.".startswith(fault.partition(":")[0] + ".") for key in keys)
    ]
    _raise_faults(cfg, [*wrong, *_check_untyped_overrides(before, cfg, keys)])


def _raise_faults(cfg: Config, faults: Iterable[str]) -> None:
    if faults := sorted(faults):
        raise ConfigError(f"{cfg.filename}: {'; '.join(faults)}")


def _find_faults(cfg: Config) -> Iterator[str]:
    yield from _check_top(cfg)
    yield from _check_untyped(cfg)
    registries = _find_registries(cfg.get("default_scope"))
    for name in runner_keys().intersection(cfg):
        yield from _check_part(cfg[name], name, name, registries)


def _check_untyped_overrides(
    before: Mapping[str, Any], cfg: Config, keys: Iterable[str]
) -> Iterator[str]:
    """Looks at new keys of dicts without a type, of which no class says what they may be."""
    registries = _find_registries(cfg.get("default_scope"))
    for key in keys:
        node: Any = before
        parts = key.split(".")
        for depth, part in enumerate(parts):  # noqa: B007, it says where the walk ended
            if isinstance(node, list | tuple) and part.lstrip("-").isdigit():
                node = node[int(part)]
            elif isinstance(node, dict) and part in node:
                node = node[part]
            else:
                break
        else:
            continue  # it is not new
        above = ".".join(parts[:depth])
        if not (depth and isinstance(node, dict)) or part == DELETE:
            continue
        if "type" in node and _signature(node["type"], registries)[1] is not None:
            continue  # looked at with the class
        if parts[depth - 1] in FREE_KEYS:
            continue
        if nearest := get_close_matches(part, map(str, node), n=1, cutoff=ALIKE):
            yield f"{key}: {above} has no {part!r}; did you mean {above}.{nearest[0]}?"
        elif part in SLIDING and parts[depth - 1] == "test_cfg":
            continue
        elif "type" not in node and depth > 1 and os.environ.get("RANK", "0") == "0":
            print(f"warning: the config has no {key}: nothing may read it", file=sys.stderr)


def _check_top(cfg: Config) -> Iterator[str]:
    known = runner_keys()
    for name in cfg:
        if name in known:
            continue
        # A variable stands at least twice in the files: where it is set and where it is used.
        uses = len(re.findall(rf"\b{re.escape(name)}\b", cfg.text))
        if uses < 2 and (nearest := get_close_matches(name, known, n=1, cutoff=ALIKE)):
            yield f"no setting {name}; did you mean {nearest[0]}?"


def _check_untyped(cfg: Config) -> Iterator[str]:
    """Looks at settings of the runner that are read by key or by a class of mmengine's choice."""
    from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, TestLoop, ValLoop
    from torch.utils.data import DataLoader

    loader = {*(takes(DataLoader) or ()), *LOADER_KEYS}
    loops = EpochBasedTrainLoop, IterBasedTrainLoop
    training = {"by_epoch", *(name for loop in loops for name in takes(loop) or ())}
    known: dict[str, set[str] | None] = {
        **dict.fromkeys(LOADERS, loader),
        "train_cfg": training,
        "val_cfg": takes(ValLoop),
        "test_cfg": takes(TestLoop),
        "randomness": takes(Runner.set_randomness),
        "auto_scale_lr": {"enable", "base_batch_size", "scaled_from"},
    }
    for name, keys in known.items():
        settings = cfg.get(name) or {}
        if isinstance(settings, dict) and "type" not in settings:
            for key in settings:
                if keys is not None and key not in keys:
                    yield _describe(f"{name}.{key}", name, key, keys)


def _check_part(value: Any, path: str, place: str, registries: list) -> Iterator[str]:
    """Looks at a part of a config, whose dotted key is `path`, and at all within it.

    `place` is the setting it stands under: its own key, that of the list it is in, or, for the
    parts of `default_hooks`, that.
    """
    if place.endswith(BUILT_OTHERWISE):
        return
    if isinstance(value, dict):
        name, taken = _signature(value.get("type"), registries)
        if taken is not None:
            others = (keys for end, keys in OTHER_READERS.items() if place.endswith(end))
            taken = taken.union(BUILDER_KEYS, *others)
            for key in value:
                if key not in taken:
                    yield _describe(f"{path}.{key}", name, key, taken)
        for key, child in value.items():
            inner = place if place == "default_hooks" else str(key)
            yield from _check_part(child, f"{path}.{key}", inner, registries)
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            yield from _check_part(child, f"{path}.{index}", place, registries)


def _describe(path: str, owner: str, key: str, known: Iterable[str]) -> str:
    choices = sorted(name for name in known if name not in ("self", "type", "_scope_"))
    nearest = get_close_matches(str(key), choices, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}?" if nearest else f"it takes {', '.join(choices)}"
    return f"{path}: {owner} takes no {key!r}; {hint}"


def _find_registries(scope: str | None) -> list[Registry]:
    """The registries of what configs name, those of the scope where it has them."""
    _import_registries(scope)
    return [registry.children.get(scope, registry) for registry in REGISTRIES]


def _import_registries(scope: str | None) -> None:
    """Imports a package's registries, if it has any, so that they are found as children."""
    if scope and "." not in scope and find_spec(scope) and find_spec(f"{scope}.registry"):
        import_module(f"{scope}.registry")


def _signature(kind: Any, registries: list[Registry]) -> tuple[str, set[str] | None]:
    """Name of what is registered as `kind`, and the arguments that it takes.

    The arguments are None where any may be taken, or nothing of that name is registered.
    """
    if not isinstance(kind, str):  # pure Python configs have the class itself
        return getattr(kind, "__name__", ""), takes(kind) if callable(kind) else None
    scope, _, name = kind.rpartition(".")
    if not name[:1].isupper():  # modes such as `nearest`, which builders treat as they like
        return name, None
    if scope:
        _import_registries(scope)
        registries = [r.children[scope] for r in REGISTRIES if scope in r.children]
    makers = [maker for r in registries if (maker := _look_up(name, r)) is not None]
    signatures = [takes(maker) for maker in makers]
    if not signatures or None in signatures:
        return name, None
    return name, set().union(*(names for names in signatures if names))


def _look_up(name: str, registry: Registry | None) -> Callable | None:
    """Finds a name in a registry or those above it, without the errors of `Registry.get`."""
    while registry is not None:
        registry.import_from_location()
        if name in registry.module_dict:
            return registry.module_dict[name]
        registry = registry.parent
    return None


def takes(maker: Callable) -> set[str] | None:
    """Names of the arguments that a class or a function takes.

    Args:
        maker: The class or function.

    Returns:
        The names; None where any may be taken, or the signature cannot be read.
    """
    if not inspect.isclass(maker):
        own, extra = _own_arguments(maker)
        return own if extra is None else None
    names: set[str] = set()
    for cls in maker.__mro__:
        init = cls.__dict__.get("__init__")
        if init is None:
            continue
        own, extra = _own_arguments(init)
        names |= own
        if extra is None:
            return names
        if cls is object:  # it takes nothing itself
            return names if maker.__new__ is object.__new__ else None
        if not _only_passed_on(init, extra):
            return None
    return None


def _own_arguments(function: Callable) -> tuple[set[str], str | None]:
    """Named arguments of a function, and the name of its `**kwargs`.

    The name is None where there are none, and empty where that cannot be told.
    """
    if hasattr(function, "__wrapped__"):  # mmcv's decorator for arguments that have been renamed
        return set(), ""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of a class in C
        return set(), ""
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    extra = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
    return named, extra


def _only_passed_on(init: Callable, extra: str) -> bool:
    """Whether `**kwargs` go to the `__init__` of bases and nowhere else."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
    except (OSError, TypeError, SyntaxError):
        return False
    passed = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".__init__"):
            spread = [ast.unparse(k.value) for k in node.keywords if k.arg is None]
            passed += spread.count(extra)
    uses = sum(isinstance(node, ast.Name) and node.id == extra for node in ast.walk(tree))
    return passed == uses > 0
