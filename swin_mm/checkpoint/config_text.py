"""Reads the config that a checkpoint carries as data, without evaluating it.

The text that mmengine writes into a checkpoint's `meta` is assignments of plain values and
`dict(...)`; exactly that is read here, and anything else is an error.
"""

import ast
from typing import Any

MAX_CHARACTERS = 10_000_000


def parse_config_text(text: str) -> dict[str, Any]:
    """Reads assignments of plain values, as `Config.pretty_text` writes them.

    Raises:
        ValueError: The text holds anything else, which is not evaluated.
    """
    if not isinstance(text, str) or len(text) > MAX_CHARACTERS or "\0" in text:
        raise ValueError("the config in the checkpoint is no text of a usual size; it is not read")
    try:
        statements = ast.parse(text).body
        values = {}
        for statement in statements:
            if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
                raise _code(statement)
            (target,) = statement.targets
            if not isinstance(target, ast.Name):
                raise _code(statement)
            values[target.id] = _evaluate(statement.value)
        return values
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"the config in the checkpoint cannot be read ({type(error).__name__}); give the "
            "config file itself"
        ) from error


def _evaluate(node: ast.expr) -> Any:
    """The value of a literal or of `dict(...)`."""
    if isinstance(node, ast.Call):
        # `dict(a=1)`, and `dict({"a-b": 1})` for keys that are no names.
        is_dict = isinstance(node.func, ast.Name) and node.func.id == "dict"
        are_plain = all(isinstance(given, ast.Dict) for given in node.args) and len(node.args) <= 1
        if not is_dict or not are_plain or any(k.arg is None for k in node.keywords):
            raise _code(node)
        values = _evaluate(node.args[0]) if node.args else {}
        return values | {k.arg: _evaluate(k.value) for k in node.keywords}
    if isinstance(node, ast.List):
        return [_evaluate(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_evaluate(item) for item in node.elts)
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise _code(node)
        keys = [_evaluate(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_evaluate, node.values), strict=True))
    if isinstance(node, ast.Name) and node.id in ("inf", "nan"):
        return float(node.id)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise _code(node) from error


def _code(node: ast.AST) -> ValueError:
    return ValueError(
        f"the config in the checkpoint holds code ({ast.unparse(node)[:80]!r}), and nothing from a "
        "file of weights is executed; give the config file itself"
    )
