"""mmcv's synchronised batch norm, in one process and in two, against PyTorch's batch norm."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmcv.ops.sync_bn import SyncBatchNorm
from torch import nn


@pytest.fixture
def group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def pair(channels=3, **settings):
    """mmcv's layer and PyTorch's, with the same scale and shift."""
    mine, other = SyncBatchNorm(channels, **settings), nn.BatchNorm2d(channels)
    torch.manual_seed(0)
    for parameter in (mine.weight, mine.bias):
        nn.init.normal_(parameter)
    other.load_state_dict(mine.state_dict())
    return mine, other


@pytest.mark.parametrize("stats_mode", ["default", "N"])
def test_values_gradients_and_statistics(group, stats_mode):
    mine, other = pair(stats_mode=stats_mode)
    torch.manual_seed(1)
    input = torch.randn(4, 3, 5, 6) * 3 + 2
    leaves = [input.clone().requires_grad_() for _ in range(2)]
    direction = torch.randn_like(input)
    for _ in range(2):
        outputs = [module(leaf) for module, leaf in zip((mine, other), leaves, strict=True)]
        torch.testing.assert_close(*outputs)
    for output in outputs:
        output.backward(direction)
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)
    torch.testing.assert_close(mine.weight.grad, other.weight.grad)
    torch.testing.assert_close(mine.bias.grad, other.bias.grad)
    torch.testing.assert_close(mine.state_dict(), other.state_dict())


def test_half_precision(group):
    """Statistics in float32, as in the compiled operator; mmcv itself refuses bfloat16."""
    mine, other = pair()
    input = (torch.randn(4, 3, 5, 6) * 3 + 2).half()
    output = mine(input)
    assert output.dtype == torch.float16
    torch.testing.assert_close(output, other(input.float()).half(), rtol=1e-3, atol=1e-3)


def _train(rank, store, results):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mine, _ = pair()
    torch.manual_seed(1)
    input = (torch.randn(4, 3, 5, 6) * 3 + 2)[2 * rank : 2 * rank + 2].requires_grad_()
    output = mine(input)
    output.square().sum().backward()
    torch.save((output.detach(), input.grad, mine.running_var), f"{results}/{rank}")
    dist.destroy_process_group()


def test_two_processes_share_their_statistics(tmp_path):
    # Forked, as a fresh interpreter would take longer to import than all else.
    mp.start_processes(_train, args=(tmp_path / "store", tmp_path), nprocs=2, start_method="fork")
    parts = [torch.load(tmp_path / str(rank)) for rank in range(2)]
    other = nn.BatchNorm2d(3)
    torch.manual_seed(0)
    nn.init.normal_(other.weight)
    nn.init.normal_(other.bias)
    torch.manual_seed(1)
    input = (torch.randn(4, 3, 5, 6) * 3 + 2).requires_grad_()
    output = other(input)
    output.square().sum().backward()
    # mmcv averages the processes' variances around the common mean, so that all agrees.
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), output.detach())
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), input.grad)
    torch.testing.assert_close(parts[0][2], other.running_var)
