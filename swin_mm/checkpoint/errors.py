"""The one exception of this package."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used as asked; the message names it, the fault and the cure.

    A `RuntimeError`, because that is what `torch.nn.Module.load_state_dict` raises for weights that
    do not fit.
    """
