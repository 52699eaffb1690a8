"""How the commands speak: a line, and numbers as a person writes them."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")


def counted(number: int, noun: str) -> str:
    """Return "1 network", "2 networks": for nouns whose plural has an s."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
