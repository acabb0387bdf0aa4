"""Writes the table of recipes in configs/README.md; takes some minutes."""

import argparse
from pathlib import Path

from mmengine.config import Config
from mmengine.utils import track_iter_progress

from swin_mm.analysis.recipes import count_cost, make_table, read_recipe, replace_table

CONFIGS = Path(__file__).parents[1] / "configs"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    paths = sorted(CONFIGS.glob("*.py"))
    recipes = [read_recipe(path) for path in paths]
    costs = {path.stem: count_cost(Config.fromfile(path)) for path in track_iter_progress(paths)}
    page = CONFIGS / "README.md"
    text = replace_table(page.read_text(encoding="utf-8"), make_table(recipes, costs))
    page.write_text(text, encoding="utf-8")
