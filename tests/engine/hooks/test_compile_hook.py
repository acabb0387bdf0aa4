"""`torch.compile` of the parts of a model."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from swin_mm.engine import CompileHook
from swin_mm.models import FPN, SwinTransformer


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = SwinTransformer(
            embed_dims=8, depths=(1, 1), num_heads=(1, 2), strides=(4, 2), out_indices=(0, 1)
        )
        self.neck = FPN(in_channels=[8, 16], out_channels=8, num_outs=3)

    def forward(self, image):
        return self.neck(self.backbone(image))


@pytest.fixture(autouse=True)
def forget_compiled_code():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compile_parts(model, **kwargs):
    logger = MMLogger.get_instance("compile-hook")
    CompileHook(**kwargs).before_run(SimpleNamespace(model=model, logger=logger))


@pytest.mark.slow
def test_one_graph_a_part_for_all_sizes_and_the_same_outputs_and_weights():
    torch.manual_seed(0)
    model = Detector().eval()
    names = list(model.state_dict())
    wanted = deepcopy(model)
    counter = CompileCounterWithBackend("eager")
    compile_parts(model, backend=counter)
    assert list(model.state_dict()) == names
    for size in ((70, 98), (64, 128), (131, 57)):
        image = torch.randn(1, 3, *size)
        with torch.no_grad():
            for found, expected in zip(model(image), wanted(image), strict=True):
                torch.testing.assert_close(found, expected)
    assert counter.frame_count == 2
    assert list(deepcopy(model).state_dict()) == names  # as for an average of the weights


def test_parts_that_no_model_has():
    with pytest.raises(ValueError, match=r"Detector has none of the parts \['body'\]; name some"):
        compile_parts(Detector(), parts=("body",))
