"""Silences the warning that `pkg_resources` is to go.

For mmengine 0.10 with setuptools 80 and 81, where `pkg_resources` warns whoever runs a program that
imports it. mmengine does, for every config with a base such as `mmdet::...`, and its users can do
nothing about it: where `pkg_resources` has gone, `missing_pkg_resources` stands in.
"""

import warnings

MESSAGE = "pkg_resources is deprecated as an API"


def install() -> None:
    """Adds a filter for this one warning."""
    warnings.filterwarnings("ignore", message=MESSAGE)


def explain() -> tuple[bool, str]:
    """Says whether the warning is silenced, and why."""
    ours = any(f[0] == "ignore" and f[1] and f[1].match(MESSAGE) for f in warnings.filters)
    if ours:
        return True, "mmengine imports pkg_resources, which may warn that it is to go"
    return False, "warnings have been reset since swin_mm was imported"
