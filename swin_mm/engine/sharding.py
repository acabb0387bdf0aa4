"""Training with parameters, gradients and optimizer states divided among processes, by FSDP2."""

from functools import cached_property, partial
from typing import Any, cast

import torch
from mmengine.device import get_device
from mmengine.dist import get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from swin_mm.engine.hooks.compile import CompileHook
from swin_mm.engine.runner_parts import bare_model, optim_wrappers
from swin_mm.engine.sharded_checkpoint import save_divided
from swin_mm.models.layers import SwinBlock
from swin_mm.registry import HOOKS, MODEL_WRAPPERS

# Of a layer beside the Swin's blocks. Smaller ones are gathered together, in one collective.
MIN_PARAMETERS = 1_000_000


@MODEL_WRAPPERS.register_module()
class ShardedModel(nn.Module):
    """mmengine's wrapper of a model that `ShardHook` divides among the processes.

    Every Swin block and every other large layer is a unit: its parameters are gathered before it
    runs, forward and backward, and freed after. The parameters that are left are one unit more.
    Heads whose losses are computed by a method are no units, their layers are.

    In evaluation mode every process holds all parameters, so that processes may have different
    numbers of images.

    Args:
        module: The model.
        group_size: Processes that a model is divided among, such as the GPUs of a machine; each
            such group has a whole one. By default all processes are one group.
        min_parameters: Size from which a layer other than a Swin block is a unit.
        find_unused_parameters: Whether a process may leave out parameters that others use.

    Raises:
        ValueError: The processes do not make whole groups.
        RuntimeError: PyTorch is too old.

    Examples:
        model_wrapper_cfg = dict(type='swin_mm.ShardedModel')

    Source:
        `torch.distributed.fsdp.fully_shard`, https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html
    """

    def __init__(
        self,
        module: nn.Module,
        group_size: int | None = None,
        min_parameters: int = MIN_PARAMETERS,
        find_unused_parameters: bool = False,
    ) -> None:
        super().__init__()
        world = get_world_size()
        self.group_size = group_size or world
        if self.group_size < 1 or world % self.group_size:
            raise ValueError(
                f"model_wrapper_cfg.group_size must divide the number of processes, {world}, got "
                f"{group_size}"
            )
        if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
            raise RuntimeError(
                "models are divided among processes (--shard) with PyTorch 2.13 or newer, found "
                f"{torch.__version__}: upgrade it, or train without --shard"
            )
        self.module: Any = module
        self.min_parameters = min_parameters
        self.find_unused_parameters = find_unused_parameters
        self.is_divided = self.is_gathered = False

    @cached_property
    def mesh(self) -> DeviceMesh:
        """The processes of a group, or all as groups x processes."""
        sizes = (get_world_size() // self.group_size, self.group_size)
        mesh = init_device_mesh(get_device(), sizes, mesh_dim_names=("groups", "processes"))
        return mesh if sizes[0] > 1 else mesh["processes"]

    @property
    def units(self) -> list[FSDPModule]:
        """The modules that are gathered as one, none before training."""
        return [module for module in self.module.modules() if isinstance(module, FSDPModule)]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        if not self.is_divided:  # each process would train a model of its own
            raise ValueError(
                "swin_mm.ShardedModel needs swin_mm.ShardHook: train with swin-mm, or set "
                "custom_hooks=[dict(type='swin_mm.ShardHook')]"
            )
        return self.module.train_step(data, optim_wrapper)

    def val_step(self, data: Any) -> list:
        return self.module.val_step(data)

    def test_step(self, data: Any) -> list:
        return self.module.test_step(data)

    def train(self, mode: bool = True) -> "ShardedModel":
        """Switches the mode, and divides or gathers parameters; all processes must call it."""
        super().train(mode)
        self.gather(not mode)
        return self

    def gather(self, is_gathered: bool = True) -> None:
        """Gathers all parameters, or frees those of other processes."""
        if self.is_gathered == is_gathered or not self.is_divided:
            return
        self.is_gathered = is_gathered
        self.module.set_reshard_after_forward(not is_gathered)
        for unit in self.units:
            if is_gathered:
                unit.unshard()
            else:
                unit.reshard()

    def shard(self, module: nn.Module) -> None:
        """Divides the parameters of this model, or of a copy of it, whose values all have.

        They are gathered as they are, and autocast lowers their precision where it does without
        sharding. A block gathered in bfloat16 would need its norms and the sum of its branches in
        bfloat16 too, which `--amp` keeps in float32.
        """
        for unit in (*list_units(module, self.min_parameters), module):
            fully_shard(unit, mesh=self.mesh, reshard_after_forward=True)
        root = cast(FSDPModule, module)
        root.set_reduce_scatter_unused_params(self.find_unused_parameters)
        self.is_divided = True


def list_units(model: nn.Module, min_parameters: int) -> list[nn.Module]:
    """Lists the modules of a model to be gathered as one, inner ones first.

    Only modules that are called are listed, and once: the first of several backward passes would
    free what the others need. An attention of PyTorch's and a Swin block read the weights of their
    layers, and heads those of embeddings; lists are iterated over; heads with `predict` have
    methods called; those with `forward_single` call their layers for each level. Layers in a
    sequence are none either, as what comes next may change their output in place.
    """
    units: list[nn.Module] = []
    seen: set[nn.Module] = set()

    def visit(module: nn.Module, is_listed: bool, keeps_layers: bool) -> int:
        """Lists the units within a module, and counts the parameters in none."""
        if module in seen:
            return 0
        seen.add(module)
        is_list = isinstance(module, nn.ModuleList | nn.ModuleDict | nn.Sequential)
        is_read = is_list or isinstance(module, nn.Embedding) or hasattr(module, "predict")
        is_whole = isinstance(module, SwinBlock | nn.MultiheadAttention)
        children = [] if is_whole else list(module.children())
        count = sum(p.numel() for p in module.parameters(recurse=is_whole))
        is_sequence = isinstance(module, nn.Sequential)
        keeps_layers = keeps_layers or is_sequence or hasattr(module, "forward_single")
        count += sum(visit(child, is_list, keeps_layers) for child in children)
        is_called = (is_listed if children else not keeps_layers) and not is_read
        if isinstance(module, SwinBlock) or (is_called and count >= min_parameters):
            units.append(module)
            return 0
        return count

    visit(model, is_listed=False, keeps_layers=False)
    return [unit for unit in units if unit is not model]


def is_sharded(runner: Runner) -> bool:
    """Whether the model of a runner is divided among the processes."""
    return isinstance(runner.model, ShardedModel)


@HOOKS.register_module()
class ShardHook(Hook):
    """Divides what `ShardedModel` wraps, when it has its weights and states.

    Everything before works on whole parameters: drawing and loading weights, resuming, averages of
    weights, groups of the optimizer.
    """

    priority = "VERY_HIGH"  # before weights are exchanged with averaged ones

    def before_train(self, runner: Runner) -> None:
        """Divides the model, its averages and the states of its optimizers, and their saving.

        Raises:
            ValueError: A `CompileHook` compiles parts of the model.
        """
        wrapper = runner.model
        if not isinstance(wrapper, ShardedModel) or wrapper.is_divided:
            return
        if any(isinstance(hook, CompileHook) for hook in runner.hooks):
            raise ValueError("a sharded model is not compiled: drop --compile or --shard")
        model = bare_model(runner)
        before = dict(model.named_parameters())
        wrapper.shard(model)
        after = model.named_parameters()
        divided: dict[Tensor, Tensor] = {before[name]: parameter for name, parameter in after}
        for optim_wrapper in optim_wrappers(runner):
            _divide_optimizer(optim_wrapper.optimizer, divided)
        for average in [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]:
            wrapper.shard(average.module)
            whole, named = average.module.state_dict(), average.module.named_parameters()
            average.avg_parameters = whole if average.update_buffers else dict(named)
        vars(runner)["save_checkpoint"] = partial(save_divided, runner)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Divides the parameters again, before averaged ones give way to those that are trained."""
        if isinstance(runner.model, ShardedModel):
            runner.model.gather(False)


def _divide_optimizer(optimizer: Optimizer, divided: dict[Tensor, Tensor]) -> None:
    """Gives an optimizer divided parameters, and its states of them, in place of whole ones."""
    for group in optimizer.param_groups:
        group["params"] = [divided[parameter] for parameter in group["params"]]
    for parameter, state in list(optimizer.state.items()):
        new = divided[parameter]
        optimizer.state[new] = {
            key: divide_like(value, new) if _has_shape(value, new) else value
            for key, value in state.items()
        }
        del optimizer.state[parameter]


def _has_shape(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape == parameter.shape


def divide_like(value: Tensor, parameter: Tensor) -> Tensor:
    """The part of a tensor that a process has of a parameter; the tensor, of a whole parameter."""
    if not isinstance(parameter, DTensor):
        return value
    mesh, placements = parameter.device_mesh, parameter.placements
    return distribute_tensor(value, mesh, placements, src_data_rank=None)
