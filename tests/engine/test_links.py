"""Docker's links on a weft network whose containers are kept apart: a private way, by name, and nothing besides."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import image
from tests.lab.engine import Engine
from tests.lab.image import NAME
from tests.lab.matrix import both_engines
from tests.lab.names import REPO
from tests.lab.net import Neighbour
from tests.lab.wait import await_
from tests.lab.weft import Weft
from tests.matrix.docker import party, run, serving, set_br_netfilter
from tests.matrix.table import Party
from tests.matrix.traffic import OPEN, PORT, SILENT, Knock, Traffic

pytestmark = pytest.mark.engine

SOON = 10  # seconds that a link may take to be open or closed
OTHER = PORT + 1
APART = ("-o", "com.docker.network.bridge.enable_icc=false")
SUBNETS = ("--subnet", "10.7.1.0/24", "--ipv6", "--subnet", "fd07:1::/64")
EXPOSED = ("--expose", f"{PORT}/tcp", "--expose", f"{PORT}/udp")


@pytest.fixture
def traffic() -> Iterator[Traffic]:
    with Traffic() as traffic:
        yield traffic


def network(engine: Engine, *args: str) -> None:
    """Create a network that keeps its containers apart."""
    engine.docker("network", "create", "-d", "weft", *SUBNETS, *APART, *args, "app")


def ways(source: Party, target: Party, wanted: str, *, ports: tuple[int, ...] = (PORT,)) -> list[Knock]:
    """Return an attempt for each IP version, TCP and UDP; an open one must show the source's own address."""
    return [
        Knock(source.spot, address, protocol, port, f"{OPEN} from {source.addresses[version]}" if wanted else SILENT)
        for version, address in target.addresses.items()
        for protocol in ("tcp", "udp")
        for port in ports
    ]


def opened(traffic: Traffic, source: Party, target: Party) -> bool:
    """Tell whether the target answers the source in every way."""
    return not traffic.surprises(ways(source, target, OPEN))


def await_open(traffic: Traffic, source: Party, target: Party) -> None:
    """Wait for a link."""
    await_(lambda: opened(traffic, source, target), SOON, f"{target.spot.name} to be open to {source.spot.name}")


def resolves(engine: Engine, container: str, name: str) -> set[str]:
    """Return the addresses that Docker's DNS has for a name in a container."""
    told = engine.docker("exec", container, "nslookup", name, "127.0.0.11", check=False)
    return {line.split()[-1] for line in told.splitlines() if line.startswith("Address") and "127.0.0.11" not in line}


@both_engines
def test_a_link_opens_what_is_exposed_from_one_container_and_nothing_else(
    engine: Engine, weft: Weft, traffic: Traffic
) -> None:
    network(engine)
    db = run(engine, traffic, "db", "app", *EXPOSED)
    web = run(engine, traffic, "web", "app", "--link", "db:database")
    eve = run(engine, traffic, "eve", "app")
    for one in (db, web):
        one.spot.serve(OTHER)
    await_open(traffic, web, db)
    assert {db.addresses[4]} <= resolves(engine, "web", "database")
    closed = [
        *ways(web, db, "", ports=(OTHER,)),  # what is not exposed
        *ways(db, web, "", ports=(PORT, OTHER)),  # the other way
        *ways(eve, db, ""),
        *ways(eve, web, ""),
        *(Knock(web.spot, address, "icmp") for address in db.addresses.values()),
    ]
    for value in (0, 1):
        set_br_netfilter(engine.node, value)
        assert traffic.surprises([*ways(web, db, OPEN), *closed]) == []
    shown = weft.cli("endpoint", "inspect", "--json", _endpoint(engine, "web")).stdout
    assert f"{db.addresses[4]} {PORT}/tcp" in shown


def _endpoint(engine: Engine, name: str) -> str:
    (there,) = engine.api("GET", f"/containers/{name}/json")["NetworkSettings"]["Networks"].values()
    return str(there["EndpointID"])


@both_engines
def test_nothing_of_a_link_is_open_outside(engine: Engine, weft: Weft, neighbour: Neighbour, traffic: Traffic) -> None:
    network(engine)
    for subnet, by in (("10.7.1.0/24", neighbour.node_v4), ("fd07:1::/64", neighbour.node_v6)):
        neighbour.ip("route", "add", subnet, "via", str(by))
    lan = serving(traffic, neighbour, "lan")
    db = run(engine, traffic, "db", "app", *EXPOSED)
    web = run(engine, traffic, "web", "app", "--link", "db")
    await_open(traffic, web, db)
    outside = [Knock(lan, address, "tcp") for one in (db, web) for address in one.addresses.values()]
    assert traffic.surprises([*outside, *ways(web, db, OPEN)]) == []


@both_engines
def test_a_link_holds_in_whichever_order_they_start_and_when_the_target_comes_back_elsewhere(
    engine: Engine, weft: Weft, traffic: Traffic
) -> None:
    network(engine)
    engine.docker("create", "--name", "db", "--network", "app", *EXPOSED, NAME)
    web = run(engine, traffic, "web", "app", "--link", "db:database")  # its target does not run yet
    engine.docker("start", "db")
    db = party(engine, traffic, "db")
    await_open(traffic, web, db)
    engine.docker("stop", "db")
    eve = run(engine, traffic, "eve", "app", "--ip", db.addresses[4], "--ip6", db.addresses[6])
    assert traffic.surprises(ways(web, eve, "")) == []  # whoever has the address now is not the target
    engine.docker("start", "db")
    again = party(engine, traffic, "db")
    assert again.addresses[4] != db.addresses[4]
    await_open(traffic, web, again)
    assert traffic.surprises(ways(web, eve, "")) == []
    engine.docker("restart", "web")
    web = party(engine, traffic, "web")
    await_open(traffic, web, again)


@both_engines
def test_a_conversation_by_a_link_does_not_go_on_with_whoever_has_the_address_next(
    engine: Engine, weft: Weft, traffic: Traffic
) -> None:
    network(engine)
    db = run(engine, traffic, "db", "app", *EXPOSED)
    web = run(engine, traffic, "web", "app", "--link", "db")
    await_open(traffic, web, db)
    flows = ("conntrack", "-L", "-s", web.addresses[4], "-d", db.addresses[4])
    assert engine.node.beside.run(*flows).stdout
    engine.docker("rm", "-f", "db")
    await_(lambda: not engine.node.beside.run(*flows).stdout, SOON, "the flows of the link to be forgotten")


@both_engines
def test_a_container_is_linked_when_it_is_connected_and_no_longer_when_it_is_not(
    engine: Engine, weft: Weft, traffic: Traffic
) -> None:
    network(engine)
    db = run(engine, traffic, "db", "app", *EXPOSED)
    engine.docker("run", "-d", "--name", "web", "--network", "none", NAME)
    engine.docker("network", "disconnect", "none", "web")
    engine.docker("network", "connect", "--link", "db:database", "app", "web")
    web = party(engine, traffic, "web")
    await_open(traffic, web, db)
    assert db.addresses[4] in resolves(engine, "web", "database")
    engine.docker("network", "disconnect", "app", "web")
    engine.docker("network", "connect", "app", "web")
    (there,) = engine.api("GET", "/containers/web/json")["NetworkSettings"]["Networks"].values()
    unlinked = Party(web.spot, {4: there["IPAddress"], 6: there["GlobalIPv6Address"]})
    lee = run(engine, traffic, "lee", "app", "--link", "db")  # what is opened after it has been looked at
    await_open(traffic, lee, db)
    assert traffic.surprises(ways(unlinked, db, "")) == []


@both_engines
def test_links_outlive_weft_and_dockerd(private_engine: Engine, private_weft: Weft, traffic: Traffic) -> None:
    engine, weft = private_engine, private_weft
    network(engine)
    db = run(engine, traffic, "db", "app", *EXPOSED)
    web = run(engine, traffic, "web", "app", "--link", "db")
    await_open(traffic, web, db)
    weft.kill()
    assert opened(traffic, web, db)
    weft.start()
    assert opened(traffic, web, db)
    assert traffic.surprises(ways(db, web, "")) == []
    engine.restart()
    for name in ("web", "db"):
        engine.docker("start", name)
    db, web = party(engine, traffic, "db"), party(engine, traffic, "web")
    await_open(traffic, web, db)  # whose events stream had to be found again


def test_the_endpoint_s_option_says_the_same_without_docker_s_socket(private_engine: Engine, traffic: Traffic) -> None:
    engine = private_engine
    with Weft(engine.node, settings={"DOCKER_HOST": "unix:///run/nobody.sock"}):
        network(engine)
        db = run(engine, traffic, "db", "app", "--ip", "10.7.1.5", "--ip6", "fd07:1::5")
        linked = f"name=app,driver-opt=weft.link=10.7.1.5:{PORT}/tcp"
        engine.docker("run", "-d", "--name", "web", "--network", linked, NAME)
        web = party(engine, traffic, "web")
        knocks = [
            Knock(web.spot, "10.7.1.5", "tcp", wanted=f"{OPEN} from {web.addresses[4]}"),
            Knock(web.spot, "10.7.1.5", "udp"),
            Knock(web.spot, "fd07:1::5", "tcp"),
            *ways(db, web, ""),
        ]
        assert traffic.surprises(knocks) == []
        engine.clean()


def test_three_tiers_with_compose(engine: Engine, weft: Weft, neighbour: Neighbour, tmp_path: Path) -> None:
    """The file of docs/ as it lies there, with the test's image for busybox."""
    (tmp_path / "docker-compose.yml").write_text((REPO / "docs/three-tier/compose.yaml").read_text(encoding="utf-8"))
    (tmp_path / ".env").write_text(f"IMAGE={NAME}\n")
    engine.compose("-p", "shop", "up", "-d", cwd=tmp_path)

    def answers(source: str, host: str, port: int) -> bool:
        url = f"http://{host}:{port}/nothing"  # httpd says 404: it is there
        said = engine.docker("exec", f"shop_{source}_1", "sh", "-c", f"wget -qO- -T 1 {url} 2>&1; true", check=False)
        return "404" in said

    try:
        await_(lambda: answers("web", "app", 8000), SOON, "web -> app")
        await_(lambda: answers("app", "database", 3306), SOON, "app -> db by its alias")
        assert not answers("web", "db", 3306)
        assert not answers("app", "web", 80)
        assert not answers("db", "app", 8000)
        assert not answers("db", "web", 80)
        url = f"http://{neighbour.node_v4}:8080/nothing"
        assert "404" in neighbour.run(image.busybox(), "wget", "-qO-", "-T", "2", url, check=False).stderr
    finally:
        engine.compose("-p", "shop", "down", "-t", "0", cwd=tmp_path)
