"""Flows that outlive what they were translated by: the kernel judges only a flow's first packet by the nat rules.

A UDP client that goes on sending keeps its flow alive, and with it the container that it began with, or none. So when a
published port goes, the flows that it translated are forgotten; when one is made, those that began before it are. The
next packet is then judged anew. What belongs to a port is told by the port that the client used, and where it was led
to by where answers come from, so this is right for a host port that differs from the container's (moby#53384).

A pass over the table costs 0.3 ms and more to delete, 4 ms and more to look (Linux 6.18, 262,144 buckets), so a batch
of steps is one pass for each container and transport, however many ports it has.

A link between two containers that goes takes its flows along, in one pass for all its ports of a transport: a sender
that goes on would reach whoever has the address next.

Connections of TCP and SCTP that were established before a port was published are the host's own, such as the ssh of the
operator who publishes port 22: they are spared.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final

from drivers import conntrack_wire as wire
from drivers import ruleset
from drivers.conntrack_wire import ASSURED, DST_NAT, Flow, Pattern, Way
from drivers.contract import Step
from drivers.kernel.netlink import NETFILTER, Netlink
from drivers.kernel.wire import Message, attributes
from drivers.model import IPNetwork
from drivers.resources import Publish

log = logging.getLogger(__name__)

_NO_PATTERNS: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP})
_ONE_BY_ONE: Final = 8  # deletions (17 us each) that cost less than another pass
_LINKED: Final = frozenset(ruleset.LINKED.values())
_CONNECTED: Final = frozenset({"tcp", "sctp"})

_GETROUTE: Final = 26
_IPV4_BYTES: Final = 4
_DUMP: Final = 0x301  # NLM_F_REQUEST, NLM_F_DUMP
_TABLE_LOCAL: Final = 255
_LOCAL: Final = 2  # RTN_LOCAL
_RTA_DST: Final = 1
_ROUTE: Final = struct.Struct(
    "=BBBBBBBBI"
)  # rtmsg: family, lengths of dst and src, tos, table, proto, scope, type, ...
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_HEADER: Final = struct.Struct("=IHHII")


@dataclass(frozen=True, slots=True)
class _Port:
    """A published port, or a run of them, as flows show it. ``to_port`` None: the container's port is the host's."""

    transport: str
    first: int
    last: int
    host: bytes | None
    to: bytes
    to_port: int | None

    @property
    def version(self) -> int:
        return 4 if len(self.to) == _IPV4_BYTES else 6

    @property
    def single(self) -> bool:
        return self.first == self.last

    def leads(self, flow: Flow) -> bool:
        """Tell whether the flow is translated as this port says."""
        wanted = flow.sent.target_port if self.to_port is None else self.to_port
        return (flow.answer.source, flow.answer.source_port) == (self.to, wanted)


class _Ports:
    """Many of them, found by the port that a client used."""

    def __init__(self, ports: Iterable[_Port]) -> None:
        self._singles: dict[int, list[_Port]] = defaultdict(list)
        self._runs: list[_Port] = []
        for one in ports:
            (self._singles[one.first] if one.single else self._runs).append(one)

    def of(self, flow: Flow) -> _Port | None:
        """Return the port by which a flow came, those of one host address before those of all."""
        port = flow.sent.target_port
        if port is None:
            return None
        at = [one for one in self._singles.get(port, ()) if one.host in (None, flow.sent.target)]
        at += [one for one in self._runs if one.first <= port <= one.last and one.host in (None, flow.sent.target)]
        return max(at, key=lambda one: one.host is not None, default=None)


class Conntrack:
    """The flows of the network namespace of the thread that first asks. Nothing here raises: it is logged, once each.

    ``calls`` counts the netlink requests.
    """

    def __init__(self) -> None:
        self._netfilter = Netlink(NETFILTER)
        self._routes = Netlink()
        self._complained: set[str] = set()

    @property
    def calls(self) -> int:
        """How many netlink requests were made."""
        return self._netfilter.calls + self._routes.calls

    def close(self) -> None:
        """Close the sockets; the next call opens others."""
        self._netfilter.close()
        self._routes.close()

    def after(self, steps: Sequence[Step]) -> None:
        """Forget the flows that the steps have left behind: an :data:`drivers.contract.Effect`."""
        with self._complaining():
            self._after(steps)

    @contextmanager
    def _complaining(self) -> Iterator[None]:
        """Log what goes wrong, each thing once: without the kernel's help every container's end would say it again."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the ports are published all the same
            if str(error) not in self._complained:
                self._complained.add(str(error))
                log.warning(
                    "conntrack does not answer: clients that go on sending may reach a container that is gone",
                    extra={"why": str(error), "hint": "is the module nf_conntrack_netlink loaded?"},
                )

    def _after(self, steps: Sequence[Step]) -> None:
        gone: dict[tuple[bytes, str], list[_Port]] = defaultdict(list)
        made: dict[tuple[int, str], list[_Port]] = defaultdict(list)
        unlinked: set[tuple[str, ...]] = set()
        for step in steps:
            old, new = (_port(one) if isinstance(one, Publish) else None for one in (step.old, step.new))
            if old is not None and old != new:
                gone[old.to, old.transport].append(old)
            if new is not None and old != new:
                made[new.version, new.transport].append(new)
            if step.new is None and step.key.kind in _LINKED:
                unlinked.add(step.key.at[:-1])
        for linked in unlinked:
            self._forget_linked(*linked)
        for ports in gone.values():
            self._forget_led(ports)
        for ports in made.values():
            self._forget_earlier(ports)

    def _forget_led(self, ports: Sequence[_Port]) -> None:
        """Forget what was translated to a container by these ports, all of one transport, and not what else was."""
        one = ports[0]
        if len(ports) == 1 and one.single:
            to_port = one.first if one.to_port is None else one.to_port
            self._delete_all(
                Pattern(
                    version=one.version,
                    sent=Way(target=one.host, transport=one.transport, target_port=one.first),
                    answer=Way(source=one.to, transport=one.transport, source_port=to_port),
                    status=DST_NAT,
                )
            )
            return
        led = Pattern(version=one.version, answer=Way(source=one.to, transport=one.transport), status=DST_NAT)
        by = _Ports(ports)
        flows = self._dump(led)
        ours = [flow for flow in flows if (port := by.of(flow)) is not None and port.leads(flow)]
        if len(ours) == len(flows) > _ONE_BY_ONE:
            self._delete_all(led)
        else:
            self._delete(led.version, ours)

    def _forget_linked(self, source: str, target: str, transport: str) -> None:
        """Forget what went from one container to another by links: all of a transport, for a pass costs the same."""
        way = Way(source=ip_address(source).packed, target=ip_address(target).packed, transport=transport)
        self._delete_all(Pattern(version=ip_address(source).version, sent=way))

    def _forget_earlier(self, ports: Sequence[_Port]) -> None:
        """Forget what came to these ports, all of one transport, and was not translated as they say."""
        one = ports[0]
        alone = len(ports) == 1
        came = Pattern(
            version=one.version,
            sent=Way(
                target=one.host if alone else None,
                transport=one.transport,
                target_port=one.first if alone and one.single else None,
            ),
            no_status=ASSURED if one.transport in _CONNECTED else 0,
        )
        by = _Ports(ports)
        flows = [flow for flow in self._dump(came) if (port := by.of(flow)) is not None and not port.leads(flow)]
        if flows:
            here = self._here({flow.sent.target for flow in flows}, one.version)
            self._delete(one.version, [flow for flow in flows if flow.sent.target in here])

    # -- passes over the table --------------------------------------------------------------------------------------

    def _dump(self, pattern: Pattern) -> list[Flow]:
        told = map(wire.flow, self._netfilter.ask(wire.dump(pattern)))
        return [flow for flow in told if pattern.covers(flow)]

    def _delete_all(self, pattern: Pattern) -> None:
        try:
            self._netfilter.ask(wire.delete_all(pattern))
        except OSError as error:
            if error.errno not in _NO_PATTERNS:
                raise
            self._delete(pattern.version, self._dump(pattern))

    def _delete(self, version: int, flows: Iterable[Flow]) -> None:
        for flow in flows:
            try:
                self._netfilter.ask(wire.delete(version, flow))
            except FileNotFoundError:
                continue  # it has ended by itself

    def _here(self, addresses: Iterable[bytes | None], version: int) -> set[bytes | None]:
        """Return those addresses that are the host's: what is asked of others on the same port is none of ours."""
        request = _ROUTE.pack(_FAMILIES[version], 0, 0, 0, _TABLE_LOCAL, 0, 0, _LOCAL, 0)
        told = self._routes.ask(_HEADER.pack(_HEADER.size + len(request), _GETROUTE, _DUMP, 0, 0) + request)
        ours: list[IPNetwork] = [network for one in told for network in _local(one)]
        return {one for one in addresses if one and any(ip_address(one) in network for network in ours)}


def _port(publish: Publish) -> _Port:
    *host, transport, ports = publish.at
    first, _, last = ports.partition("-")
    to, *to_port = publish.value
    return _Port(
        transport=transport,
        first=int(first),
        last=int(last or first),
        host=ip_address(host[0]).packed if host else None,
        to=ip_address(to).packed,
        to_port=int(to_port[0]) if to_port else None,
    )


def _local(told: Message) -> Iterator[IPNetwork]:
    """Yield the host's own address, or addresses, of which an answer tells."""
    _, length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(told.body)
    target = attributes(told.body[_ROUTE.size :]).get(_RTA_DST)
    if (table, kind) == (_TABLE_LOCAL, _LOCAL) and target is not None:
        yield ip_network((target, length))
