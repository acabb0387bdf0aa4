"""What a token attends to, beside mmdet's own attention; the sheet and the command."""

import numpy as np
import pytest
import torch
from mmdet.models.backbones import SwinTransformer as StockSwinTransformer
from mmdet.models.backbones.swin import WindowMSA
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from swin_mm.analysis.explain import explain_pixel
from swin_mm.analysis.explain_figure import colour_map, draw_explanation
from swin_mm.cli.main import main
from swin_mm.configs import ConfigError
from swin_mm.inference.model import Model
from swin_mm.inference.sources import PredictError

SIDES, RESIZED = (52, 100), (104, 200)  # maps of 26x50 and 13x25 tokens, in windows of 4x4
WINDOW, STRIDES = 4, (4, 8)
CONFIG = """
default_scope = 'mmseg'
custom_imports = dict(imports=['swin_mm'], allow_failed_imports=False)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True,
        size_divisor=1, test_cfg=dict(size_divisor=1)),
    backbone=dict(
        type='swin_mm.SwinTransformer', embed_dims=16, depths=(2, 2), num_heads=(2, 4),
        window_size=4, strides=(4, 2), out_indices=(0, 1)),
    decode_head=dict(
        type='FCNHead', in_channels=32, in_index=1, channels=8, num_convs=1, num_classes=2),
    train_cfg=dict(), test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(32, 32)))
test_dataloader = dict(dataset=dict(
    type='BaseSegDataset', metainfo=dict(classes=('a', 'b')),
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(200, 104), keep_ratio=False),
        dict(type='PackSegInputs')]))
"""
PIXELS = {"middle": (51, 20), "corner": (99, 51), "first": (0, 0), "last-windows": (95, 3)}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A config, weights and an image, in the current folder; returns mmdet's backbone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(CONFIG)
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 256, (*SIDES, 3), dtype=np.uint8)).save("photo.png")
    torch.manual_seed(0)
    stock = StockSwinTransformer(
        embed_dims=16,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=WINDOW,
        strides=(4, 2),
        out_indices=(0, 1),
    )
    stock.eval()  # returns nothing
    for parameter in stock.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with DefaultScope.overwrite_default_scope("mmseg"):
        network = MODELS.build(Config.fromfile("model.py").model)
    network.backbone.load_state_dict(stock.state_dict())
    torch.save({"state_dict": network.state_dict(), "meta": {}}, "weights.pth")
    return stock


def load(**backbone):
    """The model of the files, or with another backbone and random weights."""
    cfg = Config.fromfile("model.py")
    if backbone:
        cfg.model.backbone.update(backbone)
        with DefaultScope.overwrite_default_scope("mmseg"):
            network = MODELS.build(cfg.model)
        torch.save({"state_dict": network.state_dict(), "meta": {}}, "weights.pth")
    return Model(cfg, "weights.pth", "cpu")


def attention_of(stock, inputs):
    """The attention weights of each block of mmdet's backbone, `(nW, nH, N, N)`."""
    kept = []
    for module in stock.modules():
        if isinstance(module, WindowMSA):
            module.attn_drop.register_forward_hook(lambda m, args, out: kept.append(out))
    with torch.no_grad():
        maps = stock(inputs)
    return kept, maps


@pytest.mark.parametrize("pixel", PIXELS.values(), ids=PIXELS)
def test_weights_are_those_of_mmdets_attention(files, pixel):
    """Also on padded tokens, on resized images, and in windows that a shift makes of two parts."""
    model = load()
    found = explain_pixel(model, "photo.png", pixel)
    assert found.image.shape == (*SIDES, 3)
    pixels = torch.from_numpy(np.asarray(Image.open("photo.png").resize(RESIZED[::-1])).copy())
    _, batch = model.prepare("photo.png")
    assert batch["inputs"].shape == (1, 3, *RESIZED) and pixels.shape == (*RESIZED, 3)
    expected, maps = attention_of(files, batch["inputs"])
    assert [(b.stage, b.block, b.is_shifted) for b in found.blocks] == [
        (0, 0, False),
        (0, 1, True),
        (1, 0, False),
        (1, 1, True),
    ]
    for block, all_weights in zip(found.blocks, expected, strict=True):
        size = [side // STRIDES[block.stage] for side in RESIZED]
        padded = [-(-side // WINDOW) * WINDOW for side in size]
        shift = WINDOW // 2 if block.is_shifted else 0
        # The image was enlarged twice, so a pixel lies in its middle.
        token = [int(2 * (p + 0.5)) // STRIDES[block.stage] for p in pixel[::-1]]
        row, column = ((t - shift) % p for t, p in zip(token, padded, strict=True))
        window = row // WINDOW * (padded[1] // WINDOW) + column // WINDOW
        weights = all_weights[window, :, row % WINDOW * WINDOW + column % WINDOW]  # (nH, N)
        heat, padding = np.zeros_like(block.weights), 0
        for place, weight in enumerate(weights.T.numpy()):
            i = (row // WINDOW * WINDOW + place // WINDOW + shift) % padded[0]
            j = (column // WINDOW * WINDOW + place % WINDOW + shift) % padded[1]
            if i < size[0] and j < size[1]:
                heat[:, i, j] = weight
            else:
                padding = padding + weight
        assert block.weights.shape == (len(weights), *size)
        np.testing.assert_allclose(block.weights, heat, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(block.padding, padding, rtol=1e-4, atol=1e-6)
        total = block.weights.sum((1, 2)) + block.padding
        np.testing.assert_allclose(total, 1, rtol=1e-5)
        assert block.context == {}
    for index, one in enumerate(maps):
        np.testing.assert_allclose(found.maps[index], one[0].numpy(), rtol=1e-3, atol=1e-4)


def test_context_is_what_the_mixes_add(files):
    """The norm of what each scale adds to a token, by switching one scale on at a time."""
    model = load(context_scales=("window", "global"))
    attn = model.module.backbone.layers[1].blocks[1].attn
    torch.nn.init.normal_(attn.context_mix)
    inputs = []
    handle = attn.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    found = explain_pixel(model, "photo.png", PIXELS["middle"])
    handle.remove()
    assert [set(block.context) for block in found.blocks] == [{"window", "global"}] * 4
    assert all(share == 0 for block in found.blocks[:3] for share in block.context.values())
    width, mix = attn.embed_dims // attn.num_heads, attn.context_mix.detach().clone()
    outs = {}
    with torch.no_grad():
        for name, factors in {"": (0, 0), "window": (1, 0), "global": (0, 1)}.items():
            mask = torch.tensor(factors).repeat_interleave(width)
            attn.context_mix.copy_(mix * mask)
            outs[name] = attn.attend(inputs[0])[0, 5, 12]  # token of rows 40-47, columns 96-103
    for scale, share in found.blocks[3].context.items():
        expected = (outs[scale] - outs[""]).norm() / outs[""].norm()
        assert share == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("kind", ["swin_mm.SwinTransformer", "swin_mm.SwinTransformerV2"])
def test_hooks_are_removed_and_rows_sum_to_one(files, kind):
    model = load(type=kind)
    backbone = model.module.backbone
    found = explain_pixel(model, np.zeros((*SIDES, 3), np.uint8), (10, 10))
    assert not any(module._forward_pre_hooks for module in backbone.modules())
    for block in found.blocks:
        np.testing.assert_allclose(block.weights.sum((1, 2)) + block.padding, 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("image", "pixel", "error", "message"),
    [
        ("photo.png", (100, 3), ConfigError, "pixel 100 3 is outside .* 100 columns and 52 rows"),
        ("photo.png", (3, -1), ConfigError, "pixel 3 -1 is outside of the image"),
        (".", (0, 0), PredictError, "one image is wanted, got ."),
        ("none.png", (0, 0), PredictError, "there is no image or folder none.png"),
    ],
    ids=["right", "above", "folder", "missing"],
)
def test_other_sources_are_refused(files, image, pixel, error, message):
    with pytest.raises(error, match=message):
        explain_pixel(load(), image, pixel)


def test_other_backbones_are_refused(files):
    model = load()
    model.module.backbone = files
    with pytest.raises(ConfigError, match="only backbones of swin_mm can be explained"):
        explain_pixel(model, "photo.png", (0, 0))


def test_a_map_is_coloured_by_its_main_components():
    """Two ramps across one another: the stronger is red, the weaker green; no third, no blue."""
    rows, columns = np.mgrid[0:6, 0:9].astype(float)
    features = np.stack([columns, 0.3 * (rows - 2.5), -columns, 0 * rows])
    colours = colour_map(features)
    assert colours.shape == (6, 9, 3) and colours.min() >= 0 and colours.max() <= 1
    for channel, ramp in ((0, columns), (1, rows)):
        assert abs(np.corrcoef(colours[..., channel].ravel(), ramp.ravel())[0, 1]) > 0.98


def test_the_command_writes_a_sheet(files, capsys):
    command = ["explain", "model.py", "weights.pth", "photo.png", "--pixel"]
    assert main([*command, "51", "20", "--out", "a/b.png"]) == 0
    assert capsys.readouterr().out.endswith("attention and feature maps: a/b.png\n")
    with Image.open("a/b.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert pixels.shape[0] > 300 and pixels.std() > 20
    assert main([*command, "200", "0"]) == 1
    assert "pixel 200 0 is outside of the image" in capsys.readouterr().err


def test_maps_of_one_token_and_long_stages_are_drawn(files, tmp_path):
    """More blocks than columns; a last map smaller than its window; few channels."""
    model = load(depths=(8, 2), out_indices=(1,))
    found = explain_pixel(model, np.full((8, 8, 3), 7, np.uint8), (7, 7))
    draw_explanation(found, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > sheet.size[1] / 2
