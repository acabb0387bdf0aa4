"""Hugging Face's layout against its own classes and what they save."""

import re

import pytest
import torch
import transformers
from swin_libraries import CASES, build_huggingface, draw_weights, saved
from swin_weights import relative_error

from swin_mm.checkpoint.layouts import HUGGINGFACE, recognise

ATTENTION = "encoder.layers.0.blocks.0.attention.self"
STAGES = [f"stage{i}" for i in range(1, 5)]


@pytest.fixture(params=["small-v1", "small-v2"])
def case(request):
    return CASES[request.param]


def config_of(case, **arguments):
    version = "" if case.version == 1 else "v2"
    return getattr(transformers, f"Swin{version}Config")(
        image_size=64,
        embed_dim=case.embed_dims,
        depths=list(case.depths),
        num_heads=list(case.num_heads),
        window_size=case.window,
        out_features=STAGES,
        **arguments,
    )


MODELS = {
    "SwinModel": (1, ""),
    "SwinBackbone": (1, ""),
    "SwinForImageClassification": (1, ""),
    "SwinForMaskedImageModeling": (1, ""),
    "Swinv2Model": (2, ""),
    "Swinv2Backbone": (2, ""),
    "Swinv2ForImageClassification": (2, ""),
    "Swinv2ForMaskedImageModeling": (2, ""),
    "UperNetForSemanticSegmentation": (1, "backbone."),
    "Mask2FormerForUniversalSegmentation": (1, "model.pixel_level_module.encoder."),
    "MaskFormerForInstanceSegmentation": (1, "model.pixel_level_module.encoder."),
}


@pytest.mark.parametrize("kind", ["file", "memory"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_loads_into_our_backbone(name, kind):
    version, prefix = MODELS[name]
    case = CASES[f"small-v{version}"]
    config = config_of(case)
    if prefix:
        wrapper = name.rpartition("For")[0]
        config = getattr(transformers, f"{wrapper}Config")(backbone_config=config)
    module = draw_weights(getattr(transformers, name)(config))
    state = saved(module) if kind == "file" else module.state_dict()
    assert recognise(state) == (HUGGINGFACE, prefix, version, ())
    backbone = case.build()
    backbone.load_state_dict(state)
    report = backbone.load_report
    has_norms = "Backbone" in name or prefix
    assert report.total - report.loaded == (0 if has_norms and version == 1 else 8)
    query = next(
        value
        for key, value in module.named_parameters()
        if re.search(r"layers\.1\.blocks\.1\.attention\.(self\.query|q_proj)\.weight", key)
    )
    assert torch.equal(backbone.layers[1].blocks[1].attn.qkv.weight[:16], query)


@pytest.mark.parametrize(
    "key", [f"{ATTENTION}.query.weight", f"{ATTENTION}.key.weight", f"{ATTENTION}.value.weight"]
)
def test_parts_are_joined_in_order(case, key):
    source = build_huggingface(case).state
    source[key] = torch.full((8, 8), 7.0)
    qkv = HUGGINGFACE.to_own(source).state["layers.0.blocks.0.attn.qkv.weight"]
    place = ("query", "key", "value").index(key.split(".")[-2])
    assert (qkv[8 * place : 8 * place + 8] == 7).all()
    assert (qkv == 7).sum() == 64


@pytest.mark.parametrize("part", ["query.weight", "key.weight", "value.weight"])
@pytest.mark.parametrize("change", ["drop", "grow", "flatten", "scalar"])
def test_parts_that_cannot_be_joined_are_unknown(case, part, change):
    source = build_huggingface(case).state
    weight = source.pop(f"{ATTENTION}.{part}")
    changed = {
        "drop": {},
        "grow": {f"{ATTENTION}.{part}": torch.cat([weight, weight[:1]])},
        "flatten": {f"{ATTENTION}.{part}": weight.flatten()},
        "scalar": {f"{ATTENTION}.{part}": torch.tensor(0.0)},
    }[change]
    conversion = HUGGINGFACE.to_own(source | changed)
    assert "layers.0.blocks.0.attn.qkv.weight" not in conversion.state
    assert len(conversion.unknown) == (2 if change == "drop" else 3)


def test_v2_has_no_bias_of_keys():
    source = build_huggingface(CASES["small-v2"]).state
    own = HUGGINGFACE.to_own(source).state
    assert own["layers.0.blocks.0.attn.q_bias"] is source[f"{ATTENTION}.query.bias"]
    assert own["layers.0.blocks.0.attn.v_bias"] is source[f"{ATTENTION}.value.bias"]
    source[f"{ATTENTION}.key.bias"] = torch.zeros(8)
    assert "layers.0.blocks.0.attn.qkv.bias" in HUGGINGFACE.to_own(source).state  # unexpected in V2


@pytest.mark.parametrize("key", [f"{ATTENTION}.qkv.weight", f"{ATTENTION}.q_bias"])
def test_joined_names_are_unknown(key):
    source = build_huggingface(CASES["small-v2"]).state | {key: torch.zeros(8)}
    assert HUGGINGFACE.to_own(source).unknown == [key]


def test_a_parameter_under_the_names_of_two_versions_is_unknown():
    source = build_huggingface(CASES["small-v1"]).state
    key = "encoder.layers.0.blocks.0.mlp.fc1.weight"
    source[key] = source["encoder.layers.0.blocks.0.intermediate.dense.weight"]
    assert HUGGINGFACE.to_own(source).unknown == [key]


def test_position_embeddings_are_read():
    module = draw_weights(
        transformers.SwinModel(config_of(CASES["small-v1"], use_absolute_embeddings=True))
    )
    own = HUGGINGFACE.to_own(saved(module)).state
    assert torch.equal(own["absolute_pos_embed"], module.embeddings.position_embeddings)


def test_transformers_loads_what_is_written(case, tmp_path):
    from safetensors.torch import save_file

    reference = build_huggingface(case)
    backbone = draw_weights(case.build(), seed=3)
    written = HUGGINGFACE.from_own(backbone.state_dict())
    if case.version == 2:
        written = {key: value for key, value in written.items() if "hidden_states" not in key}
    reference.module.config.save_pretrained(tmp_path)
    written = {key: value.contiguous() for key, value in written.items()}
    save_file(written, tmp_path / "model.safetensors", metadata={"format": "pt"})
    module = type(reference.module).from_pretrained(tmp_path).eval()
    image = torch.randn(1, 3, case.image, case.image, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = module(image).feature_maps
        found = backbone(image)
    if case.version == 1:
        for a, b in zip(found, wanted, strict=True):
            assert relative_error(a, b) < 1e-5
    else:
        norm = backbone.norm3
        assert relative_error(found[3], norm(wanted[3].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)) < (
            1e-5
        )
