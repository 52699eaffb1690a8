"""What firewalld has to know: a zone that lets our links through, for the verdicts are in table ``inet weft``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from drivers.resources.base import Key, Rank, Resource

ZONE: Final = "weft"
POLICY: Final = "weft-forwarding"
ZONE_KEY: Final = Key("firewalld", "zone", (ZONE,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewalld(Resource):
    """Something in firewalld, which may be dead or slow: a network is made without it, and given it later."""

    rank: ClassVar[Rank] = Rank.FORWARD
    optional: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone(Firewalld):
    """The zone ``weft`` with target ACCEPT, and the policy ``weft-forwarding`` by which the others forward into it.

    ``kept``    it is as it should be in what firewalld has on disk, and so comes back with firewalld
    ``loaded``  it is as it should be in what firewalld does now; it takes a reload to get there
    """

    kept: bool = True
    loaded: bool = True

    def __str__(self) -> str:
        zone, policy = f"firewall-cmd --permanent --zone={ZONE}", f"firewall-cmd --permanent --policy={POLICY}"
        return "; ".join(
            (
                f"firewall-cmd --permanent --new-zone={ZONE}",
                f"{zone} --set-target=ACCEPT",
                f"firewall-cmd --permanent --new-policy={POLICY}",
                f"{policy} --set-target=ACCEPT",
                f"{policy} --add-ingress-zone=ANY",
                f"{policy} --add-egress-zone={ZONE}",
                "firewall-cmd --reload",
            )
        )

    def undo(self) -> str:
        """Return the line that removes both."""
        return "; ".join(
            (
                f"firewall-cmd --permanent --delete-policy={POLICY}",
                f"firewall-cmd --permanent --delete-zone={ZONE}",
                "firewall-cmd --reload",
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InZone(Firewalld):
    """A link of ours in the zone ``weft``, until firewalld's next reload. Whose it is, its link's mark says."""

    @property
    def link(self) -> str:
        """The link's name."""
        return self.key.at[0]

    def __str__(self) -> str:
        return f"firewall-cmd --zone={ZONE} --add-interface={self.link}"

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"firewall-cmd --zone={ZONE} --remove-interface={self.link}"


def in_zone_key(link: str) -> Key:
    """Return the key of a link's place in a zone: firewalld has a link in one zone at most."""
    return Key("firewalld", "link", (link,))
