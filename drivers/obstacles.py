"""What else on this host stops a network's packets, and the line that a person has to type about it. Pure.

weft answers Docker's FORWARD DROP in DOCKER-USER, and firewalld in a zone of its own. Where there is neither, the rule
that is missing would be the operator's, in a firewall of his: he is told which.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from drivers.model import Address
from drivers.naming import LINK_GROUP, PREFIX, is_made_name
from drivers.resources import ZONE
from drivers.xtables_text import parse

_UFW: Final = {4: "ufw-before-forward", 6: "ufw6-before-forward"}
_DISPATCHED: Final = re.compile(r'iifname "([^"]+)"')


@dataclass(frozen=True, slots=True)
class Obstacle:
    """``what`` stops packets, and ``fix``, the line that lets them through."""

    what: str
    fix: str


def of_filter(version: int, link: str, closed: Mapping[str, str]) -> Iterator[Obstacle]:
    """Yield what iptables has in the way of a link.

    ``closed`` is the filter table, as ``-S`` lists it, of each program whose FORWARD policy drops and has no
    DOCKER-USER before it.
    """
    for program, listing in closed.items():
        specs = _asked_by_forward(listing)
        if all(_is_open(specs, way, group, link) for way, group in (("-i", "src"), ("-o", "dst"))):
            continue
        is_ufw = f"-N {_UFW[version]}" in listing.splitlines()
        whose = "ufw" if is_ufw else program
        yield Obstacle(
            f"the FORWARD policy of {whose} drops IPv{version}, and Docker has no chain DOCKER-USER to answer it in",
            f"ufw route allow in on {link} && ufw route allow out on {link}"
            if is_ufw
            else f"{program} -I FORWARD -i {link} -j ACCEPT && {program} -I FORWARD -o {link} -j ACCEPT",
        )


def of_firewalld(link: str, table: str | None) -> Iterator[Obstacle]:
    """Yield what a firewalld that cannot be spoken to has in the way of a link, by its table as nft lists it."""
    if table is None or any(_covers(name, link, "*") for name in _DISPATCHED.findall(table)):
        return
    name = f"{PREFIX}b+" if is_made_name(link) else link
    put = f"--zone=trusted --add-interface={name}"
    yield Obstacle(
        "firewalld rejects what it forwards, and weft cannot reach it on the system bus to say which links are its own",
        f"firewall-cmd --permanent {put} && firewall-cmd {put}",
    )


def of_zone(link: str, zone: str | None) -> Iterator[Obstacle]:
    """Yield that somebody has put a link into another of firewalld's zones, if so."""
    if zone not in (None, ZONE):
        yield Obstacle(
            f"the link {link} is in firewalld's zone {zone}, which judges what it forwards",
            f"firewall-cmd --zone={ZONE} --change-interface={link}",
        )


def of_underlay(address: Address, links: Collection[str], internal: Collection[str]) -> Iterator[Obstacle]:
    """Yield that Open vSwitch in userspace cannot send from an address: its link is none of its own (facts/ovs.md 2).

    ``links`` have the address; ``internal`` are the links that Open vSwitch makes itself.
    """
    for link in links:
        if link not in internal:
            yield Obstacle(
                f"Open vSwitch in userspace sends tunnel packets by its own bridges alone, and {address} is on {link}",
                f"ovs-vsctl add-br br-phy -- set Bridge br-phy datapath_type=netdev -- add-port br-phy {link}; "
                f"then move the addresses and routes of {link} to br-phy (docs/multihost.md)",
            )


def _asked_by_forward(listing: str) -> list[str]:
    """Return the rules of FORWARD and of every chain that it jumps to whatever the packet is."""
    chains: dict[str, list[str]] = defaultdict(list)
    for line in listing.splitlines():
        if line.startswith("-A "):
            chains[line.split()[1]].append(line)
    asked: list[str] = []
    names = ["FORWARD"]
    for name in names:
        specs = [line.spec for line in parse("\n".join(chains[name]))]
        asked += specs
        names += [to for spec in specs if (to := spec.removeprefix("-j ")) in chains and to not in names]
    return asked


def _is_open(specs: list[str], way: str, group: str, link: str) -> bool:
    """Tell whether some rule accepts whatever comes from (``-i``) or goes to (``-o``) a link."""
    for spec in specs:
        matches, _, target = spec.rpartition("-j ")
        if target != "ACCEPT":
            continue
        match matches.split():
            case ["-m", "devgroup", option, number]:
                if option == f"--{group}-group" and number == f"{LINK_GROUP:#x}":
                    return True
            case [option, name]:
                if option == way and _covers(name, link, "+"):
                    return True
            case []:
                return True
            case _:
                pass
    return False


def _covers(name: str, link: str, wildcard: str) -> bool:
    return name == link or (name.endswith(wildcard) and link.startswith(name.removesuffix(wildcard)))
