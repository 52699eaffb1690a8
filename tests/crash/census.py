"""All that is on a host by the word of others, as lines that can be compared: nothing of weft's own code is asked.

Links, addresses, routes, FDB entries, nft's tables, iptables, listening sockets, and of Open vSwitch bridges, ports and
flows. What is counted by chance (which number a port of Open vSwitch got) is written as what it stands for.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv6Address
from typing import Any

ENDPOINTS_OWN = re.compile(r'"weft:\w+:\w+:\w+"')

TABLES = ("inet", "bridge", "netdev")
LOOK = """
ip -j -d address
echo '\x1e'; ip -4 route show table all; ip -6 route show table all
echo '\x1e'; bridge -j fdb show
echo '\x1e'; for family in inet bridge netdev; do nft -j -s list table $family weft 2>/dev/null; done
echo '\x1e'; iptables-save -t filter | grep '^[-:]'
echo '\x1e'; ip6tables-save -t filter | grep '^[-:]'
echo '\x1e'; ss -H -l -n -t -u
echo '\x1e'; grep -H . /proc/sys/net/ipv4/conf/*/route_localnet
"""

MULTICAST = ("33:33:", "01:00:5e:", "01:80:c2:")

COLUMNS = {
    "Bridge": "name,datapath_type,fail_mode,other_config,external_ids",
    "Port": "name,external_ids,tag",
    "Interface": "name,type,options,mac,mtu_request,external_ids",
}
LOOK_AT_OVS = "\n".join(
    f"echo '\x1e'; ovs-vsctl --timeout=10 --format=json --columns={columns} list {table}"
    for table, columns in COLUMNS.items()
)
LOOK_AT_FLOWS = """
echo '\x1e'
if [ -e "$OVS_RUNDIR/br-int.mgmt" ]; then
    ovs-ofctl -O OpenFlow14 --names --no-stats dump-flows "unix:$OVS_RUNDIR/br-int.mgmt"
fi
"""

VOLATILE = re.compile(r" (linkdown|dead|onlink|expires \S+|pref \S+|proto \S+|metric \d+|table local)\b")
COOKIE = re.compile(r"cookie=0x[0-9a-f]+, ")
IFINDEX = re.compile(r'(weft-ifindex", )"\d+"')
PLACE = re.compile(r"(table=48,.*,reg4=)0x[0-9a-f]+|(table=46, priority=)1\d\d")
NUMBER = re.compile(r"in_port=wfb(?P<at>[^,]+),.*set_field:(?P<number>0x[0-9a-f]+)->reg0")
GATEWAY_MAC = re.compile(r"^link wfb(?P<at>\S+) .* address=(?P<mac>[0-9a-f:]{17}) ", re.MULTILINE)


_N = r"\1N"
_NO_PLACE = r"\1\2N"


def script(*, ovs: bool) -> str:
    """Return what is to be run on the host."""
    return LOOK + (LOOK_AT_OVS + LOOK_AT_FLOWS if ovs else "")


def lines(said: str, *, ovs: bool) -> Iterator[str]:
    """Yield a line for each thing that the script saw."""
    links, routes, fdb, table, rules4, rules6, sockets, switches, *rest = said.split("\x1e\n")
    for one in json.loads(links):
        yield from _link(one)
    names = [one["ifname"] for one in json.loads(links)]
    for line in routes.splitlines():
        if "fe80::" not in line and "ff00::" not in line and " lo " not in f"{line} ":
            yield f"route {VOLATILE.sub('', line).strip()}"
    yield from _fdb(json.loads(fdb or "[]"))
    for one in _documents(table):
        yield from _nft(one)
    for program, text in (("iptables", rules4), ("ip6tables", rules6)):
        yield from _rules(program, text)
    for line in sockets.splitlines():
        protocol, _, _, _, local, *_ = line.split()
        yield f"socket {protocol} {local}"
    for line in switches.splitlines():
        link = line.split("/")[-2]
        if link in names and not line.endswith(":0"):
            yield f"switch route_localnet of {link}"
    if ovs:
        yield from _ovs(*rest)


def _documents(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        if line.strip():
            yield from json.loads(line)["nftables"]


def _link(link: dict[str, Any]) -> Iterator[str]:
    name = link["ifname"]
    if name in ("lo", "ovs-netdev"):
        return
    keys = ["master", "group", "ifalias", "mtu", "address", "inet6_addr_gen_mode"]
    if name == "br-int":
        keys.remove("address")  # of ovs-vswitchd's choice
    kind = link.get("linkinfo", {}).get("info_kind")
    yield f"link {name} {kind} {'UP' in link['flags']} " + " ".join(f"{key}={link.get(key)}" for key in keys)
    for info in link["addr_info"]:
        if info["scope"] != "link":
            yield f"address {name} {info['local']}/{info['prefixlen']}"


def _fdb(entries: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield what somebody decided; what a bridge learnt, and multicast that the kernel joins, is left out."""
    for one in entries:
        if one.get("state") in ("permanent", "static") and not one["mac"].startswith(MULTICAST):
            yield f"fdb {json.dumps(one, sort_keys=True)}"


def _nft(item: dict[str, Any]) -> Iterator[str]:
    ((kind, what),) = item.items()
    if kind == "metainfo":
        return
    what.pop("handle", None)
    for element in what.pop("elem", ()):
        yield f"nft element {what['family']} {what['name']} {json.dumps(element)}"
    yield f"nft {kind} {json.dumps(what, sort_keys=True)}"


def _rules(program: str, text: str) -> Iterator[str]:
    """Yield the rules with their numbers, for order matters; but among endpoints' own, of different addresses, not."""
    at = 0
    for line in text.splitlines():
        at += not ENDPOINTS_OWN.search(line)
        yield f"{program} {at} {line.partition(' [')[0]}"


def _ovs(bridges: str, ports: str, interfaces: str, flows: str) -> Iterator[str]:
    for table, text in zip(COLUMNS, (bridges, ports, interfaces), strict=True):
        found = json.loads(text)
        for row in found["data"]:
            said = json.dumps(dict(zip(found["headings"], row, strict=True)), sort_keys=True)
            yield f"ovs {table} {IFINDEX.sub(_N, said)}"
    for line in flows.splitlines():
        if "cookie=" in line:
            yield f"flow {PLACE.sub(_NO_PLACE, COOKIE.sub('', line)).strip()}"


def named(text: str, names: Mapping[str, str], macs: Mapping[str, str]) -> str:
    """Write names for ids and MACs, and for what follows from them; what is unknown stays as it is.

    ``names``: the names of networks and endpoints by their ids; ``macs``: of endpoints' MACs.
    """
    short = {ident[:12]: name for ident, name in names.items()}
    gateways = {found["mac"]: short.get(found["at"], "") for found in GATEWAY_MAC.finditer(text)}
    numbers = {found["number"]: short.get(found["at"], "") for found in NUMBER.finditer(text)}
    for number, name in numbers.items():
        text = re.sub(rf"(reg0=){number}\b|(set_field:){number}(?=->reg0)", rf"\g<1>\g<2>{name or number}", text)
    for mac, name in {**gateways, **macs}.items():
        if name:
            text = text.replace(str(_link_local(mac)), f"<fe80 of {name}>").replace(mac[3:], f"<mac of {name}>")
    for ident, name in names.items():
        for known in (ident, ident[:32], ident[:12]):
            text = text.replace(known, f"<{name}>")
    return text


def _link_local(mac: str) -> IPv6Address:
    """Return the address that follows from a MAC (RFC 4291, appendix A)."""
    octets = [int(part, 16) for part in mac.split(":")]
    half = bytes((octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]))
    return IPv6Address(b"\xfe\x80" + bytes(6) + half)
