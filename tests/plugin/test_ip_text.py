"""An address with a zone is refused wherever one is read: behind the percent sign `ipaddress` takes any text at all."""

import ipaddress
from collections.abc import Callable

import pytest

from drivers.errors import InvalidRequest
from plugin import config, ip_text, option_text, pools, ports
from tests.plugin.test_translate import endpoint

ZONES = ("eth0", "x }; flush ruleset; #")


READERS: dict[str, Callable[[str], object]] = {
    "address": ip_text.address,
    "interface": lambda text: ip_text.interface(f"{text}/64"),
    "network": lambda text: ip_text.network(f"{text}/128"),
    "host_ipv6": option_text.source6,
    "host_binding": option_text.host_binding,
    "weft.ip": lambda text: option_text.addresses(f"{text}/64"),
    "weft.publish.allow": option_text.sources,
    "weft.routes": lambda text: option_text.routes(f"{text}/128 via 2001:db8::9"),
    "weft.routes, the next hop": lambda text: option_text.routes(f"2001:db8:9::/64 via {text}"),
    "weft.peers": option_text.peers,
    "weft.link": lambda text: option_text.links(f"[{text}]:80"),
    "weft port add": lambda text: ports.parse(f"[{text}]:80:80"),
    "a published port": lambda text: endpoint(ports=[{"Proto": 6, "Port": 80, "HostIP": text}]),
    "WEFT_PEERS": lambda text: config.read({"WEFT_PEERS": text}),
    "WEFT_ADVERTISE": lambda text: config.read({"WEFT_ADVERTISE": text}),
    "WEFT_POOLS": lambda text: pools.parse_bases(f"{text}/48/64"),
}


@pytest.mark.parametrize("reader", READERS)
def test_only_the_zone_is_refused(reader: str) -> None:
    READERS[reader]("2001:db8::")
    for zone in ZONES:
        text = f"2001:db8::%{zone}"
        assert str(ipaddress.ip_address(text)) == text, "this is why"
        with pytest.raises((ValueError, InvalidRequest)):
            READERS[reader](text)
