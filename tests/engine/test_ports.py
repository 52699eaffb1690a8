"""Published ports on real engines: a case for each row of docs/ports.md, and what happens around them.

tests/matrix/test_ports.py tries every cell of the table; here is what needs a real dockerd.
"""

import errno
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.lab import image
from tests.lab.engine import Engine
from tests.lab.matrix import both_engines
from tests.lab.net import LAN_SIDE, NODE_SIDE, RUN_NETNS, HasNetns, Neighbour
from tests.lab.process import family
from tests.lab.wait import await_
from tests.lab.weft import Weft
from tests.matrix.ports_traffic import talk
from tests.matrix.traffic import OPEN, REFUSED, SILENT, Knock, Spot, Traffic

pytestmark = pytest.mark.engine

HERE, HERE6 = (str(side.ip) for side in NODE_SIDE)
THERE, THERE6 = (str(side.ip) for side in LAN_SIDE)
GATEWAY: Final = "10.41.0.1"


@dataclass(frozen=True, slots=True)
class Yard:
    """A weft network called meadow, the host and the neighbour as clients."""

    engine: Engine
    weft: Weft
    traffic: Traffic
    host: Spot
    lan: Spot

    def start(self, name: str, *args: str, serve: tuple[int, ...] = (), network: str = "meadow") -> str:
        """Start a container that answers on ports, and return its id."""
        return self.serve(self.run(name, *args, network=network), *serve)

    def run(self, name: str, *args: str, network: str = "meadow") -> str:
        """`docker run -d`; returns the name."""
        self.engine.docker("run", "-d", "--name", name, "--network", network, *args, image.NAME)
        return name

    def serve(self, name: str, *ports: int) -> str:
        """Let a running container answer."""
        pid = self.engine.api("GET", f"/containers/{name}/json")["State"]["Pid"]
        talk(self.traffic.spot(self.engine.node.path(f"/proc/{pid}/ns/net"), name), ports)
        return name

    def refused(self, name: str, *args: str, network: str = "meadow") -> str:
        """Start a container in vain, and return what Docker says."""
        told = self.engine.docker("run", "-d", "--name", name, "--network", network, *args, image.NAME, check=False)
        assert not self.engine.api("GET", f"/containers/{name}/json")["State"]["Running"], told
        return told

    def published(self) -> list[dict[str, Any]]:
        """Return what `weft port ls` says."""
        told: list[dict[str, Any]] = json.loads(self.weft.cli("port", "ls", "--json").stdout)
        return told

    def endpoint(self, name: str) -> str:
        """Return the id of a container's only endpoint."""
        (on,) = self.engine.api("GET", f"/containers/{name}/json")["NetworkSettings"]["Networks"].values()
        return str(on["EndpointID"])

    def tcp(self, port: int, wanted: str = f"{OPEN} from {THERE} at 80", *, to: str = HERE) -> Knock:
        """Return the neighbour's attempt on a port."""
        return Knock(self.lan, to, "tcp-talk", port, wanted)

    def udp(self, port: int, at: int) -> Knock:
        """Return the neighbour's attempt on a UDP port."""
        return Knock(self.lan, HERE, "udp-talk", port, f"{OPEN} from {THERE} at {at}")

    def own(self, port: int, wanted: str, *, to: str = HERE) -> Knock:
        """Return the host's attempt on a port."""
        return Knock(self.host, to, "tcp-talk", port, wanted)

    def has(self, *knocks: Knock) -> None:
        """Assert what is seen of attempts, all made at once."""
        assert self.traffic.surprises(knocks) == []


@pytest.fixture
def yard(engine: Engine, weft: Weft, neighbour: Neighbour) -> Iterator[Yard]:
    """Make the network."""
    engine.docker("network", "create", "-d", "weft", "--subnet", "10.41.0.0/24", "meadow")
    with Traffic() as traffic:
        yield Yard(engine, weft, traffic, spot(traffic, engine.node), spot(traffic, neighbour))


def spot(traffic: Traffic, place: HasNetns) -> Spot:
    return traffic.spot(RUN_NETNS / place.netns, place.netns)


# -- a case for each row --------------------------------------------------------------------------------------------


@both_engines
def test_a_single_port(yard: Yard) -> None:
    yard.start("web", "-p", "8080:80", serve=(80,))
    yard.has(
        yard.tcp(8080),
        yard.own(8080, f"{OPEN} from {HERE} at 80"),
        yard.own(8080, f"{OPEN} from {GATEWAY} at 80", to="127.0.0.1"),
        yard.own(8080, f"{OPEN} from {GATEWAY} at 80", to="::1"),  # the relay
        yard.tcp(8080, f"{OPEN} from {GATEWAY} at 80", to=HERE6),
        yard.tcp(8081, REFUSED),
    )


@both_engines
def test_udp(yard: Yard) -> None:
    yard.start("dns", "-p", "5353:53/udp", serve=(53,))
    yard.has(yard.udp(5353, 53), yard.tcp(5353, REFUSED))


@both_engines
def test_a_range_and_a_shifted_range_keep_their_partners(yard: Yard) -> None:
    ports = (8100, 8103, 30000, 30500, 30999)
    yard.start("web", "-p", "8100-8103:8100-8103/udp", "-p", "20000-20999:30000-30999/udp", serve=ports)
    yard.has(*(yard.udp(port, port) for port in ports[:2]), *(yard.udp(port - 10000, port) for port in ports[2:]))
    assert sorted((one["host"], one["container_ports"]) for one in yard.published() if one["host"][0] == "0") == [
        ("0.0.0.0:20000-20999", "30000-30999"),
        ("0.0.0.0:8100-8103", "8100-8103"),
    ]


@both_engines
def test_chosen_ports(yard: Yard) -> None:
    """By weft alone, among some twice over, and with -P for whatever the image exposes."""
    yard.start("web", "-p", "80", "-p", "8400-8401:80", "-p", "8400-8401:81", serve=(80, 81))
    yard.start("all", "-P", "--expose", "80", "--expose", "53/udp", serve=(80, 53))
    found = {
        (one["container"], one["container_ports"], one["transport"], int(one["host"].rpartition(":")[2]))
        for one in yard.published()
    }
    ports = [port for *_, port in found]
    assert len(set(ports)) == len(ports) == 5
    assert {8400, 8401} < set(ports)
    yard.has(
        *(
            Knock(yard.lan, HERE, f"{transport}-talk", port, f"{OPEN} from {THERE} at {at}")
            for _, at, transport, port in found
        )
    )


@both_engines
def test_bound_to_an_address(yard: Yard) -> None:
    yard.start("web", "-p", f"{HERE}:8080:80", serve=(80,))
    yard.start("two", "-p", "127.0.0.1:8080:80", serve=(80,))  # another address, so no conflict
    yard.has(
        yard.tcp(8080),
        yard.own(8080, f"{OPEN} from {GATEWAY} at 80", to="127.0.0.1"),
        yard.own(8080, REFUSED, to="::1"),
    )


@both_engines
def test_a_port_bound_to_loopback_is_the_hosts_alone(yard: Yard, neighbour: Neighbour) -> None:
    """Also when the neighbour sends to 127.0.0.1 itself: DNAT would take it before anybody asks where it came from."""
    yard.start("web", "-p", "127.0.0.1:8082:80", serve=(80,))
    neighbour.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet")
    neighbour.ip("address", "del", "127.0.0.1/8", "dev", "lo")
    neighbour.ip("route", "add", "127.0.0.1", "via", HERE, "src", THERE)
    served = yard.own(8082, f"{OPEN} from {GATEWAY} at 80", to="127.0.0.1")
    yard.has(served, yard.tcp(8082, REFUSED), yard.tcp(8082, SILENT, to="127.0.0.1"))
    # such packets do arrive: without the guard they would be served
    yard.weft.kill()
    yard.engine.node.beside.run("nft", "flush", "chain", "inet", "weft", "guard")
    yard.has(yard.tcp(8082, OPEN, to="127.0.0.1"))


# -- who has the port -----------------------------------------------------------------------------------------------


@both_engines
def test_a_port_that_a_process_has(yard: Yard, tmp_path: Path) -> None:
    beside = yard.engine.node.beside
    with beside.spawn(image.busybox(), "nc", "-ll", "-p", "8090", "-e", "cat", log=tmp_path / "nc") as process:
        await_(lambda: yard.traffic.seen([yard.own(8090, OPEN)])[0] != REFUSED, 10, "nc to listen")
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        (inside,) = (line.split()[-1] for line in status.splitlines() if line.startswith("NSpid"))
        told = yard.refused("web", "-p", "8089:89", "-p", "8090:80")
        assert "tcp port 8090 of 0.0.0.0 is taken" in told
        pid = inside if yard.engine.node.root is None else process.pid  # weft's /proc is the node's, or the machine's
        assert f"busybox (pid {pid})" in told
        assert yard.published() == []
    yard.engine.docker("start", "web")
    yard.serve("web", 80)
    yard.has(yard.tcp(8090))


@both_engines
def test_a_port_that_another_container_has(yard: Yard) -> None:
    yard.start("web", "-p", "8080-8089:8080-8089", serve=(8085,))
    before = yard.published()
    told = yard.refused("two", "-p", "8085:80", "-p", "8091:80")
    assert f"host port 8085/tcp is published by endpoint {yard.endpoint('web')[:12]}" in told
    assert yard.published() == before
    yard.has(yard.tcp(8085, f"{OPEN} from {THERE} at 8085"), yard.tcp(8091, REFUSED))
    yard.engine.docker("rm", "-f", "web")
    yard.engine.docker("start", "two")
    yard.serve("two", 80)
    yard.has(yard.tcp(8085), yard.tcp(8091))


@both_engines
def test_a_port_that_dockers_own_bridge_has_and_the_other_way_round(yard: Yard) -> None:
    yard.run("dockers", "-p", "8091:80", network="bridge")
    told = yard.refused("web", "-p", "8091:80")
    assert "tcp port 8091 of 0.0.0.0 is taken" in told
    assert "docker" in told.rpartition("is taken")[2]
    yard.start("mine", "-p", "8092:80", serve=(80,))
    assert "8092" in yard.refused("theirs", "-p", "8092:80", network="bridge")
    yard.has(yard.tcp(8092))


@both_engines
def test_a_moved_port_takes_those_along_who_go_on_sending(yard: Yard) -> None:
    """A flow keeps its NAT for as long as packets come; container and host ports differ (moby#53384)."""
    client = yard.lan.make(socket.AF_INET, socket.SOCK_DGRAM)
    client.bind((THERE, 4000))
    client.connect((HERE, 5300))

    def heard() -> str:
        client.send(b"word")
        for key, _ in yard.traffic.selector.select(0.01):
            key.data()
        return client.recv(128).decode()

    with client:
        for name, port in (("ann", 53), ("bob", 54), ("cid", 53)):
            yard.start(name, "-p", f"5300:{port}/udp", serve=(port,))
            await_(lambda wanted=f"word {THERE} at {port}": heard() == wanted, 5, f"an answer of {name}")  # type: ignore[misc]
            yard.engine.docker("rm", "-f", name)
            with pytest.raises((BlockingIOError, ConnectionRefusedError)):  # it goes on sending, and nobody answers
                heard()


# -- scale, crashes -------------------------------------------------------------------------------------------------


@both_engines
def test_ten_thousand_ports_are_one_element_and_no_process(yard: Yard) -> None:
    def rules() -> list[str]:
        text = yard.engine.node.beside.run("nft", "--stateless", "list", "table", "inet", "weft").stdout
        return [line for line in text.splitlines() if "comment" not in line and "elements" not in line]

    def processes() -> int:
        names = [Path(f"/proc/{pid}/comm").read_text(encoding="utf-8") for pid in family(yard.engine.node.pid)]
        return sum("proxy" in name for name in names)

    yard.run("before")
    before, proxies = rules(), processes()
    yard.start("media", "-p", "10000-19999:10000-19999/udp", serve=(10000, 15000, 19999))
    yard.has(*(yard.udp(port, port) for port in (10000, 15000, 19999)))
    assert rules() == before
    assert processes() == proxies
    elements = yard.engine.node.beside.run("nft", "list", "map", "inet", "weft", "range4").stdout
    assert elements.count("udp . ") == elements.count("10000-19999") == 1
    assert [one["host"] for one in yard.published()] == ["0.0.0.0:10000-19999"]  # too long for the relay


@both_engines
def test_ports_outlive_weft_and_are_held_again(yard: Yard) -> None:
    yard.start("web", "-p", "8080:80", serve=(80,))

    def bind() -> int:
        with yard.host.make(socket.AF_INET, socket.SOCK_STREAM) as sock:
            return sock.connect_ex((HERE, 9)) and _bind(sock, 8080)

    assert bind() == errno.EADDRINUSE
    yard.weft.kill()
    yard.has(yard.tcp(8080), yard.own(8080, f"{OPEN} from {GATEWAY} at 80", to="127.0.0.1"))
    assert bind() == 0
    yard.weft.start()
    assert await_(lambda: bind() == errno.EADDRINUSE, 10, "the port to be held again")
    yard.has(yard.tcp(8080), yard.own(8080, f"{OPEN} from {GATEWAY} at 80", to="::1"))


def _bind(sock: socket.socket, port: int) -> int:
    try:
        sock.bind(("0.0.0.0", port))  # noqa: S104 - what another program would do
    except OSError as error:
        return error.errno or 0
    return 0


@both_engines
def test_ports_come_back_with_the_power(private_engine: Engine, private_weft: Weft) -> None:
    node = private_engine.node
    with Neighbour(node) as neighbour, Traffic() as traffic:
        yard = Yard(private_engine, private_weft, traffic, spot(traffic, node), spot(traffic, neighbour))
        private_engine.docker("network", "create", "-d", "weft", "--subnet", "10.41.0.0/24", "meadow")
        yard.start("web", "--restart=always", "-p", "8080:80", serve=(80,))
        yard.has(yard.tcp(8080))
        private_weft.cli("port", "add", "web", "8081:80")
        node.power_off()
        node.up()
        neighbour.plug()
        private_weft.start()
        private_engine.start()
        await_(yard.published, 30, "web to come back")
        yard.serve("web", 80)
        yard.has(yard.tcp(8080), yard.tcp(8081, REFUSED))  # what was added live was for that life


# -- weft port, weft.publish.allow ----------------------------------------------------------------------------------


@both_engines
def test_ports_are_seen_added_and_removed(yard: Yard) -> None:
    yard.start("web", "-p", "8080:80", serve=(80,))
    endpoint = yard.endpoint("web")
    row = {"endpoint": endpoint, "container": "web", "container_ports": "80", "transport": "tcp"}
    of_docker = [row | {"host": host, "by": "docker"} for host in ("0.0.0.0:8080", "[::]:8080")]

    def hosts() -> set[tuple[str, str]]:
        return {(one["host"], one["by"]) for one in yard.published()}

    def subset(one: dict[str, Any]) -> dict[str, Any]:
        return {key: one[key] for key in (*row, "host", "by")}

    assert [subset(one) for one in yard.published()] == of_docker
    told = yard.weft.cli("port", "ls").stdout.splitlines()
    assert told[0].split() == ["ENDPOINT", "CONTAINER", "HOST", "CONTAINER", "PORTS", "BY"]
    assert told[1].split() == [endpoint[:12], "web", "0.0.0.0:8080", "80/tcp", "docker"]

    added = json.loads(yard.weft.cli("port", "add", "web", "8888:80", "--json").stdout)
    assert {(one["host"], one["by"]) for one in added} == {("0.0.0.0:8888", "command"), ("[::]:8888", "command")}
    yard.weft.cli("port", "add", endpoint[:12], f"{HERE}:8889:80/tcp")
    yard.has(yard.tcp(8080), yard.tcp(8888), yard.tcp(8889))
    before = hosts()
    assert len(before) == 5
    yard.weft.stop()
    yard.weft.start()
    assert hosts() == before
    yard.has(yard.tcp(8888), yard.tcp(8889))

    yard.weft.cli("port", "rm", "web", "8888:80")
    yard.weft.cli("port", "rm", "web", "8080:80")  # Docker's own go as well
    assert hosts() == {(f"{HERE}:8889", "command")}
    yard.has(yard.tcp(8888, REFUSED), yard.tcp(8080, REFUSED), yard.tcp(8889))
    for args, words in (
        (("rm", "web", "8888:80"), "does not publish 8888:80/tcp; see `weft port ls`"),
        (("add", "web", "8889:81"), "host port 8889/tcp is published by endpoint"),
        (("add", "nobody", "8890:80"), "nobody"),
        (("add", "web", "80:http"), "is no published port"),
    ):
        done = yard.weft.cli("port", *args, check=False)
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert hosts() == {(f"{HERE}:8889", "command")}

    yard.engine.docker("stop", "web")
    assert yard.published() == []
    yard.engine.docker("start", "web")
    yard.serve("web", 80)
    assert hosts() == {(one["host"], "docker") for one in of_docker}
    yard.has(yard.tcp(8080), yard.tcp(8888, REFUSED), yard.tcp(8889, REFUSED))


@both_engines
def test_who_may_use_a_port(yard: Yard) -> None:
    """By network, and by endpoint in both spellings; NAT and relay; the host itself always may."""
    allow = "weft.publish.allow"
    yard.engine.docker("network", "create", "-d", "weft", "-o", f"{allow}=203.0.113.0/24", "shut")
    lan = f'"driver-opt={allow}=192.0.2.0/24,2001:db8:2::/64"'
    yard.start("none", "-p", "8080:80", serve=(80,), network="shut")
    yard.start("some", "-p", "8081:80", serve=(80,), network=f"name=shut,{lan}")
    yard.run("more", "-p", "8082:80", network="shut")
    yard.engine.docker("network", "connect", "--driver-opt", f"{allow}={THERE}", "meadow", "more")  # sorts before
    yard.serve("more", 80)
    yard.has(
        yard.tcp(8080, SILENT),
        yard.tcp(8080, REFUSED, to=HERE6),
        yard.tcp(8081),
        yard.tcp(8081, OPEN, to=HERE6),
        yard.tcp(8082),
        yard.tcp(8082, REFUSED, to=HERE6),
        *(yard.own(port, OPEN, to=to) for port in (8080, 8081, 8082) for to in (HERE, "127.0.0.1", "::1", HERE6)),
    )
