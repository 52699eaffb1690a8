from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from drivers.errors import InvalidRequest
from plugin import config


def test_the_defaults_are_the_fixed_names() -> None:
    settings = config.read({})
    assert settings.socket == Path("/run/docker/plugins/weft.sock")
    assert settings.control == Path("/run/weft/control.sock")
    assert settings.database == Path("/var/lib/weft/weft.db")
    assert settings.docker == Path("/var/run/docker.sock")
    assert (settings.backend, settings.scope) == ("bridge", "local")
    assert str(settings.pools) == "10.208.0.0/12/22"
    assert (settings.advertise, settings.peers, settings.tunnel_port) == (None, (), 4789)


def test_the_table_and_the_settings_have_the_same_names() -> None:
    assert {setting.attribute for setting in config.TABLE} == {
        field.name for field in dataclasses.fields(config.Settings)
    }


def test_a_flag_beats_the_environment_which_beats_the_default() -> None:
    environment = {"WEFT_STATE_DIR": "/srv/weft", "WEFT_LOG_LEVEL": "debug"}
    settings = config.read(environment, {"state_dir": "/srv/other", "log_level": None})
    assert (settings.state_dir, settings.log_level) == (Path("/srv/other"), "debug")


def test_peers_and_the_own_address_are_read() -> None:
    environment = {"WEFT_PEERS": "192.0.2.1, 192.0.2.2,192.0.2.1", "WEFT_ADVERTISE": "2001:db8::1"}
    settings = config.read(environment | {"WEFT_TUNNEL_PORT": "4790"})
    assert settings.peers == (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"))
    assert (settings.advertise, settings.tunnel_port) == (IPv6Address("2001:db8::1"), 4790)


def test_an_empty_variable_is_not_set() -> None:
    assert config.read({"WEFT_LOG_FORMAT": ""}).log_format == "text"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("WEFT_SOCKET", "weft.sock", "an absolute path"),
        ("WEFT_SOCKET", "/" + "x" * 200, "at most 107 bytes"),
        ("WEFT_STATE_DIR", "/var/\0lib", "an absolute path"),
        ("WEFT_BACKEND", "calico", "bridge"),
        ("WEFT_SCOPE", "swarm", "local or global"),
        ("WEFT_POOLS", "10.0.0.0/8", "BASE/LENGTH/SIZE"),
        ("WEFT_ADVERTISE", "fe80::1", "an address of this host that others reach"),
        ("WEFT_PEERS", "192.0.2.1;192.0.2.2", "addresses of other hosts with commas between"),
        ("WEFT_TUNNEL_PORT", "0", "a UDP port, 1 to 65535"),
        ("WEFT_LOG_LEVEL", "loud", "debug or info or warning or error"),
        ("WEFT_LOG_FORMAT", "xml", "text or json"),
        ("WEFT_RECONCILE_INTERVAL", "0", "5 to 3600"),
        ("WEFT_RECONCILE_INTERVAL", "often", "5 to 3600"),
        ("DOCKER_HOST", "unix://run/docker.sock", "an absolute path"),
    ],
)
def test_a_bad_value_names_the_variable_the_value_and_what_is_allowed(name: str, value: str, allowed: str) -> None:
    with pytest.raises(InvalidRequest, match=name) as refused:
        config.read({name: value})
    assert repr(value) in str(refused.value)
    assert allowed in str(refused.value)


def test_a_misspelt_variable_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="WEFT_SOKET is not a setting"):
        config.read({"WEFT_SOKET": "/run/x.sock"})


def test_a_docker_host_that_is_not_a_unix_socket_is_no_business_of_ours() -> None:
    assert config.read({"DOCKER_HOST": "tcp://192.0.2.1:2375"}).docker == Path("/var/run/docker.sock")
    with pytest.raises(InvalidRequest, match="DOCKER_HOST"):
        config.read({}, {"docker": "tcp://192.0.2.1:2375"})


def test_broken_settings_are_their_defaults_where_nobody_sees_an_exit_code() -> None:
    settings, problems = config.judge({"WEFT_POOLS": "many", "WEFT_LOG_LEVEL": "loud", "WEFT_STATE_DIR": "/srv/weft"})
    assert (str(settings.pools), settings.log_level) == ("10.208.0.0/12/22", "info")
    assert settings.state_dir == Path("/srv/weft")
    assert [problem.partition("=")[0] for problem in problems] == ["WEFT_POOLS", "WEFT_LOG_LEVEL"]


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(InvalidRequest, match=r"WEFT_POOLS.*\n.*WEFT_LOG_LEVEL"):
        config.read({"WEFT_POOLS": "many", "WEFT_LOG_LEVEL": "loud"})
