"""How the commands speak: a line, a complaint, and numbers as a person writes them."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")


def complain(problem: object) -> None:
    """Print what is wrong, where it is not taken for an answer."""
    sys.stderr.write(f"weft: {problem}\n")


def counted(number: int, noun: str) -> str:
    """Return "1 network", "2 networks": for nouns whose plural has an s."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
