"""The text of table ``inet weft``: every verdict, static per version. Only the elements of its sets ever change.

A drop is final in any base chain; an accept only ends ours, and Docker's and the operator's chains still judge. So the
order inside the chain is all there is to read:

1. what belongs to a conversation that was let in goes on;
2. inside one network: accepted; where its containers are kept apart (ICC off), only by a link;
3. internal networks: whatever else enters or leaves is dropped, nor does the relay serve them (``input``);
4. published ports: those with an allow-list only from the sources on it;
5. into a network, not translated to get there: dropped, but for what its gateway mode and trusted links open;
6. from a network into a bridge of Docker's own: dropped, unless it was translated to get there;
7. the way out is open.

Published ports are translated in ``publish``: an element for a port, or one for a whole range that keeps its numbers.
``[::1]`` cannot be translated (there is no IPv6 ``route_localnet``), and is left to the relay. Only the host itself
may use 127.0.0.0/8, whether or not a bridge routes it (facts/network.md 2). Traffic of a network to its own published
ports is masqueraded, or the answer would not come back this way; from anywhere else the client keeps its address. Where
``br_netfilter`` translates it inside the bridge, it has no input link in postrouting (network.md 8): what has none and
was not sent by this host can only be that.

What containers of one network that are kept apart send each other gets here because table ``bridge weft`` hands it to
the host (:mod:`drivers.ruleset_bridge`).

A VXLAN of ours is told by UDP port and VNI (24 bits, 96 behind the UDP header's start; RFC 7348), and only its peers
are let in: nobody's tunnel comes by a link of ours. TCP is told the size that fits the way on (``rt mtu``), where a
network has less than Ethernet's. Frames of a network on which the host has no address have a conntrack zone of their
own: with ``br_netfilter`` on, equal addresses in two networks would else be one conversation (facts/network.md 13).

Own bridges are told by their link group, so the host-wide rules need no element per network. A bridge that weft
adopted has no group; its endpoints are told one by one, by link and address, so that other machines on that LAN are
neither opened nor closed. Every bridge is taken for Docker's until it was looked at and is the operator's.
"""

from __future__ import annotations

from typing import Final

from drivers.naming import LINK_GROUP

SAME: Final = "same"  # link . link: both sides of a network
APART: Final = "apart"  # link: an own bridge whose containers do not reach each other
LINKED: Final = {4: "linked4", 6: "linked6"}  # from . to . transport . ports: what is open among them all the same
INTERNAL: Final = "internal"  # link: an own bridge of an internal network
ISOLATED: Final = {4: "isolated4", 6: "isolated6"}  # link: an own bridge on which the host is not reached
ROUTED: Final = {4: "routed4", 6: "routed6"}  # link: a bridge whose published ports are open at the containers' address
UNPROTECTED: Final = {4: "unprotected4", 6: "unprotected6"}  # link: a bridge whose every port is
TRUSTED: Final = "trusted"  # link . link: from the first, published ports are open at the containers' address
DIRECT: Final = {4: "direct4", 6: "direct6"}  # container's address . transport . ports: published, where that may count
BOUND: Final = {4: "bound4", 6: "bound6"}  # container's address . transport . ports: for the host alone, in any mode
MASQUERADE: Final = {4: "masquerade4", 6: "masquerade6"}  # link: an own bridge whose outgoing traffic is masqueraded
SOURCE: Final = {4: "source4", 6: "source6"}  # link -> the address that its outgoing traffic carries
ADOPTED: Final = {4: "adopted4", 6: "adopted6"}  # link . address: an endpoint on an adopted bridge
ADOPTED_INTERNAL: Final = {4: "adopted_internal4", 6: "adopted_internal6"}
ADOPTED_MASQUERADE: Final = {4: "adopted_masquerade4", 6: "adopted_masquerade6"}
ADOPTED_SOURCE: Final = {4: "adopted_source4", 6: "adopted_source6"}
OPERATOR_LINKS: Final = "operator_links"  # link: a bridge that was looked at and is not Docker's
PUBLISH: Final = {4: "publish4", 6: "publish6"}  # transport . port -> container's address . port
PUBLISH_AT: Final = {4: "publish_at4", 6: "publish_at6"}  # host's address . transport . port -> the same
RANGE: Final = {4: "range4", 6: "range6"}  # transport . ports -> container's address, the port as it is
RANGE_AT: Final = {4: "range_at4", 6: "range_at6"}
LOOPBACK_RELAYED: Final = "loopback_relayed"  # transport . ports: clients of 127.0.0.0/8 are the relay's
RELAYED: Final = {4: "relayed4", 6: "relayed6"}  # transport . port: the relay listens, on every address
RELAYED_AT: Final = {4: "relayed_at4", 6: "relayed_at6"}  # host's address . transport . port: on that one
GUARDED: Final = "guarded"  # link: a port of Open vSwitch's, which the host must not hear (facts/ovs.md 5)
RESTRICTED: Final = {4: "restricted4", 6: "restricted6"}  # container's address: has an allow-list
ALLOWED: Final = {4: "allowed4", 6: "allowed6"}  # container's address . source
VNIS: Final = "vnis"  # UDP port . VNI: a VXLAN of ours, and let in are only
PEERS: Final = {4: "peers4", 6: "peers6"}  # UDP port . VNI . outer source: its peers
ZONES: Final = "zones"  # link -> the conntrack zone of an own bridge on which the host has no address
CLAMPED: Final = "clamped"  # link: a bridge whose packets may be larger or smaller than those of the way on

PUBLISHES: Final = frozenset(name for maps in (PUBLISH, PUBLISH_AT, RANGE, RANGE_AT) for name in maps.values())
"""The maps that translate published ports."""

PERMITS: Final = frozenset((SAME, TRUSTED, OPERATOR_LINKS, LOOPBACK_RELAYED, CLAMPED)) | frozenset(
    name
    for sets in (
        *(LINKED, ROUTED, UNPROTECTED, DIRECT, ALLOWED, PEERS),
        *(MASQUERADE, SOURCE, ADOPTED_MASQUERADE, ADOPTED_SOURCE),
    )
    for name in sets.values()
)
"""The sets that open something, or change what leaves. All others close something."""

TEXT: Final = f"""
    set {SAME} {{ type ifname . ifname; }}
    set {APART} {{ type ifname; }}
    set {LINKED[4]} {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags interval; }}
    set {LINKED[6]} {{ type ipv6_addr . ipv6_addr . inet_proto . inet_service; flags interval; }}
    set {INTERNAL} {{ type ifname; }}
    set {ISOLATED[4]} {{ type ifname; }}
    set {ISOLATED[6]} {{ type ifname; }}
    set {ROUTED[4]} {{ type ifname; }}
    set {ROUTED[6]} {{ type ifname; }}
    set {UNPROTECTED[4]} {{ type ifname; }}
    set {UNPROTECTED[6]} {{ type ifname; }}
    set {TRUSTED} {{ type ifname . ifname; }}
    set {DIRECT[4]} {{ type ipv4_addr . inet_proto . inet_service; flags interval; }}
    set {DIRECT[6]} {{ type ipv6_addr . inet_proto . inet_service; flags interval; }}
    set {BOUND[4]} {{ type ipv4_addr . inet_proto . inet_service; flags interval; }}
    set {BOUND[6]} {{ type ipv6_addr . inet_proto . inet_service; flags interval; }}
    set {MASQUERADE[4]} {{ type ifname; }}
    set {MASQUERADE[6]} {{ type ifname; }}
    map {SOURCE[4]} {{ type ifname : ipv4_addr; }}
    map {SOURCE[6]} {{ type ifname : ipv6_addr; }}
    set {ADOPTED[4]} {{ type ifname . ipv4_addr; }}
    set {ADOPTED[6]} {{ type ifname . ipv6_addr; }}
    set {ADOPTED_INTERNAL[4]} {{ type ifname . ipv4_addr; }}
    set {ADOPTED_INTERNAL[6]} {{ type ifname . ipv6_addr; }}
    set {ADOPTED_MASQUERADE[4]} {{ type ifname . ipv4_addr; }}
    set {ADOPTED_MASQUERADE[6]} {{ type ifname . ipv6_addr; }}
    map {ADOPTED_SOURCE[4]} {{ type ifname . ipv4_addr : ipv4_addr; }}
    map {ADOPTED_SOURCE[6]} {{ type ifname . ipv6_addr : ipv6_addr; }}
    set {OPERATOR_LINKS} {{ type ifname; }}

    map {PUBLISH[4]} {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
    map {PUBLISH[6]} {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
    map {PUBLISH_AT[4]} {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
    map {PUBLISH_AT[6]} {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
    map {RANGE[4]} {{ type inet_proto . inet_service : ipv4_addr; flags interval; }}
    map {RANGE[6]} {{ type inet_proto . inet_service : ipv6_addr; flags interval; }}
    map {RANGE_AT[4]} {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr; flags interval; }}
    map {RANGE_AT[6]} {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr; flags interval; }}
    set {LOOPBACK_RELAYED} {{ type inet_proto . inet_service; flags interval; }}
    set {RELAYED[4]} {{ type inet_proto . inet_service; }}
    set {RELAYED[6]} {{ type inet_proto . inet_service; }}
    set {RELAYED_AT[4]} {{ type ipv4_addr . inet_proto . inet_service; }}
    set {RELAYED_AT[6]} {{ type ipv6_addr . inet_proto . inet_service; }}
    set {GUARDED} {{ type ifname; }}
    set {RESTRICTED[4]} {{ type ipv4_addr; }}
    set {RESTRICTED[6]} {{ type ipv6_addr; }}
    set {ALLOWED[4]} {{ type ipv4_addr . ipv4_addr; flags interval; }}
    set {ALLOWED[6]} {{ type ipv6_addr . ipv6_addr; flags interval; }}

    set {VNIS} {{ typeof udp dport . @th,96,24; }}
    set {PEERS[4]} {{ typeof udp dport . @th,96,24 . ip saddr; }}
    set {PEERS[6]} {{ typeof udp dport . @th,96,24 . ip6 saddr; }}
    map {ZONES} {{ typeof iifname : ct zone; }}
    set {CLAMPED} {{ type ifname; }}

    chain guard {{
        type filter hook prerouting priority -300; policy accept;
        iifname @{GUARDED} drop
        udp dport . @th,96,24 @{VNIS} fib daddr type local jump tunnelled
        iifname != "lo" ip daddr 127.0.0.0/8 drop
        iifname != "lo" ip saddr 127.0.0.0/8 drop
        ct zone set iifname map @{ZONES}
    }}

    chain tunnelled {{
        iifgroup {LINK_GROUP} drop
        udp dport . @th,96,24 . ip saddr @{PEERS[4]} return
        udp dport . @th,96,24 . ip6 saddr @{PEERS[6]} return
        drop
    }}

    chain clamp {{
        type filter hook forward priority -150; policy accept;
        iifname @{CLAMPED} tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
        oifname @{CLAMPED} tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
    }}

    chain prerouting {{
        type nat hook prerouting priority -105; policy accept;
        fib daddr type local jump publish
    }}

    chain output {{
        type nat hook output priority -105; policy accept;
        fib daddr type local jump publish
    }}

    chain publish {{
        ip6 daddr ::1 return
        ip daddr 127.0.0.0/8 meta l4proto . th dport @{LOOPBACK_RELAYED} return
        dnat ip to ip daddr . meta l4proto . th dport map @{PUBLISH_AT[4]}
        dnat ip to ip daddr . meta l4proto . th dport map @{RANGE_AT[4]}
        meta nfproto ipv4 dnat ip to meta l4proto . th dport map @{PUBLISH[4]}
        meta nfproto ipv4 dnat ip to meta l4proto . th dport map @{RANGE[4]}
        dnat ip6 to ip6 daddr . meta l4proto . th dport map @{PUBLISH_AT[6]}
        dnat ip6 to ip6 daddr . meta l4proto . th dport map @{RANGE_AT[6]}
        meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @{PUBLISH[6]}
        meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @{RANGE[6]}
    }}

    chain input {{
        type filter hook input priority -5; policy accept;
        iifname @{ISOLATED[4]} meta nfproto ipv4 drop
        iifname @{ISOLATED[6]} meta nfproto ipv6 drop
        iifname @{INTERNAL} jump relay
        iifname . ip saddr @{ADOPTED_INTERNAL[4]} jump relay
        iifname . ip6 saddr @{ADOPTED_INTERNAL[6]} jump relay
    }}

    chain relay {{
        meta nfproto ipv4 meta l4proto . th dport @{RELAYED[4]} drop
        meta nfproto ipv6 meta l4proto . th dport @{RELAYED[6]} drop
        ip daddr . meta l4proto . th dport @{RELAYED_AT[4]} drop
        ip6 daddr . meta l4proto . th dport @{RELAYED_AT[6]} drop
    }}

    chain forward {{
        type filter hook forward priority -5; policy accept;
        ct state established,related accept
        iifname . oifname @{SAME} goto inside

        iifname @{INTERNAL} drop
        oifname @{INTERNAL} drop
        iifname . ip saddr @{ADOPTED_INTERNAL[4]} drop
        oifname . ip daddr @{ADOPTED_INTERNAL[4]} drop
        iifname . ip6 saddr @{ADOPTED_INTERNAL[6]} drop
        oifname . ip6 daddr @{ADOPTED_INTERNAL[6]} drop

        ct status dnat goto published
        oifgroup {LINK_GROUP} goto into
        oifname . ip daddr @{ADOPTED[4]} goto into
        oifname . ip6 daddr @{ADOPTED[6]} goto into
        iifgroup {LINK_GROUP} goto out
        iifname . ip saddr @{ADOPTED[4]} goto out
        iifname . ip6 saddr @{ADOPTED[6]} goto out
    }}

    chain inside {{
        iifname != @{APART} accept
        meta nfproto ipv6 icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
        ip saddr . ip daddr . meta l4proto . th dport @{LINKED[4]} accept
        ip6 saddr . ip6 daddr . meta l4proto . th dport @{LINKED[6]} accept
        ct status dnat goto published
        drop
    }}

    chain published {{
        ip daddr @{RESTRICTED[4]} ip daddr . ip saddr != @{ALLOWED[4]} drop
        ip6 daddr @{RESTRICTED[6]} ip6 daddr . ip6 saddr != @{ALLOWED[6]} drop
        accept
    }}

    chain into {{
        oifname @{ROUTED[4]} ip daddr . meta l4proto . th dport @{DIRECT[4]} goto published
        oifname @{ROUTED[6]} ip6 daddr . meta l4proto . th dport @{DIRECT[6]} goto published
        oifname @{ROUTED[4]} icmp type echo-request accept
        oifname @{ROUTED[6]} icmpv6 type echo-request accept
        iifname . oifname @{TRUSTED} ip daddr . meta l4proto . th dport @{DIRECT[4]} goto published
        iifname . oifname @{TRUSTED} ip6 daddr . meta l4proto . th dport @{DIRECT[6]} goto published
        oifname @{UNPROTECTED[4]} meta nfproto ipv4 goto unprotected
        oifname @{UNPROTECTED[6]} meta nfproto ipv6 goto unprotected
        drop
    }}

    chain unprotected {{
        iifgroup {LINK_GROUP} drop
        iifname . ip saddr @{ADOPTED[4]} drop
        iifname . ip6 saddr @{ADOPTED[6]} drop
        ip daddr . meta l4proto . th dport @{BOUND[4]} drop
        ip6 daddr . meta l4proto . th dport @{BOUND[6]} drop
        iifname @{OPERATOR_LINKS} goto published
        meta iifkind "bridge" drop
        goto published
    }}

    chain out {{
        oifname @{OPERATOR_LINKS} accept
        meta oifkind "bridge" drop
    }}

    chain postrouting {{
        type nat hook postrouting priority 95; policy accept;
        ip saddr 127.0.0.0/8 oifgroup {LINK_GROUP} masquerade
        ct status dnat iifname . oifname @{SAME} masquerade
        ct status dnat iif 0 fib saddr type != local oifgroup {LINK_GROUP} masquerade
        ct status dnat iif 0 fib saddr type != local oifname . ip daddr @{ADOPTED[4]} masquerade
        ct status dnat iif 0 fib saddr type != local oifname . ip6 daddr @{ADOPTED[6]} masquerade
        iifname . oifname @{SAME} accept
        oifgroup {LINK_GROUP} accept
        oifname . ip daddr @{ADOPTED[4]} accept
        oifname . ip6 daddr @{ADOPTED[6]} accept
        snat ip to iifname map @{SOURCE[4]}
        snat ip6 to iifname map @{SOURCE[6]}
        snat ip to iifname . ip saddr map @{ADOPTED_SOURCE[4]}
        snat ip6 to iifname . ip6 saddr map @{ADOPTED_SOURCE[6]}
        iifname @{MASQUERADE[4]} meta nfproto ipv4 masquerade
        iifname @{MASQUERADE[6]} meta nfproto ipv6 masquerade
        iifname . ip saddr @{ADOPTED_MASQUERADE[4]} masquerade
        iifname . ip6 saddr @{ADOPTED_MASQUERADE[6]} masquerade
    }}
"""
