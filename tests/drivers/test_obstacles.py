"""Who stands in a network's way, and what is to be typed: told once, and no more once it was typed."""

from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from drivers import obstacles
from drivers.marks import Marks
from drivers.obstacles import Obstacle
from drivers.resources import program
from drivers.xtables import VERSIONS, XtablesBackend
from tests.netns import private_netns, sh

LINK = "wfb0123456789ab"


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Iterator[int]:
    """Be on a host whose FORWARD drops, and which has no Docker."""
    with private_netns():
        sh(program(request.param), "-P", "FORWARD", "DROP")
        yield request.param


def told(version: int) -> list[Obstacle]:
    return list(obstacles.of_filter(version, LINK, XtablesBackend(Marks("a")).closed(version)))


@pytest.mark.kernel
def test_a_forward_that_drops_is_told_with_the_rules_that_open_it(version: int) -> None:
    (obstacle,) = told(version)
    name = program(version)
    assert f"{name} drops IPv{version}" in obstacle.what
    assert obstacle.fix == f"{name} -I FORWARD -i {LINK} -j ACCEPT && {name} -I FORWARD -o {LINK} -j ACCEPT"
    sh("sh", "-ec", obstacle.fix)
    assert told(version) == []


@pytest.mark.kernel
def test_ufw_is_told_by_its_own_command(version: int) -> None:
    name, chain = program(version), {4: "ufw-before-forward", 6: "ufw6-before-forward"}[version]
    sh(name, "-N", chain)
    (obstacle,) = told(version)
    assert "ufw drops" in obstacle.what
    assert obstacle.fix == f"ufw route allow in on {LINK} && ufw route allow out on {LINK}"


@pytest.mark.kernel
def test_legacy_tables_are_told_by_their_program() -> None:
    with private_netns():
        sh("iptables-legacy", "-P", "FORWARD", "DROP")
        (obstacle,) = told(4)
        assert obstacle.fix.startswith("iptables-legacy -I FORWARD ")


def accept_all(run: Callable[..., str]) -> None:
    run("-A", "FORWARD", "-j", "ACCEPT")


def accept_the_group(run: Callable[..., str]) -> None:
    run("-A", "FORWARD", "-m", "devgroup", "--src-group", "0x57ef", "-j", "ACCEPT")
    run("-A", "FORWARD", "-m", "devgroup", "--dst-group", "0x57ef", "-j", "ACCEPT")


def accept_in_a_chain(run: Callable[..., str]) -> None:
    run("-N", "lan")
    run("-A", "FORWARD", "-j", "lan")
    run("-A", "lan", "-i", "wfb+", "-j", "ACCEPT")
    run("-A", "lan", "-o", LINK, "-m", "comment", "--comment", "ours", "-j", "ACCEPT")


def have_docker(run: Callable[..., str]) -> None:
    run("-N", "DOCKER-USER")


def drop_nothing(run: Callable[..., str]) -> None:
    run("-P", "FORWARD", "ACCEPT")


@pytest.mark.kernel
@pytest.mark.parametrize(
    "opening",
    [accept_all, accept_the_group, accept_in_a_chain, have_docker, drop_nothing],
    ids=lambda one: one.__name__,
)
def test_what_is_open_is_no_obstacle(version: int, opening: Callable[[Callable[..., str]], None]) -> None:
    opening(lambda *args: sh(program(version), *args))
    assert told(version) == []


def accept_one_way(run: Callable[..., str]) -> None:
    run("-A", "FORWARD", "-i", LINK, "-j", "ACCEPT")


def accept_a_part(run: Callable[..., str]) -> None:
    run("-A", "FORWARD", "-i", LINK, "-p", "tcp", "-j", "ACCEPT")
    run("-A", "FORWARD", "-o", LINK, "!", "-i", "eth0", "-j", "ACCEPT")


def accept_elsewhere(run: Callable[..., str]) -> None:
    run("-N", "other")
    run("-A", "other", "-j", "ACCEPT")
    run("-A", "FORWARD", "-i", "eth0", "-j", "other")
    run("-A", "INPUT", "-j", "ACCEPT")


def drop_in_a_circle(run: Callable[..., str]) -> None:
    run("-N", "empty")
    run("-A", "FORWARD", "-j", "empty")
    run("-A", "FORWARD", "-j", "empty")


@pytest.mark.kernel
@pytest.mark.parametrize(
    "opening", [accept_one_way, accept_a_part, accept_elsewhere, drop_in_a_circle], ids=lambda one: one.__name__
)
def test_what_is_half_open_is_told(version: int, opening: Callable[[Callable[..., str]], None]) -> None:
    opening(lambda *args: sh(program(version), *args))
    assert len(told(version)) == 1


@pytest.mark.parametrize(
    ("link", "name"), [(LINK, "wfb+"), ("lan-of-ours", "lan-of-ours")], ids=["made name", "operator's name"]
)
def test_a_firewalld_that_cannot_be_reached_is_told_until_it_knows_the_link(link: str, name: str) -> None:
    assert list(obstacles.of_firewalld(link, None)) == []
    (obstacle,) = obstacles.of_firewalld(link, 'iifname "docker0" goto filter_FWD_docker')
    put = f"--zone=trusted --add-interface={name}"
    assert obstacle.fix == f"firewall-cmd --permanent {put} && firewall-cmd {put}"
    known = name.replace("+", "*")
    assert list(obstacles.of_firewalld(link, f'iifname "{known}" goto filter_FWD_trusted')) == []


def test_a_link_in_another_zone_is_told() -> None:
    assert list(obstacles.of_zone(LINK, None)) == list(obstacles.of_zone(LINK, "weft")) == []
    (obstacle,) = obstacles.of_zone(LINK, "internal")
    assert obstacle.fix == f"firewall-cmd --zone=weft --change-interface={LINK}"


def test_an_address_that_open_vswitch_cannot_send_from_is_told() -> None:
    here = ip_address("192.0.2.1")
    assert list(obstacles.of_underlay(here, ["br-phy"], ["br-phy", "wfb1"])) == []
    assert list(obstacles.of_underlay(here, [], [])) == []  # it is not on this host now: nothing is known
    (obstacle,) = obstacles.of_underlay(here, ["eth0"], ["br-phy"])
    assert "192.0.2.1 is on eth0" in obstacle.what
    assert "add-port br-phy eth0" in obstacle.fix
