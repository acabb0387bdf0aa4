"""What MkDocs does to pages: includes files from elsewhere, drops links that leave the site."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
INCLUDE = re.compile(r"^\{include: ([^}]+)\}$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Puts `{include: PATH}` in place; links to files outside the site become their text.

    Args:
        markdown: The page.
        page: Where it is.
    """
    markdown = INCLUDE.sub(lambda m: (ROOT / m[1]).read_text(encoding="utf-8"), markdown)
    folder = Path(page.file.abs_src_path).parent

    def unlink(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        is_page = (folder / target).is_file() or "://" in target
        return match[0] if is_page else text

    return LINK.sub(unlink, markdown)
