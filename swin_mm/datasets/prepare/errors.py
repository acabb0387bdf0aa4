"""The error of everything that keeps a data set from being prepared."""


class PrepareError(ValueError):
    """A data set that cannot be put in place; one line: what is wrong, and what to do."""
