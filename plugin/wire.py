"""Docker's two plugin protocols, NetworkDriver and IpamDriver, as values: the only CamelCase in the code.

A request declares what a handler reads and nothing else; whatever else an engine sends, now or in its next version, is
ignored. Go's ``null`` is an empty map or list. Ids and paths are checked, and addresses parsed, so nothing unchecked
goes further.

The fields are those of libnetwork's ``drivers/remote/api`` and ``ipams/remote/api`` (moby 28.5.2), as recorded from
Docker Engine 20.10.24, 26.1.5 and 28.5.2; spec/protocol.md says what is promised for each method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Generic, Literal, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from typing_extensions import TypedDict

from plugin.pools import LOCAL, SWARM
from plugin.requests import DriverScope
from plugin.wire_values import (
    AnyIP,
    Flat,
    Id,
    IPAddress,
    IPv4,
    IPv6,
    PoolName,
    PortNumber,
    SandboxPath,
    Subnet,
    Text,
    or_,
)

BODY_LIMIT: Final = 16 * 1024 * 1024
"""Bytes. A container that publishes 10,000 ports is 1.25 MB, so this is twelve such containers in one."""

GENERIC: Final = "com.docker.network.generic"
"""The key that holds every ``-o key=value`` of ``docker network create``."""


# -- the parts of a request -----------------------------------------------------------------------------------------


class Request(BaseModel):
    """What Docker sends: read by its names, frozen."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Pool(Request):
    """One address pool of a network, with its gateway. Of the null IPAM driver: ``0.0.0.0/0`` in the space ``null``."""

    space: Text = Field(default="", alias="AddressSpace")
    pool: AnyIP = Field(alias="Pool")
    gateway: AnyIP = Field(default=None, alias="Gateway")


Pools = Annotated[tuple[Pool, ...], or_(())]


class NetworkOptions(Request):
    """``docker network create``'s own switches and, in ``generic``, its ``-o``.

    A switch that was not sent is ``None``: 20.10 has no ``enable_ipv4``, and ``internal`` comes only when it is set.
    """

    ipv4: bool | None = Field(default=None, alias="com.docker.network.enable_ipv4")
    ipv6: bool | None = Field(default=None, alias="com.docker.network.enable_ipv6")
    internal: bool | None = Field(default=None, alias="com.docker.network.internal")
    generic: Flat = Field(default={}, alias=GENERIC)


class PortRow(TypedDict, total=False):
    """One published port. A row of a TypedDict costs a tenth of a model's: there may be 10,000."""

    __pydantic_config__ = ConfigDict(extra="ignore")  # type: ignore[misc]  # pydantic reads it, TypedDict forgets it

    protocol: Annotated[int, Field(alias="Proto")]
    container_port: Annotated[PortNumber, Field(alias="Port")]
    host_address: Annotated[Text, Field(alias="HostIP")]
    host_first: Annotated[PortNumber, Field(alias="HostPort")]
    host_last: Annotated[PortNumber, Field(alias="HostPortEnd")]


class EndpointOptions(BaseModel):
    """The published ports and, flat beside them, every ``--driver-opt`` (in :attr:`flat`)."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, object]

    ports: Annotated[list[PortRow], or_([])] = Field(default=[], alias="com.docker.network.portmap")

    @property
    def flat(self) -> Mapping[str, object]:
        """All other options. Their values are what the sender liked: nearly always text."""
        return self.__pydantic_extra__


class EndpointInterface(Request):
    """What Docker already decided about the container's interface."""

    ipv4: IPv4 = Field(default=None, alias="Address")
    ipv6: IPv6 = Field(default=None, alias="AddressIPv6")
    mac: Text = Field(default="", alias="MacAddress")


# -- NetworkDriver: requests ----------------------------------------------------------------------------------------


class GwAllocCheck(Request):
    """Asks whether the network needs a gateway address (28.0 and later, if the capability says so)."""

    options: Annotated[NetworkOptions, or_({})] = Field(default=NetworkOptions(), alias="Options")


class AllocateNetwork(Request):
    """Swarm's manager reserves what a network needs in the whole cluster. Options are flat; it may come twice."""

    network: Id = Field(alias="NetworkID")
    options: Flat = Field(default={}, alias="Options")


class CreateNetwork(Request):
    """Make a network on this host."""

    network: Id = Field(alias="NetworkID")
    options: Annotated[NetworkOptions, or_({})] = Field(default=NetworkOptions(), alias="Options")
    ipv4: Pools = Field(default=(), alias="IPv4Data")
    ipv6: Pools = Field(default=(), alias="IPv6Data")


class DeleteNetwork(Request):
    """Remove a network with all that is on it."""

    network: Id = Field(alias="NetworkID")


class CreateEndpoint(Request):
    """Reserve a container's place on a network. The only call that carries ``--driver-opt``."""

    network: Id = Field(alias="NetworkID")
    endpoint: Id = Field(alias="EndpointID")
    interface: Annotated[EndpointInterface, or_({})] = Field(default=EndpointInterface(), alias="Interface")
    options: Annotated[EndpointOptions, or_({})] = Field(default=EndpointOptions(), alias="Options")


class OfEndpoint(Request):
    """A call about one endpoint. Options that repeat the ports are not decoded: CreateEndpoint's were stored."""

    network: Id = Field(alias="NetworkID")
    endpoint: Id = Field(alias="EndpointID")


class Join(OfEndpoint):
    """Hand the endpoint's interface to a sandbox."""

    sandbox: SandboxPath = Field(alias="SandboxKey")


class Node(Request):
    """A host of the swarm."""

    address: IPAddress = Field(default=None, alias="Address")
    is_self: bool = Field(default=False, alias="Self")


def _no_node(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    """Read a node, or ``None``: what other kinds of discovery carry (keys, DiscoveryType 2) is none."""
    try:
        return handler(value)
    except ValidationError:
        return None


class Discover(Request):
    """A host was discovered, or lost (DiscoveryType 1): sent to drivers whose connectivity is global."""

    kind: int = Field(default=0, alias="DiscoveryType")
    node: Annotated[Node | None, WrapValidator(_no_node)] = Field(default=None, alias="DiscoveryData")


# -- IpamDriver: requests -------------------------------------------------------------------------------------------


class RequestPool(Request):
    """Reserve an address pool: the one that is named, or any."""

    space: Text = Field(default="", alias="AddressSpace")
    pool: Subnet = Field(default=None, alias="Pool")
    subpool: Subnet = Field(default=None, alias="SubPool")
    options: Flat = Field(default={}, alias="Options")
    v6: bool = Field(default=False, alias="V6")


class ReleasePool(Request):
    """Give a pool back."""

    pool: PoolName = Field(alias="PoolID")


class RequestAddress(Request):
    """Reserve an address of a pool: the one that is named, or any."""

    pool: PoolName = Field(alias="PoolID")
    address: IPAddress = Field(default=None, alias="Address")
    options: Flat = Field(default={}, alias="Options")


class ReleaseAddress(Request):
    """Give an address back; it comes without its prefix length."""

    pool: PoolName = Field(alias="PoolID")
    address: IPAddress = Field(alias="Address")


# -- replies --------------------------------------------------------------------------------------------------------


class Reply(BaseModel):
    """What Docker reads: made by our names, written by its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, serialize_by_alias=True)


class Done(Reply):
    """It is done; there is nothing to tell."""


class Failure(Reply):
    """It was not done, and why. NetworkDriver's errors are read from ``Err``, IpamDriver's from ``Error``."""

    err: str = Field(alias="Err")
    error: str = Field(alias="Error")


class Activated(Reply):
    """Which protocols are spoken on this socket."""

    implements: tuple[str, ...] = Field(default=("NetworkDriver", "IpamDriver"), alias="Implements")


class NetworkCapabilities(Reply):
    """What kind of driver this is. A wrong or failing answer makes it unusable until dockerd restarts (28.5.2)."""

    scope: DriverScope = Field(default="local", alias="Scope")
    connectivity: DriverScope = Field(default="local", alias="ConnectivityScope")
    checks_gateway: bool = Field(default=True, alias="GwAllocChecker")


class GatewayNeed(Reply):
    """Which gateway addresses Docker need not reserve."""

    skip_ipv4: bool = Field(default=False, alias="SkipIPv4")
    skip_ipv6: bool = Field(default=False, alias="SkipIPv6")


class Allocated(Reply):
    """All the options of every later CreateNetwork: Swarm keeps them in the place of the operator's."""

    options: Mapping[str, str] = Field(default={}, alias="Options")


class GivenInterface(Reply):
    """What the driver adds to the interface; an empty text adds nothing."""

    ipv4: str = Field(default="", alias="Address")
    ipv6: str = Field(default="", alias="AddressIPv6")
    mac: str = Field(default="", alias="MacAddress")


class EndpointCreated(Reply):
    """The endpoint exists. Naming a MAC when the request had one is an error to dockerd (20.10.24 to 28.5.2)."""

    interface: GivenInterface = Field(default=GivenInterface(), alias="Interface")


class InterfaceName(Reply):
    """The link to move, and what it is called in the sandbox: ``name``, or ``prefix`` and a number.

    ``DstName`` is read by engines to come; those up to 28.5.2 go by ``DstPrefix``.
    """

    source: str = Field(alias="SrcName")
    prefix: str = Field(alias="DstPrefix")
    name: str = Field(default="", alias="DstName")


class StaticRoute(Reply):
    """A route in the sandbox: type 0 goes by ``NextHop``, type 1 is on the link."""

    destination: str = Field(alias="Destination")
    kind: Literal[0, 1] = Field(alias="RouteType")
    next_hop: str = Field(default="", alias="NextHop")


class JoinedReply(Reply):
    """How the sandbox is set up. Without ``DisableGatewayService`` or a gateway, dockerd adds docker_gwbridge."""

    interface: InterfaceName = Field(alias="InterfaceName")
    gateway: str = Field(default="", alias="Gateway")
    gateway6: str = Field(default="", alias="GatewayIPv6")
    routes: tuple[StaticRoute, ...] = Field(default=(), alias="StaticRoutes")
    no_gateway_service: bool = Field(default=True, alias="DisableGatewayService")


class OperInfo(Reply):
    """Docker shows it nowhere (20.10.24 to 28.5.2), so it is empty."""

    value: Mapping[str, str] = Field(default={}, alias="Value")


class IpamCapabilities(Reply):
    """Whether an address is asked for with a MAC, and whether requests are repeated after a restart of dockerd."""

    requires_mac: bool = Field(default=False, alias="RequiresMACAddress")
    requires_replay: bool = Field(default=False, alias="RequiresRequestReplay")


class AddressSpaces(Reply):
    """The names under which Docker asks for pools: of one host, of a swarm."""

    local: str = Field(default=LOCAL, alias="LocalDefaultAddressSpace")
    swarm: str = Field(default=SWARM, alias="GlobalDefaultAddressSpace")


class PoolGranted(Reply):
    """A pool is reserved. The id is all that Docker sends later."""

    id: str = Field(alias="PoolID")
    pool: str = Field(alias="Pool")
    data: Mapping[str, str] = Field(default={}, alias="Data")


class AddressGranted(Reply):
    """An address is reserved; it goes with its prefix length."""

    address: str = Field(alias="Address")
    data: Mapping[str, str] = Field(default={}, alias="Data")


# -- the protocols --------------------------------------------------------------------------------------------------

Q = TypeVar("Q", bound=Request | None)
R = TypeVar("R", bound=Reply)


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, R]):
    """One method: where it comes in, what it carries, what it is answered with.

    ``request`` is ``type(None)`` where nothing in the body matters: it is not even looked at, so nothing in it can
    make the call fail.
    """

    path: str
    request: type[Q]
    reply: type[R]

    @property
    def name(self) -> str:
        """The method without its protocol, as Docker's messages call it."""
        return self.path.rpartition(".")[2]

    def decode(self, raw: bytes) -> Q:
        """Return what a body says; raises pydantic's ``ValidationError``."""
        return cast("Q", self.request.model_validate_json(raw) if issubclass(self.request, Request) else None)


NOTHING: Final = type(None)

ACTIVATE: Final = Method("/Plugin.Activate", NOTHING, Activated)

GET_CAPABILITIES: Final = Method("/NetworkDriver.GetCapabilities", NOTHING, NetworkCapabilities)
GW_ALLOC_CHECK: Final = Method("/NetworkDriver.GwAllocCheck", GwAllocCheck, GatewayNeed)
ALLOCATE_NETWORK: Final = Method("/NetworkDriver.AllocateNetwork", AllocateNetwork, Allocated)
FREE_NETWORK: Final = Method("/NetworkDriver.FreeNetwork", NOTHING, Done)
CREATE_NETWORK: Final = Method("/NetworkDriver.CreateNetwork", CreateNetwork, Done)
DELETE_NETWORK: Final = Method("/NetworkDriver.DeleteNetwork", DeleteNetwork, Done)
CREATE_ENDPOINT: Final = Method("/NetworkDriver.CreateEndpoint", CreateEndpoint, EndpointCreated)
DELETE_ENDPOINT: Final = Method("/NetworkDriver.DeleteEndpoint", OfEndpoint, Done)
ENDPOINT_OPER_INFO: Final = Method("/NetworkDriver.EndpointOperInfo", NOTHING, OperInfo)
JOIN: Final = Method("/NetworkDriver.Join", Join, JoinedReply)
LEAVE: Final = Method("/NetworkDriver.Leave", OfEndpoint, Done)
PROGRAM_EXTERNAL: Final = Method("/NetworkDriver.ProgramExternalConnectivity", OfEndpoint, Done)
REVOKE_EXTERNAL: Final = Method("/NetworkDriver.RevokeExternalConnectivity", OfEndpoint, Done)
DISCOVER_NEW: Final = Method("/NetworkDriver.DiscoverNew", Discover, Done)
DISCOVER_DELETE: Final = Method("/NetworkDriver.DiscoverDelete", Discover, Done)

IPAM_CAPABILITIES: Final = Method("/IpamDriver.GetCapabilities", NOTHING, IpamCapabilities)
ADDRESS_SPACES: Final = Method("/IpamDriver.GetDefaultAddressSpaces", NOTHING, AddressSpaces)
REQUEST_POOL: Final = Method("/IpamDriver.RequestPool", RequestPool, PoolGranted)
RELEASE_POOL: Final = Method("/IpamDriver.ReleasePool", ReleasePool, Done)
REQUEST_ADDRESS: Final = Method("/IpamDriver.RequestAddress", RequestAddress, AddressGranted)
RELEASE_ADDRESS: Final = Method("/IpamDriver.ReleaseAddress", ReleaseAddress, Done)
