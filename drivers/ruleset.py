"""The text of table ``inet weft``: every verdict, static per version. Only the elements of its sets ever change.

A drop is final in any base chain; an accept only ends ours, and Docker's and the operator's chains still judge. So the
order inside the chain is all there is to read:

1. what belongs to a conversation that was let in goes on;
2. inside one network: accepted;
3. internal networks: whatever else enters or leaves is dropped;
4. into a network, or from one into a bridge of Docker's own: dropped, unless it was translated to get there;
5. the way out is open.

Own bridges are told by their link group, so the host-wide rules need no element per network. A bridge that weft
adopted has no group; its endpoints are told one by one, by link and address, so that other machines on that LAN are
neither opened nor closed. Docker calls its bridges ``br-`` and twelve hex digits; a pattern cannot say that, so all of
``br-*`` is taken for Docker's until the host planner has listed the ones that are not.
"""

from __future__ import annotations

from typing import Final

from drivers.naming import LINK_GROUP

SAME: Final = "same"  # link . link: both sides of a network
INTERNAL: Final = "internal"  # link: an own bridge of an internal network
MASQUERADE: Final = {4: "masquerade4", 6: "masquerade6"}  # link: an own bridge whose outgoing traffic is masqueraded
ADOPTED: Final = {4: "adopted4", 6: "adopted6"}  # link . address: an endpoint on an adopted bridge
ADOPTED_INTERNAL: Final = {4: "adopted_internal4", 6: "adopted_internal6"}
ADOPTED_MASQUERADE: Final = {4: "adopted_masquerade4", 6: "adopted_masquerade6"}
DOCKER_LINKS: Final = "docker_links"  # link: bridges of Docker's own networks with names of their own
OPERATOR_LINKS: Final = "operator_links"  # link: called br-something, but not Docker's

TEXT: Final = f"""
    set {SAME} {{ type ifname . ifname; }}
    set {INTERNAL} {{ type ifname; }}
    set {MASQUERADE[4]} {{ type ifname; }}
    set {MASQUERADE[6]} {{ type ifname; }}
    set {ADOPTED[4]} {{ type ifname . ipv4_addr; }}
    set {ADOPTED[6]} {{ type ifname . ipv6_addr; }}
    set {ADOPTED_INTERNAL[4]} {{ type ifname . ipv4_addr; }}
    set {ADOPTED_INTERNAL[6]} {{ type ifname . ipv6_addr; }}
    set {ADOPTED_MASQUERADE[4]} {{ type ifname . ipv4_addr; }}
    set {ADOPTED_MASQUERADE[6]} {{ type ifname . ipv6_addr; }}
    set {DOCKER_LINKS} {{ type ifname; }}
    set {OPERATOR_LINKS} {{ type ifname; }}

    chain forward {{
        type filter hook forward priority -5; policy accept;
        ct state established,related accept
        iifname . oifname @{SAME} accept

        iifname @{INTERNAL} drop
        oifname @{INTERNAL} drop
        iifname . ip saddr @{ADOPTED_INTERNAL[4]} drop
        oifname . ip daddr @{ADOPTED_INTERNAL[4]} drop
        iifname . ip6 saddr @{ADOPTED_INTERNAL[6]} drop
        oifname . ip6 daddr @{ADOPTED_INTERNAL[6]} drop

        ct status dnat accept
        oifgroup {LINK_GROUP} drop
        oifname . ip daddr @{ADOPTED[4]} drop
        oifname . ip6 daddr @{ADOPTED[6]} drop
        iifgroup {LINK_GROUP} jump out
        iifname . ip saddr @{ADOPTED[4]} jump out
        iifname . ip6 saddr @{ADOPTED[6]} jump out
    }}

    chain out {{
        oifname {{ "docker0", "docker_gwbridge" }} drop
        oifname @{DOCKER_LINKS} drop
        oifname @{OPERATOR_LINKS} accept
        oifname "br-*" drop
    }}

    chain postrouting {{
        type nat hook postrouting priority 95; policy accept;
        iifname . oifname @{SAME} accept
        iifname @{MASQUERADE[4]} meta nfproto ipv4 masquerade
        iifname @{MASQUERADE[6]} meta nfproto ipv6 masquerade
        iifname . ip saddr @{ADOPTED_MASQUERADE[4]} masquerade
        iifname . ip6 saddr @{ADOPTED_MASQUERADE[6]} masquerade
    }}
"""
