"""Makes mmengine read checkpoints as data, its own included.

For mmengine 0.10.7 on PyTorch 2.6 and later. There `torch.load` forbids code in a file, and with it
the `HistoryBuffer` in every checkpoint that mmengine writes, so that none can be resumed or tested.
For files from a URL mmengine still runs any code that is in them. Here all go through
`load_checkpoint_file`, whichever scheme (`http://`, `openmmlab://`, `torchvision://`, `s3://`, a
path) names the file, and weights are found under whatever key they are kept. The config in a
checkpoint, which mmengine would run as Python on resume and in inferencers, is not read.
"""

import os
import re
import tempfile
from types import ModuleType
from typing import Any

from swin_mm.compat.module_finder import Patch, wrap_once

# What a run saves, unless `CheckpointHook` has other settings.
RUN_PARTS = ("optimizer", "param_schedulers")
HASH = re.compile(r"-([0-9a-f]{8,64})\.pth$")
START_ANEW = "; to start anew from its weights, use --cfg-options load_from={}"
# What optimizers of PyTorch keep of a parameter in its shape.
MOMENTS = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg"}
MOMENTS |= {"grad_avg", "acc_delta", "sum", "prev", "step_size"}
# What the content of a file that is no state of this run can end in.
MISFITS = (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError)


class _SafeTorch:
    """PyTorch, except that `load` reads data alone."""

    def __getattr__(self, name: str) -> Any:
        import torch

        return getattr(torch, name)

    @staticmethod
    def load(source: Any, map_location: Any = None, **_: Any) -> dict:
        if isinstance(source, str | os.PathLike):
            return load_from_local(str(source), map_location)
        with tempfile.NamedTemporaryFile(suffix=".pth") as file:
            file.write(source.read())
            file.flush()
            return load_from_local(file.name, map_location)


def _patch_loading(module: ModuleType) -> None:
    vars(module).update(torch=_SafeTorch(), load_url=load_url)
    module.CheckpointLoader.register_scheme("", load_from_local, force=True)


def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Loads a checkpoint by its path, in place of mmengine's function of this name."""
    from swin_mm.checkpoint.find import with_state_dict
    from swin_mm.checkpoint.finite import check_finite
    from swin_mm.checkpoint.load import load_checkpoint_file

    checkpoint = with_state_dict(load_checkpoint_file(filename, map_location), filename)
    check_finite(checkpoint.get("state_dict", checkpoint), filename)
    return checkpoint


def _resume_from_data(resume: Any, self: Any, filename: str, *args: Any, **kwargs: Any) -> None:
    """Resumes a runner only from what is the state of a run."""
    from swin_mm.checkpoint.errors import CheckpointError

    # FlexibleRunner leaves loading to its strategy, which takes its parts out of what it returns.
    owner = getattr(self, "strategy", self)
    name = "load_checkpoint" if owner is self else "resume"
    has_schedules = bool(getattr(self, "param_schedulers", None))
    parts = RUN_PARTS[: 1 + has_schedules] if owner is self else ()
    load = getattr(owner, name)
    vars(owner)[name] = lambda *a, **k: check_run_state(load(*a, **k), filename, parts)
    try:
        resume(self, filename, *args, **kwargs)
        _check_moments(self, filename)
    except CheckpointError:
        raise
    except MISFITS as error:
        raise CheckpointError(
            f"cannot resume from {filename}: its state does not fit this run "
            f"({type(error).__name__}: {error})"
        ) from error
    finally:
        del vars(owner)[name]


def check_run_state(checkpoint: dict, file: str, parts: tuple[str, ...] = ()) -> dict:
    """Checks that a checkpoint holds the state of a run, without which mmengine cannot resume.

    Without one of `parts`, keys that it must have, mmengine would start it anew in silence.

    Raises:
        CheckpointError: It holds no such state.
    """
    from swin_mm.checkpoint.errors import CheckpointError

    meta: Any = checkpoint.get("meta")
    hub: Any = checkpoint.get("message_hub")
    is_state = isinstance(meta, dict) and isinstance(hub, dict)
    fault = None
    if not is_state or not all(type(meta.get(name)) is int for name in ("epoch", "iter")):
        fault = "it holds no state of a run, such as its epoch" + START_ANEW.format(file)
    elif missing := [part for part in parts if part not in checkpoint]:
        fault = f"it was saved without {' and '.join(missing)}" + START_ANEW.format(file)
    elif not all(map(_is_schedule, _list_schedules(checkpoint))):
        fault = "its param_schedulers are damaged"
    elif not _is_hub(hub):
        fault = "its message_hub is damaged"
    elif not isinstance(meta.get("seed"), int | None):
        fault = "its seed is no number"
    if fault:
        raise CheckpointError(f"cannot resume from {file}: {fault}")
    meta.pop("config", None)  # mmengine would run it, for the number of GPUs in old files
    return checkpoint


def _check_moments(runner: Any, file: str) -> None:
    """Checks what optimizers have been given, which PyTorch does not compare with the parameters.

    Raises:
        CheckpointError: It is of parameters of other shapes.
    """
    from swin_mm.checkpoint.errors import CheckpointError

    wrapper: Any = getattr(runner, "optim_wrapper", None)
    wrappers = wrapper.values() if hasattr(wrapper, "values") else [wrapper]
    optimizers = [w.optimizer for w in wrappers if hasattr(w, "optimizer")]
    names = {id(parameter): name for name, parameter in runner.model.named_parameters()}
    for parameter, state in (item for o in optimizers for item in o.state.items()):
        for key in MOMENTS & state.keys():
            shape = getattr(state[key], "shape", state[key])
            if shape is None or shape == parameter.shape:  # momentum may have yet to begin
                continue
            name = names.get(id(parameter), "a parameter").removeprefix("module.")
            found = list(shape) if isinstance(shape, tuple) else f"a {type(shape).__name__}"
            raise CheckpointError(
                f"cannot resume from {file}: {key} of {name} is {found} in its optimizer and must "
                f"be {list(parameter.shape)}; resume with the model and the optim_wrapper it was "
                f"trained with{START_ANEW.format(file)}"
            )


def _list_schedules(checkpoint: dict) -> list:
    found = checkpoint.get("param_schedulers") or []
    if isinstance(found, dict):  # of several optimizers
        found = [one for several in found.values() for one in several]
    return found if isinstance(found, list) else [found]


def _is_schedule(state: Any) -> bool:
    """Whether the state of a schedule can be gone on with; mmengine takes any."""
    if not isinstance(state, dict) or type(state.get("last_step")) is not int:
        return False
    values = [state.get(name, []) for name in ("base_values", "_last_value")]
    return all(
        isinstance(several, list) and all(isinstance(value, int | float) for value in several)
        for several in values
    )


def _is_hub(hub: dict) -> bool:
    """Whether the state of a message hub can be gone on with; mmengine looks at it late."""
    from mmengine.logging import HistoryBuffer

    kinds = {"log_scalars": HistoryBuffer, "resumed_keys": bool, "runtime_info": object}
    return all(
        isinstance(part, dict)
        and all(
            isinstance(key, str) and isinstance(value, kinds.get(name, object))
            for key, value in part.items()
        )
        for name, part in hub.items()
    )


def _build_from_config(build: Any, self: Any, cfg: Any, weights: Any, device: str = "cpu") -> Any:
    """Has inferencers ask for a config, where they would build from the one in a checkpoint.

    As data, too, it is not safe: `type` may be the name of any function, such as `os.system`, which
    mmengine's registries import and call.
    """
    if not cfg:
        from swin_mm.checkpoint.errors import CheckpointError

        raise CheckpointError(
            f"{weights} alone does not make a model: the config in a checkpoint is code, and is "
            "not run. Give the config it was trained with"
        )
    return build(self, cfg, weights, device)


def load_url(
    url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True
) -> dict:
    """Downloads a checkpoint to `model_dir`, unless it has been before, and loads it.

    Raises:
        CheckpointError: When the address cannot be reached, or the file cannot be loaded.
    """
    from urllib.parse import urlparse

    import torch
    from mmengine.logging import print_log

    from swin_mm.checkpoint import CheckpointError

    folder = model_dir or os.path.join(torch.hub.get_dir(), "checkpoints")
    file = os.path.join(folder, os.path.basename(urlparse(url).path))
    if not os.path.exists(file):
        os.makedirs(folder, exist_ok=True)
        print_log(f"downloading {url} to {file}", logger="current")
        try:
            torch.hub.download_url_to_file(url, file, _hash_in(file), progress)
        except RuntimeError as error:
            raise CheckpointError(f"{url} arrived damaged ({error}); fetch it again") from error
        except OSError as error:  # of urllib and of sockets alike
            raise CheckpointError(_explain_download(url, file, error)) from error
    try:
        return load_from_local(file, map_location)
    except CheckpointError as error:
        raise CheckpointError(f"{error}. Delete {file} to have {url} fetched again") from error


def _hash_in(file: str) -> str | None:
    """The beginning of the file's SHA-256 that publishers put at the end of its name."""
    found = HASH.search(os.path.basename(file))
    return found[1] if found else None


def _explain_download(url: str, file: str, error: OSError) -> str:
    code = getattr(error, "code", None)  # an answer of the server, such as 404
    reason = f"the server answers {code}" if code else f"this machine cannot reach it ({error})"
    return (
        f"cannot download {url}: {reason}. Fetch it elsewhere and put it at {file}, or give the "
        "path of the file, for a backbone by --cfg-options model.backbone.init_cfg.checkpoint="
        f"/path/to/{os.path.basename(file)}, or train from scratch with "
        "model.backbone.init_cfg=None"
    )


PATCH = Patch(
    "checkpoint_loading",
    "mmengine cannot read its own checkpoints, and runs code in them and from URLs",
    {
        "mmengine.runner.checkpoint": _patch_loading,
        "mmengine.runner.runner": lambda m: wrap_once(m.Runner, "resume", _resume_from_data),
        "mmengine.runner._flexible_runner": lambda m: wrap_once(
            m.FlexibleRunner, "resume", _resume_from_data
        ),
        "mmengine.infer.infer": lambda m: wrap_once(
            m.BaseInferencer, "_init_model", _build_from_config
        ),
    },
)
