"""What was injected and what was found, over all tests that inject faults."""

from dataclasses import astuple, dataclass


@dataclass(slots=True)
class Tally:
    """``points``: faults injected; ``states``: hosts compared with what they have to be; ``leaks``: that differed."""

    points: int = 0
    states: int = 0
    leaks: int = 0

    def add(self, points: int, states: int, leaks: int) -> None:
        """Count what another test has counted."""
        self.points += points
        self.states += states
        self.leaks += leaks

    def reset(self) -> None:
        """Begin again."""
        self.points = self.states = self.leaks = 0

    def __str__(self) -> str:
        return f"{self.points} points injected, {self.states} states compared, {self.leaks} leaks found"

    def numbers(self) -> list[int]:
        """Return the three, as a report carries them."""
        return list(astuple(self))
