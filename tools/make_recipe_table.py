"""Writes the table of recipes in configs/README.md from the configs; takes some minutes.

A recipe's docstring begins with a line `Method, Swin-X[, what differs], DATA, schedule.` and has
lines `published: ...` and `measured: ...`; the first address in it is where the published figures
are from. Parameters and multiply-adds are counted from the config.
"""

import argparse
import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from mmengine.utils import track_iter_progress

from swin_mm.analysis.flops import count_complexity, count_parameters, usual_shape

CONFIGS = Path(__file__).parents[1] / "configs"
BEGIN = "<!-- recipes: begin; written by tools/make_recipe_table.py -->"
END = "<!-- recipes: end -->"
DATA = ("COCO", "ADE20K", "Cityscapes")
OTHER_DATA = "Built-in shapes, and variations"
NOT_TRAINED = "not yet trained"
HEADS = (
    "Config",
    "Method",
    "Backbone",
    "Schedule",
    "Published",
    "Parameters, M",
    "GFLOPs",
    "Measured",
)
_BACKBONE = re.compile(r"Swin(?: V2)?-[TSBL]\b")
_COUNT = r"(\d+(?:\.\d+)?) ?{unit}"


class RecipeError(ValueError):
    """A config whose docstring does not say what the table has to say."""


@dataclass(frozen=True)
class Recipe:
    """What a config says of itself.

    Attributes:
        name: Of the file, without its ending.
        method: Detector or segmentor, and what differs.
        backbone: Such as `Swin-T`; empty where it is not named.
        data: One of `DATA`, or `OTHER_DATA`.
        schedule: Length and augmentation.
        published: Published figures, but for the two below; empty where there are none.
        source: Address of the figures.
        parameters: Published number of parameters in millions, as written.
        gflops: Published cost, as written.
        measured: What was measured.
    """

    name: str
    method: str
    backbone: str
    data: str
    schedule: str
    published: str
    source: str
    parameters: str
    gflops: str
    measured: str


class Cost(NamedTuple):
    """Parameters, and multiply-adds for one image of the usual size if the data has one."""

    parameters: int
    multiply_adds: int | None


def read_recipe(path: Path) -> Recipe:
    """Reads the docstring of a config.

    Raises:
        RecipeError: There is none, it says nothing measured, or figures are without a source.
    """
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    lines = text.splitlines()
    measured = re.search(r"measured: (.+?)(?:\.(?:\s|$)|\n|$)", text)
    if not lines or measured is None:
        raise RecipeError(f"{path}: its docstring must have a line 'measured: ...'")
    published = re.search(r"^ *published: (.+)$", text, re.MULTILINE)
    figures = published[1] if published and not published[1].startswith("none") else ""
    source = re.search(r"https://\S+[^\s.,;)]", text)
    if figures and source is None:
        raise RecipeError(f"{path}: published figures need the address of their source")
    figures, parameters = _take(figures, _COUNT.format(unit="M parameters"))
    figures, gflops = _take(figures, _COUNT.format(unit="GFLOPs"))
    method, backbone, data, schedule = _split_title(lines[0].rstrip("."))
    return Recipe(
        name=path.stem,
        method=method,
        backbone=backbone,
        data=data,
        schedule=schedule,
        published=figures.strip(" ,"),
        source=source[0] if figures and source else "",
        parameters=parameters,
        gflops=gflops,
        measured=measured[1].strip(),
    )


def _take(figures: str, pattern: str) -> tuple[str, str]:
    """Takes one figure out of a list of them."""
    found = re.search(r",? *" + pattern, figures)
    return (figures.replace(found[0], ""), found[1]) if found else (figures, "")


def _split_title(title: str) -> tuple[str, str, str, str]:
    items = title.split(", ")
    place = next((i for i, item in enumerate(items) if item in DATA), None)
    if place is None:
        return title, "", OTHER_DATA, ""
    backbone = _BACKBONE.search(title)
    before = [item for item in items[:place] if not _BACKBONE.fullmatch(item)]
    name = backbone[0] if backbone else ""
    return ", ".join(before), name, items[place], ", ".join(items[place + 1 :])


def count_cost(cfg: Config) -> Cost:
    """Counts what the model of a config costs."""
    shape = usual_shape(cfg)
    if shape is None:
        return Cost(count_parameters(cfg), None)
    total = count_complexity(cfg, shape).total
    return Cost(total.parameters, total.multiply_adds)


def make_table(recipes: Iterable[Recipe], costs: Mapping[str, Cost]) -> str:
    """Makes the tables, one for each data set, in Markdown.

    Args:
        recipes: In the order to show them.
        costs: By name of the recipe.
    """
    recipes = list(recipes)
    parts = []
    for data in (*DATA, OTHER_DATA):
        rows = [make_row(recipe, costs[recipe.name]) for recipe in recipes if recipe.data == data]
        if rows:
            rule = ["---", "---", "---", "---", "---", "--:", "--:", "---"]
            lines = [_line(cells) for cells in (HEADS, rule, *rows)]
            parts.append(f"### {data}\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def make_row(recipe: Recipe, cost: Cost) -> list[str]:
    """Cells of a recipe; published counts stand in brackets after ours."""
    published = recipe.published and f"{recipe.published} ([source]({recipe.source}))"
    parameters = f"{cost.parameters / 1e6:.1f}"
    gflops = "" if cost.multiply_adds is None else f"{cost.multiply_adds / 1e9:.0f}"
    return [
        f"[`{recipe.name}`]({recipe.name}.py)",
        recipe.method,
        recipe.backbone,
        recipe.schedule,
        published or "none",
        parameters + (f" ({recipe.parameters})" if recipe.parameters else ""),
        gflops + (f" ({recipe.gflops})" if recipe.gflops else ""),
        recipe.measured,
    ]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def read_costs(page: str) -> dict[str, tuple[str, str]]:
    """What a page has for parameters and GFLOPs, by name of the recipe, as written."""
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| [`")]
    return {row[0].split("`")[1]: (row[5].strip(), row[6].strip()) for row in rows}


def replace_table(page: str, table: str) -> str:
    """Puts a table in place of that of a page.

    Raises:
        RecipeError: The page has no marks for it.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise RecipeError(f"the page must have one line {BEGIN!r} and one {END!r}")
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.parse_args()
    paths = sorted(CONFIGS.glob("*.py"))
    recipes = [read_recipe(path) for path in paths]
    costs = {path.stem: count_cost(Config.fromfile(path)) for path in track_iter_progress(paths)}
    page = CONFIGS / "README.md"
    text = replace_table(page.read_text(encoding="utf-8"), make_table(recipes, costs))
    page.write_text(text, encoding="utf-8")
