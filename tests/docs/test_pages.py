"""What the pages in docs/ name exists."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "swin_mm"
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
NAME = re.compile(r"swin_mm(?:\.\w+)+")
PATH = re.compile(r"(?<![\w/.:-])(?:swin_mm|tools|configs|docs|tests|benchmarks)/[\w./*-]*[\w*]/?")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
# What a command of a page writes, and a folder of mmcv's.
ELSEWHERE = ("benchmarks/gpu/", "tests/test_ops")


def find(name: str) -> object:
    """What a dotted name means: a module, or what is in one, down to a class's attribute."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def is_registered(name: str) -> bool:
    """Whether a name is one that configs give as a `type`."""
    from swin_mm import registry

    scope, _, kind = name.partition(".")
    tables = [table for table in vars(registry).values() if hasattr(table, "module_dict")]
    return scope == "swin_mm" and any(table.get(f"{scope}.{kind}") for table in tables)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_paths_and_links_exist(page):
    text = page.read_text(encoding="utf-8")
    missing = []
    for name in sorted(set(NAME.findall(text))):
        try:
            find(name)
        except (ModuleNotFoundError, AttributeError):
            if not is_registered(name):
                missing.append(name)
    for path in sorted(set(PATH.findall(text))):
        if not any(ROOT.glob(path.rstrip("/"))) and path not in ELSEWHERE:
            missing.append(path)
    missing += [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    assert not missing


def read_imports() -> set[tuple[str, str]]:
    """Which room of the package imports from which."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("swin_mm."):
                found.add((room, node.module.split(".")[1]))
            elif isinstance(node, ast.ImportFrom) and node.module == "swin_mm":
                found.update((room, alias.name) for alias in node.names)
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    return {(a, b) for a, b in found if a in rooms and b in rooms and a != b}


def test_imports_point_downwards():
    floors = (
        {"cli"},
        {"init_config", "analysis", "benchmark"},
        {"inference"},
        {"export"},
        {"engine", "compat"},
        {"datasets", "evaluation"},
        {"heads"},
        {"models"},
        {"checkpoint"},
        {"ops"},
    )
    floor_of = {room: number for number, rooms in enumerate(floors) for room in rooms}
    wrong = [(a, b) for a, b in sorted(read_imports()) if floor_of[a] >= floor_of[b]]
    assert not wrong


def test_the_diagram_shows_rooms_and_imports_that_exist():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    diagram = page.partition("```mermaid")[2].partition("```")[0]
    nodes = {n: label.split(" · ") for n, label in re.findall(r'(\w+)\["([^"]+)"\]', diagram)}
    edges = re.findall(r"^ *(\w+)\S*.*? --> (\w+)", diagram, re.MULTILINE)
    rooms = [path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()]
    assert sorted(room for label in nodes.values() for room in label) == sorted(rooms)
    imports = read_imports()
    unseen = [e for e in edges if not {(a, b) for a in nodes[e[0]] for b in nodes[e[1]]} & imports]
    assert edges and not unseen
    listed = re.findall(r"^\| `swin_mm/(\w+)/`", page, re.MULTILINE)
    assert sorted(listed) == sorted(rooms)
