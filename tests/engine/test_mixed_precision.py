"""The mixed precision wrapper where there is no GPU, and where there is one."""

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

import swin_mm  # noqa: F401

ON_CPU = pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")


def make(wrapper="swin_mm.AmpOptimWrapper", device="cpu", **kwargs):
    torch.manual_seed(0)
    model = nn.Linear(4, 3).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, OPTIM_WRAPPERS.build(dict(type=wrapper, optimizer=optimizer, **kwargs))


def train(model, wrapper, steps=3):
    """Takes a few steps and returns the dtype of the model's output."""
    torch.manual_seed(1)
    for _ in range(steps):
        inputs = torch.randn(2, 4, device=model.weight.device)
        with wrapper.optim_context(model):
            output = model(inputs)
        wrapper.update_params(output.float().square().sum())
    return output.dtype


@ON_CPU
@pytest.mark.parametrize("dtype", [None, "float16"])
def test_cpu_trains_in_float32(dtype):
    model, wrapper = make(dtype=dtype, clip_grad=dict(max_norm=1.0), accumulative_counts=2)
    assert train(model, wrapper) == wrapper.compute_dtype == torch.float32
    plain, plain_wrapper = make("OptimWrapper", clip_grad=dict(max_norm=1.0), accumulative_counts=2)
    assert type(plain_wrapper) is OptimWrapper
    train(plain, plain_wrapper)
    assert torch.equal(model.weight, plain.weight)


@ON_CPU
@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16], ids=str)
def test_cpu_trains_in_bfloat16_when_asked(dtype):
    model, wrapper = make(dtype=dtype)
    assert train(model, wrapper) == wrapper.compute_dtype == torch.bfloat16
    assert model.weight.dtype == torch.float32
    assert wrapper.state_dict().keys() == {"state", "param_groups"}


@ON_CPU
def test_cpu_resumes_what_a_gpu_saved():
    model, wrapper = make()
    train(model, wrapper)
    state = wrapper.state_dict()
    assert "loss_scaler" not in state
    saved_by_gpu = {**state, "loss_scaler": {"scale": 65536.0, "growth_factor": 2.0}}
    _, resumed = make()
    resumed.load_state_dict(saved_by_gpu)
    momentum = resumed.state_dict()["state"][0]["momentum_buffer"]
    assert torch.equal(momentum, state["state"][0]["momentum_buffer"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_gpu_trains_in_half_precision(dtype):
    kwargs = {} if dtype == torch.float16 else {"dtype": "bfloat16"}
    model, wrapper = make(device="cuda", **kwargs)
    assert train(model, wrapper) == wrapper.compute_dtype == dtype
    assert wrapper.state_dict()["loss_scaler"]["scale"] > 0
