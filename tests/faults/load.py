"""Many containers' lives at once: clients that start and stop containers on shared networks, each as dockerd does.

Addresses are weft's own IPAM's, so that each is leased, used and given back; every fifth container publishes a port,
every seventh is on a second network, too.
"""

import ipaddress
import json
import statistics
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Self

from tests.lab.process import children
from tests.lab.wait import await_
from tests.lab.weft import Weft
from tests.libnetwork import Container, Libnetwork, Network
from tests.libnetwork.sandbox import Interface
from tests.libnetwork.wire import DIALECTS, post

SPACE = "weft-local"
ALIVE = 4  # containers that a client has at once
SETTLE_SECONDS = 60


class Caller:
    """Makes calls, and keeps how long each took, by its method."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    def call(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Make one call; raises :class:`tests.libnetwork.CallRefusedError`."""
        begin = time.perf_counter()
        answer = post(self._socket, DIALECTS["28.5.2"], method, body, 60)
        self.seconds[method].append(time.perf_counter() - begin)
        return answer


class Client(Libnetwork):
    """One dockerd of several, as it were; what it calls is timed, and not kept."""

    def __init__(self, socket: Path, netns: str, caller: Caller) -> None:
        super().__init__(socket, netns=netns)
        self._caller = caller

    def call(self, method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make one call."""
        return self._caller.call(method, body or {})


class Leases(set[IPv4Address | IPv6Address]):
    """The addresses that are leased now, of all clients: no address twice."""

    def __init__(self, pool: str, caller: Caller) -> None:
        super().__init__()
        self._pool = pool
        self._caller = caller
        self._lock = threading.Lock()

    def take(self) -> Interface:
        """Lease an address; fail if somebody has it."""
        said = self._caller.call("IpamDriver.RequestAddress", {"PoolID": self._pool, "Address": "", "Options": {}})
        found = ipaddress.ip_interface(said["Address"])
        with self._lock:
            assert found.ip not in self, f"{found} was given out twice"
            self.add(found.ip)
        return found

    def __isub__(self, given_back: object) -> Self:
        """Give addresses back."""
        assert isinstance(given_back, set)
        for address in given_back:
            with self._lock:
                self.discard(address)
            self._caller.call("IpamDriver.ReleaseAddress", {"PoolID": self._pool, "Address": str(address)})
        return self


class Leased(Network):
    """A network whose addresses weft's IPAM driver gives out."""

    def take(self, version: int, wanted: str | None) -> Interface | None:
        """Lease an address of IPv4; there is no IPv6 here."""
        assert wanted is None
        assert isinstance(self.taken, Leases)
        return self.taken.take() if version == 4 else None


class Load:
    """Networks on a host, and clients that let containers live on them."""

    def __init__(self, weft: Weft, *, networks: int, clients: int) -> None:
        self.weft = weft
        self.caller = Caller(weft.socket)
        self._clients = clients
        self._maker = Client(weft.socket, weft.node.netns, self.caller)
        self.networks = [self._network(number) for number in range(networks)]
        self.failures: list[BaseException] = []

    def _network(self, number: int) -> Leased:
        """``docker network create --ipam-driver weft``."""
        asked = {"AddressSpace": SPACE, "Pool": f"10.200.{number}.0/24", "SubPool": "", "Options": {}, "V6": False}
        pool = self.caller.call("IpamDriver.RequestPool", asked)
        wants = {"RequestAddressType": "com.docker.network.gateway"}
        gateway = self.caller.call(
            "IpamDriver.RequestAddress", {"PoolID": pool["PoolID"], "Address": "", "Options": wants}
        )
        ident = f"{number:03x}" + "5" * 61
        row = {"AddressSpace": SPACE, "Pool": pool["Pool"], "Gateway": gateway["Address"]}
        body = {"NetworkID": ident, "Options": {"com.docker.network.generic": {}}, "IPv4Data": [row], "IPv6Data": []}
        self.caller.call("NetworkDriver.CreateNetwork", body)
        return Leased(ident, f"load{number}", internal=False, taken=Leases(pool["PoolID"], self.caller))

    def round(self, lives: int) -> None:
        """Let so many containers live and die, and wait until weft has put everything away; raises what failed."""
        share = [range(first, lives, self._clients) for first in range(self._clients)]
        with ThreadPoolExecutor(self._clients) as pool:
            for done in [pool.submit(self._client, numbers) for numbers in share]:
                done.result()
        await_(self.is_put_away, SETTLE_SECONDS, f"nothing to be left: {self.left()}")

    def _client(self, numbers: Iterable[int]) -> None:
        with ExitStack() as stack:
            docker = stack.enter_context(Client(self.weft.socket, self.weft.node.netns, self.caller))
            alive: deque[Container] = deque()
            for number in numbers:
                network, other = (self.networks[(number + more) % len(self.networks)] for more in (0, 3))
                also = [other] if number % 7 == 0 else []
                publish = ["80"] if number % 5 == 0 else []
                alive.append(docker.start_container(network, *also, publish=publish))
                if len(alive) > ALIVE:
                    alive.popleft().stop()
            while alive:
                alive.popleft().stop()
            assert not docker.ignored, docker.ignored[:3]

    # -- what is left

    def left(self) -> Mapping[str, object]:
        """Return what is there beside the networks: nothing, once all containers are gone."""
        node = self.weft.node
        shown = json.loads(node.run("ip", "-j", "link", "show", "group", "22511").stdout)
        elements = node.run("nft", "list", "table", "inet", "weft").stdout
        pools = json.loads(self.weft.cli("pool", "ls", "--json").stdout)
        return {
            "endpoints": json.loads(self.weft.cli("endpoint", "ls", "--json").stdout),
            "ports": json.loads(self.weft.cli("port", "ls", "--json").stdout),
            "leases": [(one["subnet"], one["used"]) for one in pools if one["used"] != 1],  # the gateway's
            "links": [one["ifname"] for one in shown if one and not one["ifname"].startswith("wfb")],
            "elements": [line for line in elements.splitlines() if _of_endpoint(line)],
            "neighbours": [
                line for line in node.run("ip", "neighbour").stdout.splitlines() if "PERMANENT" in line.split()
            ],
        }

    def is_put_away(self) -> bool:
        """Tell whether nothing is left, and weft finds nothing wrong."""
        return not any(self.left().values()) and self.weft.cli("status", check=False).returncode == 0

    def remove(self) -> None:
        """``docker network rm`` of them all; nothing of weft's is left then."""
        for network in self.networks:
            assert isinstance(network.taken, Leases)
            assert not network.taken
            self.caller.call("NetworkDriver.DeleteNetwork", {"NetworkID": network.id})

    def memory(self) -> float:
        """Return what weft's worker alone has of the memory, in MB: what is given back to the kernel is not counted."""
        (worker,) = children(self.weft.pid)
        text = Path(f"/proc/{worker}/smaps_rollup").read_text(encoding="ascii")
        return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")) / 1024

    def told(self) -> str:
        """Return a table of milliseconds, by method."""
        rows = [f"{'milliseconds':44} {'calls':>6} {'p50':>7} {'p90':>7} {'p99':>7} {'most':>7}"]
        for method, seconds in sorted(self.caller.seconds.items()):
            rows.append(
                f"{method:44} {len(seconds):6} " + " ".join(f"{one * 1000:7.1f}" for one in percentiles(seconds))
            )
        return "\n".join(rows)


def percentiles(seconds: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the median, the 90th and 99th percentile, and the longest."""
    if len(seconds) < 2:
        return (seconds[0],) * 4
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return cuts[49], cuts[89], cuts[98], max(seconds)


def _of_endpoint(line: str) -> bool:
    """Tell whether a line of nft's has an element with the mark of an endpoint."""
    return any(one.split('"')[0].split(":")[-1] for one in line.split('"weft:')[1:])
