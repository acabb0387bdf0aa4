"""NaN and infinite weights: each command says which there are, and does not use them."""

import json
import math
from pathlib import Path

import pytest
import torch
from swin_weights import microsoft_state

from swin_mm.cli import main as cli

NAMES = ("layers.0.blocks.0.mlp.fc1.bias", "patch_embed.norm.weight")


def save_bad(value, dtype=torch.float32):
    """A Swin with a bad value in two places, and a mask of minus infinity, which is none."""
    state = {key: tensor.to(dtype) for key, tensor in microsoft_state(None).items()}
    for name in NAMES:
        state[name][-1] = value
    mask = torch.tensor([0, -math.inf])
    torch.save({"state_dict": state | {"head.mask": mask}, "meta": {}}, "bad.pth")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("command", ["test", "convert"])
def test_a_checkpoint_that_is_not_finite_is_refused(toy, capsys, command, value):
    save_bad(value)
    arguments = {
        "test": (toy(), "bad.pth"),
        "convert": ("bad.pth", "out.pth", "--to", "mmdet"),
    }[command]
    assert cli.main([command, *arguments]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("swin-mm: error: ") and errors.count("\n") == 1
    assert "holds NaN or infinite values in" in errors and all(name in errors for name in NAMES)
    assert "mask" not in errors and not Path("out.pth").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_inspect_lists_what_is_not_finite(tmp_path, monkeypatch, capsys, dtype):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    save_bad(math.nan, dtype)
    assert cli.main(["inspect", "bad.pth"]) == 1
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "NaN or infinite" in line)
    assert all(f"state_dict.{name}" in line for name in NAMES) and "mask" not in line
    assert cli.main(["inspect", "bad.pth", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert sorted(facts["non_finite"]) == [f"state_dict.{name}" for name in NAMES]
