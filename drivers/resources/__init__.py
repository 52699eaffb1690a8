"""What may exist on a host, as values. A planner returns them, a backend reads them back, ``diff`` compares.

Every resource knows its key (how the host itself tells it apart), its scope (the mark written on the host's object),
its rank (when it is made and removed) and the keys it needs. Its ``str()`` is the line a person would type to make it.
"""

from drivers.resources.base import HALF_MADE, HOST, SCOPE_ID, Foreign, Key, Rank, Resource, Scope, scope_of
from drivers.resources.kernel import (
    DEFAULT_MTU,
    Bridge,
    Forwarding,
    HostAddress,
    Setting,
    Veth,
    address_key,
    link_key,
    setting,
    setting_key,
)
from drivers.resources.nft import TABLE_KEY, Element, Fence, Permit, Publish, Table, element_key
from drivers.resources.sockets import HELD_AT_MOST, RELAYED_AT_MOST, Hold, hold_key
from drivers.resources.xtables import (
    XTABLES_CHAIN,
    XTABLES_PARENT,
    Chain,
    Jump,
    Rule,
    chain_key,
    jump_key,
    program,
    rule_key,
)

__all__ = [
    "DEFAULT_MTU",
    "HALF_MADE",
    "HELD_AT_MOST",
    "HOST",
    "RELAYED_AT_MOST",
    "SCOPE_ID",
    "TABLE_KEY",
    "XTABLES_CHAIN",
    "XTABLES_PARENT",
    "Bridge",
    "Chain",
    "Element",
    "Fence",
    "Foreign",
    "Forwarding",
    "Hold",
    "HostAddress",
    "Jump",
    "Key",
    "Permit",
    "Publish",
    "Rank",
    "Resource",
    "Rule",
    "Scope",
    "Setting",
    "Table",
    "Veth",
    "address_key",
    "chain_key",
    "element_key",
    "hold_key",
    "jump_key",
    "link_key",
    "program",
    "rule_key",
    "scope_of",
    "setting",
    "setting_key",
]
