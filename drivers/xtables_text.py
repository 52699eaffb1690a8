"""The language of iptables' rules: what we may write, and what ``iptables -S`` prints back of it. Pure.

iptables prints a rule otherwise than it was written: the addresses first and with ``/32``, comments in quotes. So
rules are compared in one spelling, ours: input link, output link, source, destination, matches, target, and a host's
address without a length. Planners write that spelling, so a rule read back has the key it was made with.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from drivers.errors import InvalidRequest
from drivers.naming import is_link_name

_ORDER: Final = {"-i": 0, "-o": 1, "-s": 2, "-d": 3, "-j": 5}
_MATCHES: Final = 4
_NUMBER: Final = re.compile(r"0x[0-9a-f]{1,8}")
_CLOSING: Final = "-j RETURN"


@dataclass(frozen=True, slots=True)
class Line:
    """One rule of a chain as iptables printed it.

    ``raw``      its arguments after ``-A CHAIN``, which iptables takes back as they are
    ``spec``     the same in our spelling, without the comment
    ``comment``  the mark, or what somebody else wrote
    """

    raw: str
    spec: str
    comment: str | None = None

    @property
    def closes(self) -> bool:
        """Whether nothing below it is ever reached: Docker's closing RETURN."""
        return self.spec == _CLOSING

    def jumps_to(self, chain: str) -> bool:
        """Whether its target is ``chain``."""
        return self.spec.endswith(f"-j {chain}")


def parse(listing: str) -> tuple[Line, ...]:
    """Read what ``iptables -S CHAIN`` prints."""
    rules = (line.split(" ", 2) for line in listing.splitlines() if line.startswith("-A "))
    return tuple(_line(rule[2]) for rule in rules if len(rule) > 2)


def spell(spec: str) -> str:
    """Return the rule in our spelling."""
    return _line(spec).spec


def check(version: int, spec: str) -> str:
    """Return the rule if it is made of nothing but what our planners write; raise :class:`InvalidRequest` if not.

    It goes to iptables-restore as text, so this is where a quote, a newline or one option more would do harm.
    """
    words = spec.split(" ")
    options, values = words[::2], words[1::2]
    if len(options) != len(values) or not all(map(_is_ours, [version] * len(options), options, values)):
        raise InvalidRequest(f"iptables rule {spec!r}: only {', '.join(_ALLOWED)} are ever written")
    return spec


def _is_ours(version: int, option: str, value: str) -> bool:
    match _ALLOWED.get(option):
        case "link":
            return is_link_name(value.removesuffix("+"))
        case "address":
            try:
                return ip_network(value).version == version
            except ValueError:
                return False
        case "number":
            return _NUMBER.fullmatch(value) is not None
        case tuple() as words:
            return value in words
        case _:
            return False


_ALLOWED: Final[dict[str, str | tuple[str, ...]]] = {
    "-i": "link",
    "-o": "link",
    "-s": "address",
    "-d": "address",
    "-m": ("devgroup",),
    "--src-group": "number",
    "--dst-group": "number",
    "-j": ("ACCEPT", "RETURN"),
}


def _line(raw: str) -> Line:
    try:
        groups = list(_groups(shlex.split(raw)))
    except ValueError:  # a quote without its end: nothing of ours
        return Line(raw, raw)
    comment = next((group[-1] for group in groups if group[0] == "--comment"), None)
    ours = [group for group in groups if group[0] != "--comment" and group != ["-m", "comment"]]
    ordered = sorted(ours, key=lambda group: _ORDER.get(group[1] if group[:1] == ["!"] < group else group[0], _MATCHES))
    return Line(raw, " ".join(word for group in ordered for word in group), comment)


def _groups(words: list[str]) -> Iterator[list[str]]:
    """Yield each option with its values, as we spell them."""
    group: list[str] = []
    for word in words:
        is_value = group[-1:] in (["!"], ["--comment"])  # whatever a comment says, it is no option
        if group and not is_value and (word == "!" or word.startswith("-")):
            yield _spelled(group)
            group = []
        group.append(word)
    if group:
        yield _spelled(group)


def _spelled(group: list[str]) -> list[str]:
    *head, value = group
    match head[-1:]:
        case ["-s" | "-d"]:
            try:
                network = ip_network(value)
            except ValueError:
                return group
            return [*head, str(network.network_address if network.num_addresses == 1 else network)]
        case ["--src-group" | "--dst-group"]:
            try:
                return [*head, f"{int(value, 0):#x}"]
            except ValueError:  # a name of /etc/iproute2/group, or with a mask
                return group
        case _:
            return group
