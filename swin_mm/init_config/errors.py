"""What the writing of a config refuses."""


class InitConfigError(ValueError):
    """Data or options that no config can be written for; the message says what to do."""
