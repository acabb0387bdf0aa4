"""Command lines whose errors are one line, with the flag that was probably meant."""

import argparse
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from shutil import get_terminal_size
from textwrap import fill
from typing import Any, NoReturn


class CommandParser(argparse.ArgumentParser):
    """argparse's parser; an error is one line without the usage, which `--help` shows."""

    arguments: Sequence[str] = ()  # given to `parse_args`, which takes no unknown flags

    def format_help(self) -> str:
        """argparse's; the description is filled, also where line ends of examples stay."""
        width = get_terminal_size().columns - 2
        self.description = fill(" ".join((self.description or "").split()), width)
        return super().format_help()

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """argparse's; remembers the arguments for `error`."""
        self.arguments = list(sys.argv[1:] if args is None else args)
        return super().parse_args(self.arguments, namespace)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """argparse's; refuses what is given and empty, as by a shell variable that is not set."""
        found, others = super().parse_known_args(args, namespace)
        for action in self._actions:
            given = getattr(found, action.dest, None)
            if given != action.default and (
                given == "" or (isinstance(given, list) and "" in given)
            ):
                name = "/".join(action.option_strings) or action.dest
                self.error(f"{name} is empty: is a variable of the shell not set?")
        return found, others

    def error(self, message: str) -> NoReturn:
        """Prints one line and ends the process with 2.

        Unknown flags go before what argparse found, which is often only their consequence.
        """
        unknown = self._unknown_flags()
        if unknown:
            message = f"unrecognized arguments: {' '.join(unknown)}"
            flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
            nearest = [suggest(flag, flags) for flag in unknown]
            if any(nearest):
                message += f"; did you mean {' '.join(filter(None, nearest))}?"
        self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help lists all)\n")

    def _unknown_flags(self) -> list[str]:
        end = self.arguments.index("--") if "--" in self.arguments else None  # of the flags
        flags = [argument.partition("=")[0] for argument in self.arguments[:end]]
        return [
            flag
            for flag in flags
            if re.match("--?[A-Za-z][^ ]*$", flag)
            # Beginnings of flags are understood.
            and not any(name.startswith(flag) for name in self._option_string_actions)
        ]


def suggest(word: str, known: Sequence[str]) -> str | None:
    """The known word that is nearest to one that is not known, or None."""
    plain = {name.lstrip("-").replace("_", "-"): name for name in known}
    wanted = word.lstrip("-").replace("_", "-").lower()
    nearest = get_close_matches(wanted, plain, n=1, cutoff=0.6)
    return plain[nearest[0]] if nearest else None
