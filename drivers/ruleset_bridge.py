"""The text of table ``bridge weft``: how containers of one network are kept apart (ICC off).

It is there while some network asks for that.

A bridge takes a frame from port to port without asking anybody, and bridges have no conntrack on most kernels. So
unicast IP that comes from such a port is handed to the host, whatever MAC it was meant for, and judged where everything
else is: with conntrack, in table ``inet weft`` (its chain ``inside``). That holds with ``br_netfilter`` off and on, in
IPv4 and IPv6. A port's flag ``isolated`` does not: it leaves no room for a link, and fails for published ports with
``br_netfilter`` on (facts/network.md 7).

What is left to go from port to port is ARP and neighbour discovery; broadcast, multicast and anything that is not IP
stops. Unicast IP gets there in one case only: ``br_netfilter`` has translated it inside the bridge, after it was judged
(by a published port); it is judged in FORWARD.
"""

from __future__ import annotations

from typing import Final

HANDED: Final = "handed"  # port -> the bridge's MAC: what comes from it is handed to the host
APART_PORTS: Final = "apart_ports"  # port: nothing goes from one of these to another

TEXT: Final = f"""
    map {HANDED} {{ type ifname : ether_addr; }}
    set {APART_PORTS} {{ type ifname; }}

    chain prerouting {{
        type filter hook prerouting priority -300; policy accept;
        ether type ip6 icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
        meta pkttype {{ broadcast, multicast }} accept
        ether type {{ ip, ip6 }} ether daddr set iifname map @{HANDED} meta pkttype set host
    }}

    chain forward {{
        type filter hook forward priority -200; policy accept;
        iifname @{APART_PORTS} oifname @{APART_PORTS} jump apart
    }}

    chain apart {{
        ether type arp accept
        ether type ip6 icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
        meta pkttype {{ broadcast, multicast }} drop
        ether type {{ ip, ip6 }} accept
        drop
    }}
"""
