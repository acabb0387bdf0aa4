"""The recipe table: what is read from docstrings, and that the page is up to date."""

import sys
from pathlib import Path

import pytest
from mmengine.config import Config

sys.path.append(str(Path(__file__).parents[2] / "tools"))
from make_recipe_table import (
    BEGIN,
    END,
    OTHER_DATA,
    Cost,
    RecipeError,
    count_cost,
    make_row,
    make_table,
    read_costs,
    read_recipe,
    replace_table,
)

CONFIGS = Path(__file__).parents[2] / "configs"
PATHS = sorted(CONFIGS.glob("*.py"))
PAGE = CONFIGS / "README.md"
DOCSTRING = '''"""UPerNet, Swin-T, pretrained at 384, ADE20K, 160,000 steps at 512x512, twice.

Reproduces `upernet` of
https://example.org/upernet.
    published: mIoU 44.51 (45.81 with flips), 60M parameters, 945 GFLOPs
    measured: mIoU 44.4, one run
Command: `x`
"""
'''


def read(folder: Path, text: str):
    path = folder / "mine.py"
    path.write_text(text)
    return read_recipe(path)


def test_reads_a_docstring(tmp_path):
    recipe = read(tmp_path, DOCSTRING)
    assert recipe.name == "mine"
    assert recipe.method == "UPerNet, pretrained at 384"
    assert (recipe.backbone, recipe.data) == ("Swin-T", "ADE20K")
    assert recipe.schedule == "160,000 steps at 512x512, twice"
    assert recipe.published == "mIoU 44.51 (45.81 with flips)"
    assert recipe.source == "https://example.org/upernet"
    assert (recipe.parameters, recipe.gflops) == ("60", "945")
    assert recipe.measured == "mIoU 44.4, one run"


def test_backbone_within_the_method_and_nothing_published(tmp_path):
    text = '"""RTMDet-L with Swin V2-B, COCO, 100 epochs.\n\n    published: none\n'
    recipe = read(tmp_path, text + '    measured: not yet trained\n"""\n')
    assert (recipe.method, recipe.backbone) == ("RTMDet-L with Swin V2-B", "Swin V2-B")
    assert (recipe.published, recipe.source, recipe.parameters) == ("", "", "")


def test_variation_of_another_config(tmp_path):
    text = '"""`a` on the built-in shapes.\n\nNo published result; measured: see README. More.\n"""'
    recipe = read(tmp_path, text)
    assert (recipe.method, recipe.data) == ("`a` on the built-in shapes", OTHER_DATA)
    assert recipe.measured == "see README"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"""A, Swin-T, COCO, 1x.\n\n    published: none\n"""', "must have a line 'measured:"),
        ("a = 1\n", "must have a line 'measured:"),
        ('"""A.\n\n    published: PQ 5\n    measured: none\n"""', "need the address"),
    ],
    ids=["not measured", "no docstring", "no source"],
)
def test_docstring_that_says_too_little(tmp_path, text, message):
    with pytest.raises(RecipeError, match=f"mine.py: .*{message}"):
        read(tmp_path, text)


def test_row_and_table(tmp_path):
    recipe = read(tmp_path, DOCSTRING)
    table = make_table([recipe], {"mine": Cost(59_943_578, 941_600_000_000)})
    assert table.startswith("### ADE20K\n\n| Config | Method |")
    assert table.endswith(
        "| [`mine`](mine.py) | UPerNet, pretrained at 384 | Swin-T | 160,000 steps at 512x512, "
        "twice | mIoU 44.51 (45.81 with flips) ([source](https://example.org/upernet)) | 59.9 (60) "
        "| 942 (945) | mIoU 44.4, one run |"
    )
    assert read_costs(table) == {"mine": ("59.9 (60)", "942 (945)")}
    assert make_row(recipe, Cost(10**6, None))[6] == " (945)"


def test_only_the_table_is_replaced():
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replace_table(page, "new") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    with pytest.raises(RecipeError, match="must have one line"):
        replace_table("page", "new")


def test_page_says_what_the_configs_say():
    """Each cell but those that are counted, of every recipe."""
    page = PAGE.read_text()
    costs = read_costs(page)
    missing = [path.stem for path in PATHS if path.stem not in costs]
    assert not missing, "run tools/make_recipe_table.py"
    assert set(costs) == {path.stem for path in PATHS}
    for path in PATHS:
        recipe = read_recipe(path)
        row = make_row(recipe, Cost(0, None))
        row[5:7] = costs[recipe.name]
        assert f"| {' | '.join(row)} |" in page, "run tools/make_recipe_table.py"
        assert not recipe.parameters or row[5].endswith(f" ({recipe.parameters})")
        assert not recipe.gflops or row[6].endswith(f" ({recipe.gflops})")


@pytest.mark.parametrize(
    "name",
    [
        "mask_rcnn_swin_t",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("cascade_mask_rcnn_swin_t", "upernet_swin_t")
        ),
    ],
)
def test_page_has_the_costs_that_are_counted(name):
    cfg, recipe = Config.fromfile(CONFIGS / f"{name}.py"), read_recipe(CONFIGS / f"{name}.py")
    row = make_row(recipe, count_cost(cfg))
    assert read_costs(PAGE.read_text())[name] == tuple(row[5:7])
