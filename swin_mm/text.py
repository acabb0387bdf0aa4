"""Text from users and files on a terminal: shown as it is written, and never acted on."""


def printable(text: str, keep: str = "") -> str:
    """Escapes what a terminal would act on, or could not show.

    Args:
        text: Any text.
        keep: Characters that stay, such as line ends.
    """
    return "".join(
        char
        if char.isprintable() or char in keep
        else char.encode("unicode_escape", "replace").decode()
        for char in text
    )
