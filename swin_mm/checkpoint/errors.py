"""The one exception of this package, and how what a file says is shown."""

# Longest message; a file can have keys of any length.
MAX_MESSAGE = 2000


def printable(text: str) -> str:
    """Escapes what a terminal would act on, or could not show, in text from a file."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "replace").decode()
        for char in text
    )


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used as asked; the message names it, the fault and the cure.

    A `RuntimeError`, because that is what `torch.nn.Module.load_state_dict` raises for weights that
    do not fit.
    """

    def __init__(self, message: str) -> None:
        text = printable(message)
        super().__init__(text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]} ...")
