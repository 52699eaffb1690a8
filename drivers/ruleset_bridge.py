"""The text of table ``bridge weft``: containers of one network are kept apart (ICC off), and gateways out of tunnels.

It is there while some network asks for either.

A bridge takes a frame from port to port without asking anybody, and bridges have no conntrack on most kernels. So
unicast IP that comes from such a port is handed to the host, whatever MAC it was meant for, and judged where everything
else is: with conntrack, in table ``inet weft`` (its chain ``inside``). That holds with ``br_netfilter`` off and on, in
IPv4 and IPv6. A port's flag ``isolated`` does not: it leaves no room for a link, and fails for published ports with
``br_netfilter`` on (facts/network.md 7). What comes by a tunnel is handed over likewise.

What is left to go from port to port is ARP and neighbour discovery; broadcast, multicast and anything that is not IP
stops. Unicast IP gets there in one case only: ``br_netfilter`` has translated it inside the bridge, after it was judged
(by a published port); it is judged in FORWARD.

A tunnel carries nothing from, to or about the gateway, which is on every host under one address and one MAC, and so
nothing that the host says for itself (:mod:`drivers.tunnels`); what it announces for a container has that one's MAC.
That goes for ARP and for neighbour discovery, whose target is 128 bits, 64 behind the ICMPv6 header's start. What comes
out of a tunnel and claims to be a container of this host is counted.
"""

from __future__ import annotations

from typing import Final

HANDED: Final = "handed"  # port -> the bridge's MAC: what comes from it is handed to the host
APART_PORTS: Final = "apart_ports"  # port: nothing goes from one of these to another
TUNNELS: Final = "tunnels"  # port: a tunnel of ours
GATEWAY_MACS: Final = "gateway_macs"  # tunnel . MAC of the network's gateway
GATEWAYS: Final = {4: "gateways4", 6: "gateways6"}  # tunnel . address of the gateway (IPv6: as a number)
OWN_MACS: Final = "own_macs"  # tunnel . MAC of a container of this host
OWN: Final = {4: "own4", 6: "own6"}  # tunnel . its address

COUNTED: Final = (OWN_MACS, *OWN.values())
"""The sets that count what meets their elements."""

TEXT: Final = f"""
    map {HANDED} {{ type ifname : ether_addr; }}
    set {APART_PORTS} {{ type ifname; }}
    set {TUNNELS} {{ type ifname; }}
    set {GATEWAY_MACS} {{ type ifname . ether_addr; }}
    set {GATEWAYS[4]} {{ type ifname . ipv4_addr; }}
    set {GATEWAYS[6]} {{ typeof iifname . @th,64,128; }}
    set {OWN_MACS} {{ type ifname . ether_addr; counter; }}
    set {OWN[4]} {{ type ifname . ipv4_addr; counter; }}
    set {OWN[6]} {{ type ifname . ipv6_addr; counter; }}

    chain prerouting {{
        type filter hook prerouting priority -300; policy accept;
        iifname @{TUNNELS} jump arriving
        ether type ip6 icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
        meta pkttype {{ broadcast, multicast }} accept
        ether type {{ ip, ip6 }} ether daddr set iifname map @{HANDED} meta pkttype set host
    }}

    chain arriving {{
        iifname . ether saddr @{GATEWAY_MACS} drop
        iifname . ether daddr @{GATEWAY_MACS} drop
        iifname . arp saddr ip @{GATEWAYS[4]} drop
        iifname . arp daddr ip @{GATEWAYS[4]} drop
        icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} iifname . @th,64,128 @{GATEWAYS[6]} drop
        iifname . ether saddr @{OWN_MACS}
        iifname . arp saddr ip @{OWN[4]}
        icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} iifname . ip6 saddr @{OWN[6]}
    }}

    chain forward {{
        type filter hook forward priority -200; policy accept;
        oifname @{TUNNELS} jump leaving
        iifname @{APART_PORTS} oifname @{APART_PORTS} jump apart
    }}

    chain leaving {{
        oifname . ether saddr @{GATEWAY_MACS} drop
        oifname . ether daddr @{GATEWAY_MACS} drop
        oifname . arp saddr ip @{GATEWAYS[4]} drop
        oifname . arp daddr ip @{GATEWAYS[4]} drop
        icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} oifname . @th,64,128 @{GATEWAYS[6]} drop
    }}

    chain apart {{
        ether type arp accept
        ether type ip6 icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
        meta pkttype {{ broadcast, multicast }} drop
        ether type {{ ip, ip6 }} accept
        drop
    }}

    chain output {{
        type filter hook output priority -200; policy accept;
        oifname @{TUNNELS} jump leaving
    }}
"""
