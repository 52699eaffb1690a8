"""What the tests of table `inet weft` share: an element for each of its sets and maps, and how it is looked at."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Self

from drivers import ruleset
from drivers.contract import Effect
from drivers.marks import Marks
from drivers.nft import NftBackend
from drivers.resources import (
    HOST,
    TABLE_KEY,
    Element,
    Fence,
    Permit,
    Publish,
    Scope,
    Table,
    element_key,
    scope_of,
)
from tests.lab.wait import await_
from tests.netns import sh

NET = scope_of("n" * 64)
ENDPOINT = scope_of("n" * 64, "e" * 64)
OTHER = scope_of("o" * 64)

TEXT: Final = ruleset.TEXT
TABLE = Table(key=TABLE_KEY, scope=HOST, text=TEXT)
SAME = Permit(key=element_key(ruleset.SAME, "wfb1", "wfb1"), scope=NET)
INTERNAL = Fence(key=element_key(ruleset.INTERNAL, "wfb1"), scope=NET)
ADOPTED4 = Fence(key=element_key(ruleset.ADOPTED[4], "lan.7", "192.0.2.7"), scope=ENDPOINT)
ADOPTED6 = Fence(key=element_key(ruleset.ADOPTED[6], "lan.7", "2001:db8::7"), scope=ENDPOINT)


def publish(set_name: str, at: str, value: str, scope: Scope = ENDPOINT) -> Publish:
    """Return an element of a map: `publish("publish4", "udp 53", "10.0.0.2 5353")`."""
    return Publish(key=element_key(set_name, *at.split()), scope=scope, value=tuple(value.split()))


PUBLISH4 = publish("publish4", "tcp 8080", "10.0.0.2 80")
RANGE4 = publish("range4", "udp 20000-29999", "10.0.0.2")
RANGE6 = publish("range6", "sctp 20000-29999", "fd00::2")
PORTS = (
    PUBLISH4,
    publish("publish4", "udp 8080", "10.0.0.2 65535"),
    publish("publish_at4", "192.0.2.1 sctp 1", "10.0.0.2 80"),
    RANGE4,
    publish("range4", "udp 1024-2047", "10.0.0.2"),
    publish("range4", "udp 53", "10.0.0.2"),
    publish("range_at4", "192.0.2.1 udp 20000-29999", "10.0.0.2"),
    publish("publish6", "tcp 8080", "fd00::2 80"),
    publish("publish_at6", "2001:db8::1 sctp 1", "fd00::2 80"),
    RANGE6,
    publish("range_at6", "2001:db8::1 udp 20000-29999", "fd00::2"),
    Permit(key=element_key("loopback_relayed", "udp", "20000-29999"), scope=ENDPOINT),
    Fence(key=element_key("relayed4", "udp", "53"), scope=ENDPOINT),
    Fence(key=element_key("relayed6", "tcp", "8080"), scope=ENDPOINT),
    Fence(key=element_key("relayed_at4", "192.0.2.1", "tcp", "8080"), scope=ENDPOINT),
    Fence(key=element_key("relayed_at6", "2001:db8::1", "tcp", "8080"), scope=ENDPOINT),
    Fence(key=element_key("restricted4", "10.0.0.2"), scope=ENDPOINT),
    Fence(key=element_key("restricted6", "fd00::2"), scope=ENDPOINT),
    Permit(key=element_key("allowed4", "10.0.0.2", "10.0.0.0/8"), scope=ENDPOINT),
    Permit(key=element_key("allowed4", "10.0.0.2", "192.168.1.5"), scope=ENDPOINT),
    Permit(key=element_key("allowed4", "10.0.0.3", "0.0.0.0/0"), scope=ENDPOINT),
    Permit(key=element_key("allowed6", "fd00::2", "2001:db8::/32"), scope=ENDPOINT),
)
EVERY = (
    TABLE,
    SAME,
    INTERNAL,
    ADOPTED4,
    ADOPTED6,
    *(Permit(key=element_key(name, "wfb2"), scope=NET) for name in ruleset.MASQUERADE.values()),
    *(
        kind(key=element_key(sets[version], "lan.7", address), scope=ENDPOINT)
        for version, address in ((4, "192.0.2.7"), (6, "2001:db8::7"))
        for kind, sets in ((Fence, ruleset.ADOPTED_INTERNAL), (Permit, ruleset.ADOPTED_MASQUERADE))
    ),
    Permit(key=element_key(ruleset.OPERATOR_LINKS, "br-lan"), scope=HOST),
    Fence(key=element_key(ruleset.APART, "wfb1"), scope=NET),
    Fence(key=element_key(ruleset.GUARDED, "wfh1"), scope=ENDPOINT),
    Fence(key=element_key(ruleset.BOUND[4], "10.0.0.2", "tcp", "80-89"), scope=ENDPOINT),
    Fence(key=element_key(ruleset.BOUND[6], "fd00::2", "udp", "53"), scope=ENDPOINT),
    Permit(key=element_key(ruleset.TRUSTED, "eth1", "wfb1"), scope=NET),
    *(
        kind(key=element_key(sets[version], "wfb1"), scope=NET)
        for version in (4, 6)
        for kind, sets in ((Fence, ruleset.ISOLATED), (Permit, ruleset.ROUTED), (Permit, ruleset.UNPROTECTED))
    ),
    Permit(key=element_key(ruleset.LINKED[4], "10.0.0.2", "10.0.0.3", "tcp", "3306"), scope=ENDPOINT),
    Permit(key=element_key(ruleset.LINKED[6], "fd00::2", "fd00::3", "udp", "5000-5009"), scope=ENDPOINT),
    Permit(key=element_key(ruleset.DIRECT[4], "10.0.0.2", "tcp", "80-89"), scope=ENDPOINT),
    Permit(key=element_key(ruleset.DIRECT[6], "fd00::2", "sctp", "80"), scope=ENDPOINT),
    Permit(key=element_key(ruleset.SOURCE[4], "wfb1"), scope=NET, value=("192.0.2.9",)),
    Permit(key=element_key(ruleset.SOURCE[6], "wfb1"), scope=NET, value=("2001:db8::9",)),
    Permit(key=element_key(ruleset.ADOPTED_SOURCE[4], "lan.7", "192.0.2.7"), scope=ENDPOINT, value=("192.0.2.9",)),
    Permit(key=element_key(ruleset.ADOPTED_SOURCE[6], "lan.7", "fd00::2"), scope=ENDPOINT, value=("2001:db8::9",)),
    *PORTS,
    Fence(key=element_key(ruleset.VNIS, "4789", "1048577"), scope=NET),
    Permit(key=element_key(ruleset.PEERS[4], "4789", "1048577", "192.0.2.2"), scope=NET),
    Permit(key=element_key(ruleset.PEERS[6], "4789", "16777215", "2001:db8::2"), scope=NET),
    Fence(key=element_key(ruleset.ZONES, "wfb1"), scope=NET, value=("22272",)),
    Permit(key=element_key(ruleset.CLAMPED, "wfb1"), scope=NET),
)


@contextmanager
def backend_of(store: str, effect: Effect = lambda _: None) -> Iterator[NftBackend]:
    """Yield a backend of this namespace that writes the marks of a store."""
    backend = NftBackend(Marks(store), effect)
    try:
        yield backend
    finally:
        backend.close()


class Watcher:
    """What a watch told, in order."""

    def __init__(self, backend: NftBackend) -> None:
        self.told: list[Scope | None] = []
        self._stop = backend.watch(self.told.append)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def heard(self) -> list[Scope | None]:
        """Wait until something was told, and return all of it."""
        await_(lambda: self.told, 10, "a word from the nft monitor")
        return self.told


def set_names() -> set[str]:
    """Return the names of the sets and maps of which there is an element in `EVERY`."""
    return {one.key.kind for one in EVERY if isinstance(one, Element)}


def listed() -> set[str]:
    """Return every element of the table as the kernel lists it."""
    found = set()
    for entry in json.loads(sh("nft", "-j", "list", "table", "inet", "weft"))["nftables"]:
        for kind in ("set", "map"):
            with suppress(KeyError):
                found |= {json.dumps((entry[kind]["name"], one)) for one in entry[kind]["elem"]}
    return found
