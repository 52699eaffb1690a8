"""A host in memory: kernel, nft, iptables, sockets, OVSDB and firewalld, for tests of whatever converges.

The backends share one :class:`FakeHost`, so what one of them does to another is real: a bridge takes its addresses
with it and frees its ports, a table its elements, and a link the port that Open vSwitch has for it. They refuse what
the real ones refuse, with the same errno.

    host = FakeHost()
    converger = Converger(host.backends)

Tests play the rest of the world: ``plant`` (somebody makes an object), ``meddle`` and ``remove`` (somebody changes or
deletes one, perhaps ours), ``fail`` (a step is refused) and ``crash_after`` (the process dies between two steps; the
host stays as it is then, less the sockets of the process; ``restart`` is the same between two calls). ``calls`` and
``steps`` count what was asked of it.
"""

from drivers.fake.host import FakeHost
from drivers.fake.state import UNMARKED, Crash, Held

__all__ = ["UNMARKED", "Crash", "FakeHost", "Held"]
