"""Addresses from weft: `--ipam-driver weft`, as users meet it."""

import json
from ipaddress import IPv4Address, ip_network
from typing import Any

import pytest

from tests.lab.engine import Engine
from tests.lab.image import NAME as IMAGE
from tests.lab.matrix import both_engines
from tests.lab.talk import Container, start
from tests.lab.wait import await_
from tests.lab.weft import Weft

pytestmark = pytest.mark.engine


def create(engine: Engine, name: str, *args: str, driver: str = "weft") -> str:
    """`docker network create --ipam-driver weft`; return the network's id."""
    return engine.docker("network", "create", "-d", driver, "--ipam-driver", "weft", *args, name)


def refusal(engine: Engine, *args: str) -> str:
    """Return what Docker says of a command that must fail."""
    said = engine.docker(*args, check=False)
    engine.docker("rm", "-f", "late", check=False)
    return said


def pools(weft: Weft) -> list[dict[str, Any]]:
    """Return what `weft pool ls` says."""
    told: list[dict[str, Any]] = json.loads(weft.cli("pool", "ls", "--json").stdout)
    return told


def held(weft: Weft, pool: str) -> dict[str, str | None]:
    """Return what `weft pool inspect` says: the name of who holds an address, by address."""
    told = json.loads(weft.cli("pool", "inspect", pool, "--json").stdout)
    return {one["address"]: one["name"] for one in told["held"]}


@both_engines
def test_a_network_that_leaves_everything_to_weft(engine: Engine, weft: Weft) -> None:
    ident = create(engine, "meadow", "--ipv6")
    hare, fox = (start(engine, name, "meadow") for name in ("hare", "fox"))
    four, six = sorted(pools(weft), key=lambda pool: int("." not in pool["subnet"]))
    assert ip_network(four["subnet"]).subnet_of(ip_network("10.208.0.0/12"))  # type: ignore[arg-type]
    assert ip_network(six["subnet"]).subnet_of(ip_network("fd00::/8"))  # type: ignore[arg-type]
    for pool, on in ((four, Container.v4), (six, Container.v6)):
        first = ip_network(pool["subnet"])[1]
        assert (pool["network"], pool["network_name"], pool["used"]) == (ident, "meadow", 3)
        assert [on(one, "meadow") for one in (hare, fox)] == [first + 1, first + 2]
        assert held(weft, pool["subnet"]) == {str(first): None, str(first + 1): "hare", str(first + 2): "fox"}
    assert "1 packets received" in hare.run("ping", "-c1", "-W5", "fox")
    assert "1 packets received" in hare.run("ping", "-c1", "-W5", "-6", "fox")
    assert hare.default(4) == (str(ip_network(four["subnet"])[1]), "eth0")
    assert four["subnet"] in weft.cli("pool", "ls").stdout
    shown = weft.cli("pool", "inspect", ident[:12], check=False)  # which has two pools
    assert (shown.returncode, "several pools" in shown.stderr) == (2, True)
    shown = weft.cli("pool", "inspect", four["id"])
    assert "3 of 1022 addresses held, on meadow" in shown.stdout
    assert {"gateway", "container", "hare", "fox"} <= set(shown.stdout.split())
    for one in (hare, fox):
        one.remove()
    engine.docker("network", "rm", "meadow")
    assert pools(weft) == []


@both_engines
def test_everything_chosen_by_hand(engine: Engine, weft: Weft) -> None:
    create(
        engine,
        "meadow",
        *("--subnet", "10.50.0.0/16", "--ip-range", "10.50.5.0/30", "--gateway", "10.50.0.254"),
        *("--aux-address", "printer=10.50.5.1", "--ipv6", "--subnet", "fd50::/64"),
    )
    hare = start(engine, "hare", "meadow", "--ip", "10.50.77.7", "--ip6", "fd50::77")
    fox, owl = (start(engine, name, "meadow") for name in ("fox", "owl"))
    assert hare.links()["eth0"].addresses == {"10.50.77.7/16", "fd50::77/64"}
    assert [str(one.v4("meadow")) for one in (fox, owl)] == ["10.50.5.0", "10.50.5.2"]
    assert hare.default(4) == ("10.50.0.254", "eth0")
    assert held(weft, "10.50.0.0/16") == {
        "10.50.0.254": None,
        "10.50.5.0": "fox",
        "10.50.5.1": "printer",
        "10.50.5.2": "owl",
        "10.50.77.7": "hare",
    }
    assert "1 packets received" in fox.run("ping", "-c1", "-W5", "hare")


@both_engines
def test_an_address_that_is_taken_is_refused_with_its_holder(engine: Engine, weft: Weft) -> None:
    create(engine, "meadow", "--subnet", "10.51.0.0/24", "--aux-address", "printer=10.51.0.9")
    hare = start(engine, "hare", "meadow", "--ip", "10.51.0.7")
    ident = hare.on("meadow")["EndpointID"][:12]

    def asked(address: str) -> str:
        return refusal(engine, "run", "-d", "--name", "late", "--network", "meadow", "--ip", address, IMAGE)

    assert f"10.51.0.7 of pool 10.51.0.0/24 is held by endpoint {ident}" in asked("10.51.0.7")
    assert "is the gateway of network" in asked("10.51.0.1")
    assert "set aside for something else (--aux-address)" in asked("10.51.0.9")
    assert start(engine, "fox", "meadow", "--ip", "10.51.0.8").v4("meadow") == IPv4Address("10.51.0.8")
    hare.remove()
    assert start(engine, "owl", "meadow", "--ip", "10.51.0.7").v4("meadow") == IPv4Address("10.51.0.7")


@both_engines
def test_an_address_whose_container_never_came(engine: Engine, weft: Weft) -> None:
    """As dockerd leaves it when it is killed between its two calls."""
    create(engine, "meadow", "--subnet", "10.52.0.0/24")
    (pool,) = pools(weft)
    reply = weft.call("IpamDriver.RequestAddress", {"PoolID": pool["id"], "Address": "10.52.0.7", "Options": None})
    assert reply.json["Address"] == "10.52.0.7/24"

    def starts() -> bool:
        said = refusal(engine, "run", "--rm", "--network", "meadow", "--ip", "10.52.0.7", IMAGE, "ip", "address")
        return "10.52.0.7/24" in said

    await_(starts, 20, "the address to be given to who asks for it")
    assert held(weft, "10.52.0.0/24") == {"10.52.0.1": None}


@both_engines
def test_a_second_network_on_a_subnet(engine: Engine, weft: Weft) -> None:
    create(engine, "meadow", "--subnet", "10.53.0.0/24")
    again = ("network", "create", "-d", "weft", "--ipam-driver", "weft", "--subnet", "10.53.0.0/25", "again")
    assert "--ipam-opt weft.pool=NAME" in refusal(engine, *again)
    create(engine, "again", "--subnet", "10.53.0.0/25", "--ipam-opt", "weft.pool=blue", driver="bridge")
    assert {pool["name"]: (pool["subnet"], pool["network_name"]) for pool in pools(weft)} == {
        None: ("10.53.0.0/24", "meadow"),
        "blue": ("10.53.0.0/25", "again"),
    }
    engine.docker("network", "rm", "again")
    assert [pool["subnet"] for pool in pools(weft)] == ["10.53.0.0/24"]
    wrong = (*again[:-3], "--subnet", "10.54.0.0/24", "--ipam-opt", "pool=blue", "again")
    assert "unknown IPAM option 'pool': did you mean weft.pool?" in refusal(engine, *wrong)


@both_engines
def test_an_exhausted_pool_says_what_holds_it(engine: Engine, weft: Weft) -> None:
    create(engine, "meadow", "--subnet", "10.55.0.0/30")
    hare = start(engine, "hare", "meadow")
    said = refusal(engine, "run", "-d", "--name", "late", "--network", "meadow", IMAGE)
    assert "pool 10.55.0.0/30 is exhausted: all 2 addresses" in said
    assert f"10.55.0.1 the gateway, 10.55.0.2 endpoint {hare.on('meadow')['EndpointID'][:12]}" in said
    hare.remove()
    assert start(engine, "fox", "meadow").v4("meadow") == IPv4Address("10.55.0.2")


@both_engines
def test_nothing_is_handed_out_twice_after_restarts(private_engine: Engine, private_weft: Weft) -> None:
    engine, weft = private_engine, private_weft
    # a range apart from --ip: while fox is down, its address is anybody's, as with Docker's own IPAM
    ranges = ("--subnet", "10.56.0.0/24", "--gateway", "10.56.0.1", "--ip-range", "10.56.0.128/25")
    create(engine, "meadow", *ranges)
    hare = start(engine, "hare", "meadow", "--restart", "always")
    fox = start(engine, "fox", "meadow", "--ip", "10.56.0.7", "--restart", "always")
    weft.kill()
    weft.start()
    owl = start(engine, "owl", "meadow", "--restart", "always")
    assert str(owl.v4("meadow")) == "10.56.0.129"
    for stop in (engine.stop, engine.kill):
        stop()
        engine.start()
        await_(lambda: all(one.inspected["State"]["Running"] for one in (hare, fox, owl)), 60, "the containers")
        mine = {str(one.v4("meadow")): one.name for one in (hare, fox, owl)}
        assert len(mine) == 3
        assert mine["10.56.0.7"] == "fox"
        assert {address: name for address, name in held(weft, "10.56.0.0/24").items() if name} == mine
        assert "10.56.0.1" not in mine
        assert "1 packets received" in hare.run("ping", "-c1", "-W5", "fox")


@both_engines
def test_docker_s_own_bridge_takes_its_addresses_from_weft(engine: Engine, weft: Weft) -> None:
    create(engine, "yard", driver="bridge")
    hare, _ = (start(engine, name, "yard") for name in ("hare", "fox"))
    (pool,) = pools(weft)
    first = ip_network(pool["subnet"])[1]
    assert (pool["driver"], pool["network_name"]) == ("bridge", "yard")
    assert held(weft, pool["id"]) == {str(first): None, str(first + 1): "hare", str(first + 2): "fox"}
    assert "1 packets received" in hare.run("ping", "-c1", "-W5", "fox")
    said = refusal(engine, "run", "-d", "--name", "late", "--network", "yard", "--ip", str(first + 1), IMAGE)
    # Docker itself refuses --ip without --subnet on some engines; weft does on all
    assert "in use since" in said or "user configured subnets" in said


@both_engines
def test_without_ipam_an_endpoint_s_options_give_it_an_address(engine: Engine, weft: Weft) -> None:
    engine.docker("network", "create", "-d", "weft", "--ipam-driver", "null", "wire")
    mac = "02:42:0a:23:00:07"
    for name, last in (("hare", 7), ("fox", 8)):
        engine.docker(
            *("run", "-d", "--name", name),
            *("--network", f"name=wire,driver-opt=weft.ip=10.57.0.{last}/24,driver-opt=weft.mac={mac[:-1]}{last}"),
            *(IMAGE, "sleep", "1000"),
        )
    told = engine.docker("exec", "hare", "ip", "address", "show", "eth0")
    assert "10.57.0.7/24" in told
    assert mac in told
    assert "1 packets received" in engine.docker("exec", "hare", "ping", "-c1", "-W5", "10.57.0.8")
    taken = ("run", "-d", "--name", "late", "--network", "name=wire,driver-opt=weft.ip=10.57.0.7/24", IMAGE)
    assert "10.57.0.7 is in use by endpoint" in refusal(engine, *taken)


@both_engines
def test_with_ipam_the_options_must_agree(engine: Engine, weft: Weft) -> None:
    create(engine, "meadow", "--subnet", "10.58.0.0/24")
    options = "name=meadow,driver-opt=weft.ip=10.58.0.99"
    said = refusal(engine, "run", "-d", "--name", "late", "--network", options, IMAGE)
    assert "weft.ip=10.58.0.99 contradicts 10.58.0.2" in said
    assert held(weft, "10.58.0.0/24") == {"10.58.0.1": None}  # and the address was given back
