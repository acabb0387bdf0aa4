"""Repairs to other packages, one file for each fault; the only place that knows them."""


def install() -> None:
    """Puts every repair in place that this environment needs; repeated calls change nothing."""
