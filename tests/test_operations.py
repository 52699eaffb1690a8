"""What a call costs, in operations: as much with 300 endpoints on the host as with 10. Seconds belong to bench/.

What other threads do after a call is theirs: the reconciler removes links, the announcer tells of addresses.
"""

import os
import secrets
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv6Interface

import pytest

from drivers.announce import THREAD as ANNOUNCER
from tests.crash.host import Body, CrashHost, crash_host
from tests.lab.wait import await_

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's"),
]

ADOPTED = "br-ops"
SUBNET4, SUBNET6 = IPv4Interface("10.9.0.0/16"), IPv6Interface("fd00:9::/64")
FEW = 10
ANNOUNCED = Counter({"store read 1": 1, "netlink get 30 0": 2})
"""What the announcer does for a container: is it joined, and does the host know its addresses?"""
Operations = dict[str, list[str]]


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashHost]:
    """Yield a host with a bridge of its operator's, and a weft that keeps a journal."""
    with crash_host(tmp_path_factory.mktemp("count"), "count") as host:
        host.sh(f"ip link add {ADOPTED} type bridge; ip link set {ADOPTED} up")
        host.start()
        yield host


class Client:
    """Docker, with one network: makes the calls of a container's start and stop."""

    def __init__(self, host: CrashHost, generic: dict[str, str], wishes: dict[str, str]) -> None:
        self.host = host
        self.network = secrets.token_hex(32)
        self.made = 0
        self._wishes = wishes
        generic = {"com.docker.network.advertise_addr_nmsgs": "1"} | generic
        rows = [
            [
                {
                    "AddressSpace": "LocalDefault",
                    "Pool": str(subnet),
                    "Gateway": f"{subnet.ip + 1}/{subnet.network.prefixlen}",
                }
            ]
            for subnet in (SUBNET4, SUBNET6)
        ]
        options = {"com.docker.network.enable_ipv6": True, "com.docker.network.generic": generic}
        body = {"NetworkID": self.network, "Options": options, "IPv4Data": rows[0], "IPv6Data": rows[1]}
        host.ask("CreateNetwork", body)

    def calls(self) -> Iterator[tuple[str, Body]]:
        """Yield the calls of a start and of a stop of one more container."""
        self.made += 1
        ids = {"NetworkID": self.network, "EndpointID": secrets.token_hex(32)}
        at4, at6 = SUBNET4 + 1 + self.made, SUBNET6 + 1 + self.made
        interface = {"Address": str(at4), "AddressIPv6": str(at6), "MacAddress": ""}
        ports: dict[str, list[object]] = {
            "com.docker.network.endpoint.exposedports": [],
            "com.docker.network.portmap": [],
        }
        key = f"/var/run/docker/netns/{ids['EndpointID'][:12]}"
        yield "CreateEndpoint", {**ids, "Interface": interface, "Options": ports | self._wishes}
        yield "Join", {**ids, "SandboxKey": key, "Options": ports}
        yield "ProgramExternalConnectivity", {**ids, "Options": ports}
        yield "EndpointOperInfo", ids
        yield "RevokeExternalConnectivity", ids
        yield "Leave", ids
        yield "DeleteEndpoint", ids

    def populate(self, endpoints: int) -> None:
        """Have so many endpoints joined."""
        while len(self.host.read("/v1/endpoints")) < endpoints:
            for (method, body), _ in zip(self.calls(), range(3), strict=False):
                self.host.ask(method, body)

    def await_announced(self) -> None:
        """Wait until all that were made and are there have been announced, at the price of one each."""
        price = Counter({what: times * self.made for what, times in ANNOUNCED.items()})

        def paid() -> bool:
            return Counter(what for thread, what in self.host.work() if thread == ANNOUNCER) == price

        await_(paid, 20, f"the announcer to do {price}")

    def counted(self) -> Operations:
        """Start and stop one more container; return what each call did, and what was left to the reconciler."""
        done: Operations = {}
        before = 0
        for method, body in self.calls():
            before = len(self.host.work())
            self.host.ask(method, body)
            lines = self.host.work()[before:]
            done[method] = sorted(what for thread, what in lines if thread not in {"reconciler", ANNOUNCER})
        await_(lambda: "store commit" in self.deferred(before), 20, "the link to be deleted")
        done["later"] = self.deferred(before)
        return done

    def deferred(self, since: int) -> list[str]:
        """Return what the reconciler has changed."""
        lines = [what for thread, what in self.host.work()[since:] if thread == "reconciler"]
        return [what for what in lines if what.partition(" ")[2].startswith(("change", "commit"))]


ON_OWN: dict[str, str] = {}
ON_ADOPTED = {"com.docker.network.bridge.name": ADOPTED}
APART = {"com.docker.network.bridge.enable_icc": "false"}
LINKED = {"weft.link": "10.9.0.9:80/tcp,[fd00:9::9]:53-55/udp"}


@pytest.mark.parametrize(
    ("generic", "wishes", "many"),
    [(ON_OWN, {}, 300), (ON_ADOPTED, {}, 60), (APART, LINKED, 60)],
    ids=["own bridge", "adopted bridge", "kept apart, with a link"],
)
def test_a_container_costs_the_same_among_many(
    host: CrashHost, generic: dict[str, str], wishes: dict[str, str], many: int
) -> None:
    client = Client(host, generic, wishes)
    client.populate(FEW)
    client.await_announced()
    host.await_healthy()
    few = client.counted()
    client.populate(many)
    host.await_healthy()
    before = len(host.work())
    among_many = client.counted()
    assert among_many == few
    # whoever did it: nothing that was looked at meanwhile was as long as the list of endpoints
    looks = [what.split() for _, what in host.work()[before:] if what.startswith(("netlink dump", "store read"))]
    assert max(int(seen) for *_, seen in looks) <= FEW
    assert few["CreateEndpoint"].count("netlink change 16") == 2
    assert few["CreateEndpoint"].count("store commit") == 2
    assert few["later"].count("netlink change 17") == 1


def test_the_counters_of_status_are_what_the_journal_has(host: CrashHost) -> None:
    client = Client(host, ON_OWN, {})
    client.populate(1)
    client.await_announced()

    def counters() -> Counter[str]:
        return Counter(host.read("/v1/status")["operations"])

    def cost_of_status() -> Counter[str]:
        before = counters()
        return counters() - before

    await_(lambda: cost_of_status() == cost_of_status(), 20, "a weft that does nothing by itself")
    own, before, since = cost_of_status(), counters(), len(host.work())
    for (method, body), _ in zip(client.calls(), range(3), strict=False):
        host.ask(method, body)
    client.await_announced()
    lines = [what for _, what in host.work()[since:]]
    counted = counters() - before - own
    told = Counter(what.partition(" ")[0] for what in lines if not what.startswith("store read"))
    assert counted == told
    assert told["netlink"] >= 3
    assert told["store"] >= 4
