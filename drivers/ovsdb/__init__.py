"""The backend of Open vSwitch's database: bridges and ports, changed by OVSDB's own protocol (RFC 7047).

``remote`` finds the database, ``library`` speaks with it through python-ovs, ``rows`` is what it holds, ``reading``
makes resources of that, ``orders`` makes operations of steps, ``client`` is the one thread that does it all, ``ledger``
tells what others have changed and ``listeners`` whom, ``vswitchd`` sees whether the daemon lives, and ``backend`` is
what the rest of weft sees. ``datapath`` chooses between the kernel's datapath and the one in userspace. Why it is so
stands in spec/decisions/0012-ovsdb.md.
"""

from drivers.ovsdb.backend import PATIENCE, Health, OvsdbBackend
from drivers.ovsdb.remote import Remote, find, parse

__all__ = ["PATIENCE", "Health", "OvsdbBackend", "Remote", "find", "parse"]
