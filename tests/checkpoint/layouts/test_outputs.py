"""Stage maps equal those of the library that owns a layout, with its own file."""

import pytest
import torch
from swin_libraries import BUILDERS, CASES, normalise
from swin_weights import relative_error

from swin_mm.checkpoint.convert import convert
from swin_mm.checkpoint.layouts import LAYOUTS

# Small ones, and shallow ones of published width, for every library; deep ones once for each.
DEEP = [("timm", "base-v1"), ("torchvision", "base-v2")]
DEEP += [("Hugging Face", "tiny-v1"), ("Hugging Face", "tiny-v2")]
PAIRS = [(i, name) for i in BUILDERS for name in CASES if name.startswith(("small", "shallow"))]
PAIRS += [pytest.param(*pair, marks=pytest.mark.slow) for pair in DEEP]


@pytest.mark.parametrize(("library", "name"), PAIRS, ids=str)
def test_maps_equal_the_librarys(library, name):
    case = CASES[name]
    reference = BUILDERS[library](case)
    backbone = case.build(out_indices=range(case.stages))
    backbone.load_state_dict(reference.state)
    assert backbone.load_report.layout == library
    image = torch.randn(1, 3, case.image, case.image, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = reference.compute_maps(image)[: case.stages]
        found = backbone(image)
    for a, b in zip(found, wanted, strict=True):
        assert relative_error(a, b if reference.has_norms else normalise(b)) < 1e-5
    # Written back, the weights are those of the library's file, under its names. Not compared:
    # norms that transformers' V2 lacks, and the key's bias, which torchvision's V2 zeroes.
    (layout,) = (layout for layout in LAYOUTS if layout.name == library)
    written = convert(backbone.state_dict(), layout).state
    shared = {k for k in written.keys() & reference.state.keys() if not k.endswith("qkv.bias")}
    assert all(torch.equal(written[key], reference.state[key]) for key in shared)
    assert all("norm" in key for key in written.keys() - reference.state.keys())
