"""The one exception of this package."""

from swin_mm.text import printable

# Longest message; a file can have keys of any length.
MAX_MESSAGE = 2000


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used as asked; the message names it, the fault and the cure.

    A `RuntimeError`, because that is what `torch.nn.Module.load_state_dict` raises for weights that
    do not fit.
    """

    def __init__(self, message: str) -> None:
        text = printable(message)
        super().__init__(text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]} ...")
