"""The engine and its containers: which call comes when, and what follows a failure. See `tests.libnetwork`."""

import base64
import ipaddress
import itertools
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Final, Self, TypedDict, Unpack

from tests.lab.process import CommandFailedError
from tests.libnetwork.memory import Endpoint, Network
from tests.libnetwork.sandbox import Interface, Plug, Sandbox
from tests.libnetwork.wire import DIALECTS, CallRefusedError, port_options, post

CDN: Final = "com.docker.network"
_SANDBOXES: Final = itertools.count(1)  # of all engines that this process plays: their names are the machine's


class Wishes(TypedDict, total=False):
    """What ``docker run`` and ``docker network connect`` may ask of an endpoint."""

    ip: str
    ip6: str
    mac: str
    driver_opts: Mapping[str, str]


class Libnetwork:
    """One engine, speaking to the plugin on ``socket``; ``netns`` names the namespace the plugin makes its links in.

    ``calls`` holds every call with its answer, ``ignored`` the failures that dockerd would ignore too, ``made`` every
    endpoint that was ever begun, by its id.
    """

    def __init__(self, socket: Path, *, netns: str | None = None, engine: str = "28.5.2", timeout: float = 60) -> None:
        self.socket = socket
        self.netns = netns
        self.dialect = DIALECTS[engine]
        self.timeout = timeout
        self.calls: list[tuple[str, dict[str, Any] | None, dict[str, Any]]] = []
        self.ignored: list[Exception] = []
        self.containers: list[Container] = []
        self.made: dict[str, Endpoint] = {}
        self.numbers = itertools.count(1)
        self._capabilities: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for container in list(self.containers):
            container.abandon()

    def call(self, method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make one call (``None``: without a body, as dockerd repeats one) and return the answer.

        Raises :class:`CallRefusedError` for an answer that is an error.
        """
        answer: dict[str, Any] = {}
        try:
            answer = post(self.socket, self.dialect, method, body, self.timeout)
        finally:
            self.calls.append((method, body, answer))
        return answer

    def tell(self, method: str, body: dict[str, Any]) -> None:
        """Make a call whose failure dockerd ignores."""
        try:
            self.call(method, body)
        except (CallRefusedError, OSError) as failed:
            self.ignored.append(failed)

    def capabilities(self) -> dict[str, Any]:
        """Return what the driver said of itself at its first use, which is now if there was none."""
        if self._capabilities is None:
            answers = {method: self.call(method) for method in self.dialect.first_use}
            self._capabilities = answers["NetworkDriver.GetCapabilities"]
        return self._capabilities

    def asked(self, since: int = 0) -> list[str]:
        """Return the names of the calls made, without their protocol; ``since``: a length of ``calls`` before."""
        return [method.rpartition(".")[2] for method, _, _ in self.calls[since:]]

    def create_network(
        self,
        *,
        subnet: str | Sequence[str] | None = None,
        subnet6: str | None = None,
        gateway: str | None = None,
        gateway6: str | None = None,
        aux: Mapping[str, str] | None = None,
        internal: bool = False,
        ipv4: bool = True,
        options: Mapping[str, str] | None = None,
        ipam: str = "default",
        name: str = "",
    ) -> Network:
        """``docker network create``: a subnet of its own unless one is given, IPv6 only if ``subnet6`` is.

        ``gateway`` and ``aux`` are for the first subnet. After a failure nothing follows: no DeleteNetwork (all
        engines).
        """
        number = next(self.numbers)
        network = Network(secrets.token_hex(32), name or f"n{number:03}", internal, ipam)
        switches: dict[str, Any] = {f"{CDN}.enable_ipv6": subnet6 is not None, f"{CDN}.generic": dict(options or {})}
        switches |= {f"{CDN}.enable_ipv4": ipv4} if self.dialect.says_ipv4 else {}
        switches |= {f"{CDN}.internal": True} if internal else {}
        skips: dict[str, Any] = {}
        if self.capabilities().get("GwAllocChecker") and self.dialect.checks_gateway:
            skips = self.call("NetworkDriver.GwAllocCheck", {"Options": switches})
        rows4: list[dict[str, Any]] = []
        rows6: list[dict[str, Any]] = []
        with ExitStack() as undo:
            undo.callback(self._give_back, network)
            if ipam == "null":
                rows4.append({"AddressSpace": "null", "Pool": "0.0.0.0/0"})
            else:
                own = f"10.{200 + number // 256}.{number % 256}.0/24"
                subnets = [subnet] if isinstance(subnet, str) else subnet or [own]
                for at, text in enumerate(subnets if ipv4 else ()):
                    rows4.append(self._pool(network, text, None if at else gateway, {} if at else aux or {}))
                if subnet6 is not None:
                    rows6.append(self._pool(network, subnet6, gateway6, {}))
            for rows, skip in ((rows4, "SkipIPv4"), (rows6, "SkipIPv6")):
                for row in rows if skips.get(skip) else ():
                    row.pop("Gateway", None)
            body = {"NetworkID": network.id, "Options": switches, "IPv4Data": rows4, "IPv6Data": rows6}
            self.call("NetworkDriver.CreateNetwork", body)
            undo.pop_all()
        return network

    def _pool(self, network: Network, subnet: str, gateway: str | None, aux: Mapping[str, str]) -> dict[str, Any]:
        """Return the row of a pool: of Docker's own IPAM, or of weft's, which is asked for it and for the gateway."""
        row = network.add_pool(subnet, gateway, aux)
        if network.ipam != "weft":
            return row
        wish = {"AddressSpace": "weft-local", "Pool": subnet, "SubPool": "", "Options": {}, "V6": ":" in subnet}
        pool = self.call("IpamDriver.RequestPool", wish)["PoolID"]
        network.reserved[pool] = ""
        asked = {"PoolID": pool, "Address": gateway or "", "Options": {"RequestAddressType": f"{CDN}.gateway"}}
        given = self.call("IpamDriver.RequestAddress", asked)["Address"]
        network.reserved[pool] = given.partition("/")[0]
        return row | {"AddressSpace": "weft-local", "Gateway": given}

    def _give_back(self, network: Network) -> None:
        """ReleaseAddress of the gateways and ReleasePool, before a DeleteNetwork or after a failure."""
        for pool, gateway in network.reserved.items():
            if gateway:
                self.tell("IpamDriver.ReleaseAddress", {"PoolID": pool, "Address": gateway})
            self.tell("IpamDriver.ReleasePool", {"PoolID": pool})

    def lease(self, network: Network, version: int, wanted: str | None) -> Interface | None:
        """Return an address: of Docker's own IPAM, or RequestAddress of weft's; None if there is no such pool."""
        if network.ipam != "weft":
            return network.take(version, wanted)
        for pool in (pool for pool in network.reserved if (":" in pool) == (version == 6)):
            asked = {"PoolID": pool, "Address": wanted or "", "Options": None}
            return ipaddress.ip_interface(self.call("IpamDriver.RequestAddress", asked)["Address"])
        return None

    def release(self, endpoint: Endpoint) -> None:
        """Give an endpoint's addresses back."""
        for address in endpoint.addresses if endpoint.network.ipam == "weft" else ():
            pool = next(pool for pool in endpoint.network.reserved if (":" in pool) == (address.version == 6))
            self.tell("IpamDriver.ReleaseAddress", {"PoolID": pool, "Address": str(address.ip)})

    def remove_network(self, network: Network) -> None:
        """``docker network rm``: no call while a container is on it; a failure of the call is ignored."""
        assert network.endpoints == 0, f"error while removing network: network {network.name} has active endpoints"
        self._give_back(network)
        self.tell("NetworkDriver.DeleteNetwork", {"NetworkID": network.id})

    def start_container(self, *networks: Network, publish: Sequence[str] = (), **wishes: Unpack[Wishes]) -> "Container":
        """``docker run``: the wishes are for the first network, the others are connected to; ``publish`` as ``-p``.

        A failure is raised after dockerd's own roll-back, and the container is gone.
        """
        container = Container(self, f"ln-{next(_SANDBOXES)}-{os.getpid()}", port_options(publish))
        self.containers.append(container)
        try:
            container.make()
            for network in networks[:1]:
                container.attach(network, wishes, starting=True)
            for network in networks[1:]:
                container.connect(network)
        except BaseException:
            container.stop()
            raise
        return container


class Container(Sandbox):
    """A sandbox and its endpoints; ``run`` runs a program in it."""

    def __init__(self, docker: Libnetwork, netns: str, ports: dict[str, Any]) -> None:
        super().__init__(netns, docker.netns)
        self.docker = docker
        self.ports = ports
        self.endpoints: list[Endpoint] = []
        self.gateway: Endpoint | None = None
        self._numbers: dict[str, itertools.count[int]] = {}

    def endpoint(self, network: Network) -> Endpoint:
        """Return the endpoint on a network."""
        return next(endpoint for endpoint in self.endpoints if endpoint.network is network)

    def address(self, network: Network, version: int = 4) -> IPv4Address | IPv6Address:
        """Return the address on a network."""
        found = self.endpoint(network).address(version)
        assert found is not None, f"no IPv{version} address on {network.name}"
        return found.ip

    def interface(self, network: Network) -> str:
        """Return what the interface on a network is called in here."""
        plug = self.endpoint(network).plug
        assert plug is not None
        return plug.name

    # -- what an operator does

    def connect(self, network: Network, **wishes: Unpack[Wishes]) -> Endpoint:
        """``docker network connect`` of the running container."""
        self._oper_info()
        return self.attach(network, wishes, starting=False)

    def disconnect(self, network: Network) -> None:
        """``docker network disconnect`` of the running container; the gateway moves on to another network."""
        self._oper_info()
        self._detach(self.endpoint(network), running=True)
        self._oper_info()

    def stop(self) -> None:
        """``docker stop``: the gateway's network first; the gateway moves on until none is left."""
        while self.endpoints:
            self._detach(self.gateway or self.endpoints[0], running=False)
        self.abandon()

    kill = stop  # docker kill and a crash make the same calls (20.10.24 to 28.5.2)

    def abandon(self) -> None:
        """Take everything away without a word to the plugin, as a power cut does."""
        for endpoint in self.endpoints:
            self._forget(endpoint)
        self.endpoints, self.gateway = [], None
        if self in self.docker.containers:
            self.docker.containers.remove(self)
        self.remove()

    # -- what libnetwork does

    def attach(self, network: Network, wishes: Wishes, *, starting: bool) -> Endpoint:
        """Make an endpoint, join it, move its link in, give it the gateway; a failure is undone as dockerd undoes it.

        20.10 moves the link of a starting container last, from a hook of runc.
        """
        docker = self.docker
        late = starting and docker.dialect.moves_late
        endpoint = Endpoint(secrets.token_hex(32), network, (), wishes.get("mac", ""))
        network.endpoints += 1
        docker.made[endpoint.id] = endpoint
        with ExitStack() as undo:
            undo.callback(self._release, endpoint)
            for version, wanted in ((4, wishes.get("ip")), (6, wishes.get("ip6"))):
                address = docker.lease(network, version, wanted)
                endpoint.addresses += (address,) if address else ()
            self._create(endpoint, wishes)
            undo.callback(docker.tell, "NetworkDriver.DeleteEndpoint", endpoint.ids)
            endpoint.plug = self._join(endpoint)
            undo.callback(self.unplug, endpoint.plug)
            undo.callback(docker.tell, "NetworkDriver.Leave", endpoint.ids)
            if not late:
                self._plug(endpoint.plug)
            self.endpoints.append(endpoint)
            undo.callback(self.endpoints.remove, endpoint)
            self._move_gateway(undo)
            self._oper_info()
            if late:
                self._plug(endpoint.plug)
                self._oper_info()
            self.route(self.gateway.gateways if self.gateway else ())
            undo.pop_all()
        return endpoint

    def _create(self, endpoint: Endpoint, wishes: Wishes) -> None:
        """CreateEndpoint; an answer that changes what Docker decided is rejected, and the endpoint deleted."""
        options = ({} if endpoint.network.internal else self.ports) | dict(wishes.get("driver_opts", {}))
        if endpoint.mac:
            raw = bytes.fromhex(endpoint.mac.replace(":", ""))
            options |= {f"{CDN}.endpoint.macaddress": base64.b64encode(raw).decode()}
        given = {
            "Address": str(endpoint.address(4) or ""),
            "AddressIPv6": str(endpoint.address(6) or ""),
            "MacAddress": endpoint.mac,
        }
        body = {**endpoint.ids, "Interface": given, "Options": options}
        answer = self.docker.call("NetworkDriver.CreateEndpoint", body).get("Interface") or {}
        if any(value and answer.get(name) for name, value in given.items()):
            self.docker.tell("NetworkDriver.DeleteEndpoint", endpoint.ids)
            raise CallRefusedError("NetworkDriver.CreateEndpoint", f"driver modified interface: {answer}; rolled back")
        endpoint.mac = endpoint.mac or answer.get("MacAddress", "")

    def _join(self, endpoint: Endpoint) -> Plug:
        """Join, and what the answer means; a gateway that is no address fails it, with Leave on 28 only."""
        body = {**endpoint.ids, "SandboxKey": self.key, "Options": self.ports}
        answer = self.docker.call("NetworkDriver.Join", body)
        endpoint.gateways = tuple(answer[key] for key in ("Gateway", "GatewayIPv6") if answer.get(key))
        try:
            for gateway in endpoint.gateways:
                ipaddress.ip_address(gateway)
        except ValueError as error:
            if self.docker.dialect.leaves_after_bad_join:
                self.docker.tell("NetworkDriver.Leave", endpoint.ids)
            raise CallRefusedError("NetworkDriver.Join", f"unable to parse Gateway: {error}") from error
        closed = endpoint.gateways or endpoint.network.internal or answer.get("DisableGatewayService")
        assert closed, "without a gateway, or DisableGatewayService, dockerd would attach docker_gwbridge"
        prefix = answer["InterfaceName"]["DstPrefix"]
        name = f"{prefix}{next(self._numbers.setdefault(prefix, itertools.count()))}"
        routes = tuple(
            (row["Destination"], *(("dev", name) if row["RouteType"] else ("via", row["NextHop"])))
            for row in answer.get("StaticRoutes") or ()
        )
        return Plug(answer["InterfaceName"]["SrcName"], name, endpoint.mac, endpoint.addresses, routes)

    def _plug(self, plug: Plug) -> None:
        try:
            self.plug(plug)
        except CommandFailedError as error:
            raise CallRefusedError("NetworkDriver.Join", f"failed to set up {plug.source!r}: {error}") from error

    def _detach(self, endpoint: Endpoint, *, running: bool) -> None:
        """Revoke, Leave, the link goes back, another gateway is programmed, DeleteEndpoint; failures are ignored."""
        docker = self.docker
        if endpoint is self.gateway:
            docker.tell("NetworkDriver.RevokeExternalConnectivity", endpoint.ids)
        docker.tell("NetworkDriver.Leave", endpoint.ids)
        if endpoint.plug is not None:
            self.unplug(endpoint.plug)
        self.endpoints.remove(endpoint)
        if endpoint is self.gateway:
            self.gateway = self._next_gateway()
            if self.gateway is not None:
                self._program(self.gateway)
            self.route(self.gateway.gateways if self.gateway else ())
        if running:
            self._oper_info()
        docker.tell("NetworkDriver.DeleteEndpoint", endpoint.ids)
        self._release(endpoint)

    def _release(self, endpoint: Endpoint) -> None:
        self.docker.release(endpoint)
        self._forget(endpoint)

    def _forget(self, endpoint: Endpoint) -> None:
        endpoint.network.taken -= {address.ip for address in endpoint.addresses}
        endpoint.network.endpoints -= 1

    def _next_gateway(self) -> Endpoint | None:
        """Return what is to be the gateway: of the endpoints that have one, the first by its network's name."""
        return min((one for one in self.endpoints if one.gateways), key=lambda one: one.network.name, default=None)

    def _move_gateway(self, undo: ExitStack) -> None:
        """Give the gateway to whom it belongs: Revoke of the old one, Program of the new one, which may fail."""
        old, new = self.gateway, self._next_gateway()
        if new is None or new is old:
            return
        undo.callback(setattr, self, "gateway", old)
        if old is not None:
            self.docker.tell("NetworkDriver.RevokeExternalConnectivity", old.ids)
            undo.callback(self._program, old)
        self._program(new, must=True)
        self.gateway = new
        undo.callback(self.docker.tell, "NetworkDriver.RevokeExternalConnectivity", new.ids)

    def _program(self, endpoint: Endpoint, *, must: bool = False) -> None:
        """Program an endpoint that became the gateway; one of an internal network never is programmed."""
        body = {**endpoint.ids, "Options": self.ports | self.docker.dialect.program_options}
        if not endpoint.network.internal:
            act = self.docker.call if must else self.docker.tell
            act("NetworkDriver.ProgramExternalConnectivity", body)

    def _oper_info(self) -> None:
        """Ask for every endpoint; a failure fails a start on 20.10, and is ignored by 28."""
        for endpoint in self.endpoints:
            act = self.docker.call if self.docker.dialect.needs_oper_info else self.docker.tell
            act("NetworkDriver.EndpointOperInfo", endpoint.ids)
