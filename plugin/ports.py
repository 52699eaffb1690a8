"""Host-port arithmetic, pure: what Docker asks for row by row, said in runs, and who may be served by which of them.

Docker sends a published range as one row per port, in the random order of a Go map (Docker 20.10.24 to 28.5.2). A range
is one thing to weft: one row in the store, one element in a map, whatever its length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, get_args

from drivers.errors import InvalidRequest
from drivers.model import Address, OpenPorts, Publication, Transport
from drivers.resources import RELAYED_AT_MOST
from plugin import ip_text
from plugin.requests import PortRequest

Row = tuple[Transport, str, int, int, int]
"""Transport, the host's address or "", container port, first and last host port; 0 and 0: weft chooses."""

TRANSPORTS: Final[Mapping[str, Transport]] = {one: one for one in get_args(Transport)}
"""The transports by the words that name them."""

_VERSIONS: Final = (4, 6)


def runs(rows: Iterable[Row]) -> tuple[PortRequest, ...]:
    """Return the rows as runs, each once and in order. A row that leaves a choice is a run of its own."""
    return tuple(_merged(sorted(set(rows))))


def _merged(rows: Iterable[Row]) -> Iterator[PortRequest]:
    begun: Row | None = None
    count = 0
    for row in rows:
        transport, host, port, first, last = row
        if begun is not None and row == (begun[0], begun[1], begun[2] + count, begun[3] + count, begun[3] + count):
            count += 1
            continue
        if begun is not None:
            yield _run(begun, count)
        begun, count = None, 0
        if first and first == last:
            begun, count = row, 1
        else:
            yield PortRequest(
                transport=transport, host=_address(host), container_first=port, host_first=first, host_last=last
            )
    if begun is not None:
        yield _run(begun, count)


def _run(begun: Row, count: int) -> PortRequest:
    transport, host, port, first, _ = begun
    return PortRequest(
        transport=transport,
        host=_address(host),
        container_first=port,
        count=count,
        host_first=first,
        host_last=first + count - 1,
    )


def _address(text: str) -> Address | None:
    return ip_text.address(text) if text else None


def versions(
    request: PortRequest, *, has: frozenset[int], relay: bool, routed: frozenset[int] = frozenset()
) -> tuple[int, ...]:
    """Return the IP versions of the clients that a run can serve.

    NAT serves the versions that the container ``has``, or it is ``routed`` to it in them; the relay the other one, for
    TCP and UDP and up to ``RELAYED_AT_MOST`` ports. Raises :class:`InvalidRequest` where the operator named an address
    that neither serves.
    """
    relayed = relay and bool(has - routed) and request.transport != "sctp" and request.count <= RELAYED_AT_MOST
    served = tuple(version for version in _VERSIONS if version in has or relayed)
    if request.host is None:
        return served
    if request.host.version not in served:
        raise InvalidRequest(
            f"published port {spelled(request)}: the container has no IPv{request.host.version} address, and the relay "
            f"that would serve {request.host} passes on TCP and UDP, at most {RELAYED_AT_MOST} ports, and not with "
            "weft.relay=off or to a routed network; publish on an address of the container's own IP version"
        )
    return (request.host.version,)


def opened(request: PortRequest, version: int) -> Publication:
    """Return what a routed network opens of a run: the container's ports, at its own address.

    One that is bound to the host's loopback opens nothing: the host reaches the container without it, and nobody else
    may, in the other IP version neither.
    """
    first, last = request.container_first, request.container_first + request.count - 1
    return Publication(
        transport=request.transport,
        version=version,
        host=request.host if request.host is not None and request.host.is_loopback else None,
        first=first,
        last=last,
        to=first,
        routed=True,
    )


def publication(request: PortRequest, version: int, first: int) -> Publication:
    """Return what is published to clients of an IP version, from the host port ``first`` on."""
    host = request.host
    return Publication(
        transport=request.transport,
        version=version,
        host=None if host is None or host.is_unspecified else host,
        first=first,
        last=first + request.count - 1,
        to=request.container_first,
    )


def spelled(request: PortRequest) -> str:
    """Return a run as the operator writes it: ``127.0.0.1:8080-8081:80-81/tcp``."""
    host = "" if request.host is None else f"[{request.host}]:" if request.host.version == 6 else f"{request.host}:"
    outside = f"{_span(request.host_first, request.host_last)}:" if request.host_first else ":" if host else ""
    inside = _span(request.container_first, request.container_first + request.count - 1)
    return f"{host}{outside}{inside}/{request.transport}"


def shown(one: Publication) -> str:
    """Return what is published as ``docker port`` writes it: ``0.0.0.0:8080-8081``."""
    host = one.host or ("0.0.0.0" if one.version == 4 else "::")  # noqa: S104 - it is shown, not bound
    return f"{f'[{host}]' if one.version == 6 else host}:{_span(one.first, one.last)}"


def parse(text: str) -> PortRequest:
    """Read ``[HOST:][PORT[-PORT]]:PORT[-PORT][/tcp|udp|sctp]``, as ``docker run -p`` does. Raises InvalidRequest."""
    body, _, transport = text.partition("/")
    try:
        request = _request(transport or "tcp", *_parts(body))
    except ValueError as error:
        raise InvalidRequest(
            f"{text[:80]!r} is no published port ({error}): write [ADDRESS:][HOSTPORT:]PORT[/tcp|udp|sctp], "
            "where ports may be first-last; an IPv6 address goes into brackets"
        ) from None
    return request


def parse_open(text: str) -> OpenPorts:
    """Read ``ADDRESS:PORT[-PORT][/tcp|udp|sctp]``: ports at a container's own address. Raises ``ValueError``."""
    body, _, transport = text.partition("/")
    host, outside, inside = _parts(body)
    address = _address(host or outside)
    if address is None or (host and outside) or address.is_unspecified or address.is_multicast:
        raise ValueError(f"{text!r} is not ADDRESS:PORT")
    first, last = _ports(inside)
    return OpenPorts(address=address, transport=_transport(transport or "tcp"), first=first, last=last)


def _transport(text: str) -> Transport:
    if text not in TRANSPORTS:
        raise ValueError(f"{text!r} is not tcp, udp or sctp")
    return TRANSPORTS[text]


def _parts(body: str) -> tuple[str, str, str]:
    """Split into address, host ports and container ports, from the right: an IPv6 address has colons of its own."""
    head, _, inside = body.rpartition(":")
    if head.startswith("["):
        host, _, outside = head[1:].partition("]")
        return host, outside.removeprefix(":"), inside
    host, _, outside = head.rpartition(":")
    if ":" in host:
        raise ValueError("an IPv6 address without brackets")
    return host, outside, inside


def _request(transport: str, host: str, outside: str, inside: str) -> PortRequest:
    first, last = _ports(inside)
    host_first, host_last = _ports(outside) if outside else (0, 0)
    count = last - first + 1
    if count > 1 and host_first and host_last - host_first + 1 != count:
        raise ValueError(f"{host_last - host_first + 1} host ports for {count} container ports")
    if count > 1 and not host_first:
        raise ValueError("a range needs its host ports")
    return PortRequest(
        transport=_transport(transport),
        host=_address(host),
        container_first=first,
        count=count,
        host_first=host_first,
        host_last=host_last,
    )


def _ports(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    ports = int(first), int(last or first)
    if not 0 < ports[0] <= ports[1] <= 65535:
        raise ValueError(f"{text!r} is not 1 to 65535, upwards")
    return ports


def _span(first: int, last: int) -> str:
    return f"{first}-{last}" if last > first else f"{first}"
