"""The load-state-dict pre-hook through which a backbone takes weights in any known layout.

Whatever loads a model (`init_cfg`, `load_from`, `--resume`, `test.py`, `load_state_dict` of the
backbone or of a model around it) ends in the backbone's own `_load_from_state_dict`, with the part
of the state dict under the backbone's prefix. There it is converted.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mmengine.logging import print_log
from torch import nn

from swin_mm.checkpoint.errors import CheckpointError
from swin_mm.checkpoint.find import check_keys, take_backbone, unwrap, without_compiled
from swin_mm.checkpoint.fit import fit
from swin_mm.checkpoint.layouts import State, describe_foreign, find_version, recognise
from swin_mm.checkpoint.load import origin_of
from swin_mm.checkpoint.lora import SCALE, merge_lora, take_lora, without_lora
from swin_mm.checkpoint.positions import find_other_units, list_assumed_units
from swin_mm.checkpoint.report import LoadReport


def register_load_hook(backbone: Any) -> None:
    """Makes a `swin_mm.SwinTransformer` take weights in every known layout, by whatever loads it.

    Each load is reported by a line of the log and in `backbone.load_report`, which is None before
    the first. Weights that do not fit raise `CheckpointError`, also under `strict=False`. A deep
    copy of the backbone has the hook too.
    """
    backbone.load_report = None
    backbone.register_load_state_dict_pre_hook(_convert_on_load)


def _convert_on_load(module: Any, state_dict: dict[str, Any], prefix: str, *extra: Any) -> None:
    """Replaces what is under `prefix` by the module's own parameters, in place."""
    name, file = prefix.rstrip(".") or "backbone", None
    has_lora = hasattr(module, SCALE)
    try:
        check_keys(state_dict)
        keys = [key for key in state_dict if key.startswith(prefix)]
        _, source = unwrap({key[len(prefix) :]: state_dict[key] for key in keys})
        file = origin_of(source)
        source = without_compiled(source)
        updates = take_lora(source, module) if has_lora else {}
        source = without_lora(source) if has_lora else merge_lora(source)
        state, report = _convert(source, module, name, file)
    except CheckpointError as error:
        raise CheckpointError(f"cannot load {file or 'weights'} into {name}: {error}") from None
    for key in keys:
        del state_dict[key]
    state_dict.update({prefix + key: value for key, value in (state | updates).items()})
    module.load_report = report
    level = logging.WARNING if report.pretrained_window_sizes else logging.INFO
    print_log(str(report), logger="current", level=level)


def _convert(
    source: Mapping[str, Any], module: nn.Module, name: str, file: str | None
) -> tuple[State, LoadReport]:
    if not source:
        raise CheckpointError(
            f"no key begins with {name!r}. The weights of a backbone alone are loaded by "
            "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=...)"
        )
    recognised = recognise(dict(source))
    if recognised is None:
        wanted = f"a Swin V{find_version(module.state_dict())} in a known layout"
        raise CheckpointError(f"no Swin in it, {describe_foreign(source)}; wanted {wanted}")
    inside = take_backbone(source, recognised)
    try:
        state, report = fit(recognised.layout.to_own(inside), module)
    except CheckpointError as error:
        raise CheckpointError(f"it holds {recognised}, but {error}") from None
    prefixes = (recognised.prefix, *recognised.skipped_prefixes)
    outside = [key for key in source if not key.startswith(prefixes)]
    return state, replace(
        report,
        module=name,
        layout=recognised.layout.name,
        dropped=(*report.dropped, *outside),
        pretrained_window_sizes=find_other_units(inside, module),
        assumed_window_sizes=list_assumed_units(inside, module),
        skipped_prefixes=recognised.skipped_prefixes,
        file=file,
    )
