"""Every option is understood, refused with what is allowed, or passed over with one warning: never in silence."""

import logging
import re
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from drivers.errors import InvalidRequest
from drivers.model import OpenPorts
from drivers.naming import link_name
from plugin import options
from plugin.options import (
    ENDPOINT_OPTIONS,
    NETWORK_OPTIONS,
    endpoint_settings,
    network_settings,
    pool_name,
)
from plugin.requests import EndpointSettings, NetworkSettings, Route

BRIDGE = "com.docker.network.bridge"
MTU = "com.docker.network.driver.mtu"
MODES = ("nat", "nat-unprotected", "routed", "isolated")
PREFIX = "com.docker.network.container_iface_prefix"
NMSGS = "com.docker.network.advertise_addr_nmsgs"
MS = "com.docker.network.advertise_addr_ms"


def test_no_option_is_docker_s_own_default() -> None:
    assert network_settings({}) == NetworkSettings()
    assert NetworkSettings() == NetworkSettings(
        backend=None,
        bridge=None,
        mtu=None,
        masquerade=True,
        interface_prefix="eth",
        announce_count=3,
        announce_ms=1000,
    )


@pytest.mark.parametrize(
    ("key", "text", "setting", "value"),
    [
        *(("weft.backend", name, "backend", name) for name in ("bridge", "ovs")),
        (f"{BRIDGE}.name", "br-lan", "bridge", "br-lan"),
        (f"{BRIDGE}.name", "wfnet", "bridge", "wfnet"),
        (f"{BRIDGE}.name", "a23456789012345", "bridge", "a23456789012345"),
        (f"{BRIDGE}.name", "", "bridge", None),
        *(
            (f"{BRIDGE}.enable_ip_masquerade", text, "masquerade", True)
            for text in ("1", "t", "T", "true", "TRUE", "True")
        ),
        *(
            (f"{BRIDGE}.enable_ip_masquerade", text, "masquerade", False)
            for text in ("0", "f", "F", "false", "FALSE", "False")
        ),
        *(("weft.tunnel", kind, "tunnel", kind) for kind in ("vxlan", "gre", "geneve")),
        ("weft.tunnel", "none", "tunnel", None),
        ("weft.vni", "1", "vni", 1),
        ("weft.vni", "16777215", "vni", 16777215),
        ("weft.name", "shop.prod-1", "name", "shop.prod-1"),
        ("weft.peers", "192.0.2.2, 192.0.2.3,192.0.2.2", "peers", (ip_address("192.0.2.2"), ip_address("192.0.2.3"))),
        ("weft.peers", "2001:db8::2", "peers", (ip_address("2001:db8::2"),)),
        ("weft.peers", "", "peers", ()),
        ("weft.tunnel.port", "4799", "port", 4799),
        (MTU, "68", "mtu", 68),
        (MTU, "65535", "mtu", 65535),
        (NMSGS, "0", "announce_count", 0),
        (NMSGS, "3", "announce_count", 3),
        (MS, "100", "announce_ms", 100),
        (MS, "2000", "announce_ms", 2000),
        (PREFIX, "net", "interface_prefix", "net"),
        (PREFIX, "a234567890123", "interface_prefix", "a234567890123"),
        (PREFIX, "", "interface_prefix", "eth"),
        (f"{BRIDGE}.enable_icc", "false", "icc", False),
        (f"{BRIDGE}.inhibit_ipv4", "true", "inhibit", True),
        (f"{BRIDGE}.host_binding_ipv4", "127.0.0.1", "host_binding", ip_address("127.0.0.1")),
        (f"{BRIDGE}.host_binding_ipv4", "::", "host_binding", ip_address("::")),
        *((f"{BRIDGE}.gateway_mode_ipv4", mode, "mode4", mode) for mode in MODES),
        *((f"{BRIDGE}.gateway_mode_ipv6", mode, "mode6", mode) for mode in MODES),
        (f"{BRIDGE}.trusted_host_interfaces", "eth1:vpn0:eth1", "trusted", ("eth1", "vpn0")),
        ("com.docker.network.host_ipv4", "192.0.2.1", "source4", ip_address("192.0.2.1")),
        ("com.docker.network.host_ipv6", "2001:db8::1", "source6", ip_address("2001:db8::1")),
        (
            "weft.routes",
            "10.9.0.0/16 via 10.1.0.9, fd09::/64",
            "routes",
            (
                Route(destination=ip_network("10.9.0.0/16"), gateway=ip_address("10.1.0.9")),
                Route(destination=ip_network("fd09::/64")),
            ),
        ),
    ],
)
def test_what_is_allowed_becomes_a_setting(key: str, text: str, setting: str, value: object) -> None:
    assert getattr(network_settings({key: text}), setting) == value


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (f"{BRIDGE}.enable_icc", "true"),
        (f"{BRIDGE}.inhibit_ipv4", "false"),
        (f"{BRIDGE}.host_binding_ipv4", "0.0.0.0"),  # noqa: S104 - an option's text
        (f"{BRIDGE}.gateway_mode_ipv4", "nat"),
        (f"{BRIDGE}.gateway_mode_ipv6", ""),
        (f"{BRIDGE}.trusted_host_interfaces", ""),
        ("com.docker.network.host_ipv4", ""),
        ("com.docker.network.host_ipv6", ""),
    ],
)
def test_what_weft_does_anyway_changes_nothing(key: str, text: str) -> None:
    assert network_settings({key: text}) == NetworkSettings()


def test_stt_is_refused_with_its_own_reason() -> None:
    with pytest.raises(InvalidRequest, match=r"weft\.tunnel='stt' cannot be: Open vSwitch has dropped STT .*geneve"):
        network_settings({"weft.tunnel": "stt"})


@pytest.mark.parametrize(
    ("key", "text", "allowed"),
    [
        ("weft.backend", "macvlan", "bridge or ovs"),
        ("weft.backend", "", "bridge or ovs"),
        (f"{BRIDGE}.name", "a/b", "1 to 15 letters"),
        (f"{BRIDGE}.name", "-x", "1 to 15 letters"),
        (f"{BRIDGE}.name", "a234567890123456", "1 to 15 letters"),
        (f"{BRIDGE}.name", "all", "not all, default or lo"),
        (f"{BRIDGE}.name", link_name("b", "5f" * 32), "not as weft calls its own links"),
        (f"{BRIDGE}.enable_ip_masquerade", "yes", "true or false"),
        (f"{BRIDGE}.enable_ip_masquerade", "", "true or false"),
        (f"{BRIDGE}.enable_icc", "no", "true"),
        (f"{BRIDGE}.inhibit_ipv4", "", "true or false"),
        (f"{BRIDGE}.host_binding_ipv4", "localhost", "an address of the host, IPv4 or IPv6"),
        (f"{BRIDGE}.host_binding_ipv4", "224.0.0.1", "an address of the host, IPv4 or IPv6"),
        (f"{BRIDGE}.gateway_mode_ipv4", "Routed", "nat, nat-unprotected, routed, or (with --internal only) isolated"),
        (f"{BRIDGE}.gateway_mode_ipv6", "none", "nat, nat-unprotected, routed, or (with --internal only) isolated"),
        *(
            (f"{BRIDGE}.trusted_host_interfaces", text, "names of the host's links with colons between")
            for text in ("eth1,eth2", "eth1:", "lo", "../x", link_name("b", "5f" * 32))
        ),
        *(
            ("weft.routes", text, "SUBNET via ADDRESS, or SUBNET")
            for text in (
                *("", "10.9.0.0/16 by 10.1.0.9", "10.9.0.1/16 via 10.1.0.9", "10.9.0.0/16 via fd00::1"),
                *("0.0.0.0/0 via 10.1.0.9", "10.9.0.0/16,10.9.0.0/16 via 10.1.0.9", "224.0.0.0/8", "10.9.0.0/16 via x"),
            )
        ),
        ("weft.tunnel", "VXLAN", "none, vxlan, gre or geneve"),
        *(("weft.vni", text, "1 to 16777215") for text in ("0", "16777216", "-1", "0x10", "")),
        *(("weft.name", text, "1 to 63 letters") for text in ("", "a b", "-x", "x" * 64)),
        *(
            ("weft.peers", text, "addresses of the other hosts")
            for text in ("bob", "fe80::2", "192.0.2.2;192.0.2.3", ",")
        ),
        *(("weft.tunnel.port", text, "1 to 65535") for text in ("0", "65536", "http")),
        (MTU, "67", "68 to 65535"),
        (MTU, "65536", "68 to 65535"),
        (MTU, "-1", "68 to 65535"),
        (MTU, "", "68 to 65535"),
        (MTU, "1e3", "68 to 65535"),
        (MTU, "\u0661\u0665\u0660\u0660", "68 to 65535"),
        *((NMSGS, text, "0 to 3: how often") for text in ("-1", "4", "", "nonsense", "1.5", "+1")),
        *((MS, text, "100 to 2000 (milliseconds") for text in ("99", "2001", "-100", "", "1s", "0")),
        (PREFIX, "a2345678901234", "at most 13 bytes"),
        (PREFIX, "e h", "at most 13 bytes"),
        (PREFIX, "../", "at most 13 bytes"),
        ("com.docker.network.host_ipv4", "2001:db8::1", "an IPv4 address of the host"),
        ("com.docker.network.host_ipv4", "127.0.0.1", "an IPv4 address of the host"),
        ("com.docker.network.host_ipv6", "192.0.2.1", "an IPv6 address of the host"),
        ("com.docker.network.host_ipv6", "fe80::1%eth0", "an IPv6 address of the host"),
    ],
)
def test_what_is_not_is_refused_with_key_value_and_what_is(key: str, text: str, allowed: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(f"{key}={text!r} cannot be: allowed is ")) as refused:
        network_settings({key: text})
    assert allowed in str(refused.value)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("weft.backnd", "weft.backend"),
        ("weft-backend", "weft.backend"),
        ("Weft.Backend", "weft.backend"),
        ("backend", "weft.backend"),
        ("mtu", MTU),
        ("MTU", MTU),
        ("enable_icc", f"{BRIDGE}.enable_icc"),
        ("gateway_mode_ipv4", f"{BRIDGE}.gateway_mode_ipv4"),
    ],
)
def test_a_slip_is_told_what_was_meant(key: str, meant: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        network_settings({key: "1"})
    assert str(refused.value) == f"unknown network option {key!r}: did you mean {meant}?"


def test_a_key_like_nothing_is_told_all_there_is() -> None:
    with pytest.raises(InvalidRequest) as refused:
        network_settings({"qqqq": ""})
    assert all(option.key in str(refused.value) for option in NETWORK_OPTIONS)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as refused:
        network_settings({MTU: "9", "weft.x": "1", f"{BRIDGE}.enable_icc": "maybe"})
    assert len(str(refused.value).splitlines()) == 3


def test_a_long_value_is_cut() -> None:
    with pytest.raises(InvalidRequest) as refused:
        network_settings({MTU: "9" * 5000})
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("vendor", ["com.docker.network.bridge.enable_icx", "org.example.colour", "wetf.backend"])
def test_another_s_key_is_taken_with_one_warning(vendor: str, caplog: pytest.LogCaptureFixture) -> None:
    options._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert network_settings({vendor: "1"}) == NetworkSettings()
    assert [(record.getMessage(), record.__dict__["option"]) for record in caplog.records] == [
        (options.IGNORED, vendor)
    ]


def test_the_warning_tells_what_may_have_been_meant(caplog: pytest.LogCaptureFixture) -> None:
    options._warn_once.cache_clear()
    network_settings({f"{BRIDGE}.enable_icx": "false"})
    assert caplog.records[0].__dict__["hint"] == f"did you mean {BRIDGE}.enable_icc?"


def test_a_call_with_many_of_them_is_a_few_lines_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    options._warn_once.cache_clear()
    network_settings({f"org.example.{at}": "" for at in range(1000)})
    assert len(caplog.records) == options._WARNED_OF + 1
    assert caplog.records[-1].__dict__["option"] == f"{1000 - options._WARNED_OF} more"


def test_docker_s_own_endpoint_data_are_no_options(caplog: pytest.LogCaptureFixture) -> None:
    endpoint_settings(
        {
            "com.docker.network.endpoint.exposedports": [{"Proto": 6, "Port": 80}],
            "com.docker.network.portmap": [],
            "com.docker.network.endpoint.macaddress": "AhEiM0RV",
        }
    )
    assert caplog.records == []


def test_endpoint_options_are_judged_alike(caplog: pytest.LogCaptureFixture) -> None:
    options._warn_once.cache_clear()
    endpoint_settings({"com.docker.network.endpoint.sysctls": "net.ipv4.x=1", "ovn.sg": "web"})
    assert [record.__dict__["option"] for record in caplog.records] == ["com.docker.network.endpoint.sysctls", "ovn.sg"]
    for key in ("weft.iq", "qos"):
        with pytest.raises(InvalidRequest, match=f"unknown endpoint option '{key}'"):
            endpoint_settings({key: "10"})


@pytest.mark.parametrize(
    ("key", "text", "settings"),
    [
        ("weft.ip", "10.9.0.7/24", EndpointSettings(addresses=(ip_interface("10.9.0.7/24"),))),
        ("weft.ip", "fd09::7", EndpointSettings(addresses=(ip_interface("fd09::7/128"),))),
        (
            "weft.ip",
            "10.9.0.7/24, fd09::7/64",
            EndpointSettings(addresses=(ip_interface("10.9.0.7/24"), ip_interface("fd09::7/64"))),
        ),
        ("weft.mac", "02-42-AC-11-00-02", EndpointSettings(mac="02:42:ac:11:00:02")),
        ("com.docker.network.endpoint.ifname", "web0", EndpointSettings(ifname="web0")),
        (
            "weft.link",
            "10.9.0.7:3306, [fd09::7]:53-55/udp",
            EndpointSettings(
                links=(
                    OpenPorts(address=ip_address("10.9.0.7"), transport="tcp", first=3306, last=3306),
                    OpenPorts(address=ip_address("fd09::7"), transport="udp", first=53, last=55),
                )
            ),
        ),
        (
            "weft.routes",
            "10.8.0.0/16 via 10.9.0.9",
            EndpointSettings(routes=(Route(destination=ip_network("10.8.0.0/16"), gateway=ip_address("10.9.0.9")),)),
        ),
    ],
)
def test_an_endpoint_s_address_and_mac(key: str, text: str, settings: EndpointSettings) -> None:
    assert endpoint_settings({key: text}) == settings


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *(
            ("weft.ip", text)
            for text in ("", "10.9.0.300", "10.9.0.7,10.9.0.8", "224.0.0.1", "::1", "fe80::1%eth0", "0.0.0.0")  # noqa: S104 - refused
        ),
        *(
            ("weft.link", text)
            for text in (
                *("", "10.9.0.7", "10.9.0.7:", ":3306", "10.9.0.7:0", "10.9.0.7:80-70", "10.9.0.7:80/icmp"),
                *("fd09::7:80", "10.9.0.7:1:2", "0.0.0.0:80", "db:3306", "224.0.0.1:80"),
            )
        ),
        *(("com.docker.network.endpoint.ifname", text) for text in ("", "lo", "a/b", "a234567890123456")),
        *(("weft.mac", text) for text in ("", "02:42:ac:11:00", "03:42:ac:11:00:02", "00:00:00:00:00:00", "x")),
    ],
)
def test_what_no_endpoint_can_have(key: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^{re.escape(key)}='.*' cannot be: allowed is "):
        endpoint_settings({key: text})


def test_a_pool_s_name() -> None:
    assert pool_name({"weft.pool": "blue-7", "RequestAddressType": "com.docker.network.gateway"}) == "blue-7"
    assert pool_name({"com.docker.network.ipam.serial": "true"}) == ""
    for text in ("", "a b", "x" * 64, "-x", "a/b", "a&b"):
        with pytest.raises(InvalidRequest, match=r"^weft\.pool='.*' cannot be: allowed is 1 to 63 letters"):
            pool_name({"weft.pool": text})
    with pytest.raises(InvalidRequest, match=r"unknown IPAM option 'pool': did you mean weft\.pool\?"):
        pool_name({"pool": "blue"})


def test_every_row_sets_a_setting_that_there_is() -> None:
    for table, settings in ((NETWORK_OPTIONS, NetworkSettings), (ENDPOINT_OPTIONS, EndpointSettings)):
        assert len({option.key for option in table}) == len(table)
        assert [option.sets for option in table if option.sets not in settings.__dataclass_fields__] == []
        assert {option.sets for option in table} == settings.__dataclass_fields__.keys()
