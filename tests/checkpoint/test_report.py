"""The line that says what was loaded."""

from swin_mm.checkpoint.report import LoadReport, list_names


def test_a_plain_load_is_short():
    report = LoadReport("backbone", "mmdet", loaded=173, total=173)
    assert str(report) == "backbone: loaded 173/173 (mmdet layout)"


def test_everything_that_is_not_plain_is_said():
    report = LoadReport(
        "module.backbone",
        "Microsoft",
        loaded=165,
        total=173,
        dropped=("head.weight", "head.bias"),
        initial=("norm0", "norm1"),
        plain_blocks=12,
        skipped_prefixes=("encoder_k.",),
        resized=(
            "layers.0.blocks.0.attn.relative_position_bias_table",
            "layers.0.blocks.1.attn.relative_position_bias_table",
            "absolute_pos_embed",
            "patch_embed.proj.weight",
        ),
        file="swin.pth",
    )
    assert str(report) == (
        "module.backbone: loaded 165/173 from swin.pth (Microsoft layout), "
        "skipped encoder_k., dropped head.weight, head.bias, kept initial norm0, norm1, "
        "resized relative_position_bias_table, relative_position_bias_table, "
        "absolute_pos_embed, patch_embed.proj.weight, "
        "left the mixed context of 12 blocks at the identity"
    )


def test_many_names_are_counted_by_what_they_belong_to():
    names = [f"layers.0.blocks.{i}.attn.relative_position_index" for i in range(3)]
    names += ["layers.3.norm.weight", "layers.3.norm.bias", "head.weight"]
    names += ["roi_head.0.weight", "roi_head.1.weight", "absolute_pos_embed"]
    assert list_names(names) == (
        "3 x relative_position_index, 2 x layers.3.*, 1 x head.*, 2 x roi_head.*, "
        "1 x absolute_pos_embed"
    )
