"""iptables, in memory."""

from __future__ import annotations

import errno

from drivers.fake.backend import FakeBackend
from drivers.fake.state import refuse
from drivers.resources import (
    Chain,
    Jump,
    Key,
    Resource,
    Rule,
    chain_key,
    jump_key,
)


class FakeXtables(FakeBackend):
    """iptables and ip6tables: our chain, its rules, and the jump from DOCKER-USER."""

    name = "xtables"

    def make(self, new: Resource) -> None:
        """Make a chain, a rule in it, or the jump to it."""
        if isinstance(new, Rule | Jump) and chain_key(new.version) not in self.host.objects:
            raise refuse(errno.ENOENT, chain_key(new.version))
        if isinstance(new, Jump) and new.version not in self.host.docker_user:
            raise refuse(errno.ENOENT, new.key)
        super().make(new)

    def delete(self, key: Key) -> None:
        """Delete a rule, the jump, or the chain with all its rules, unless something jumps to it."""
        held = self.host.objects.get(key)
        if held is not None and isinstance(held.resource, Chain):
            if jump_key(held.resource.version) in self.host.objects:
                raise refuse(errno.EBUSY, key)
            for rule in [one for one in self.host.objects if one.kind == "rule" and one.at[0] == key.at[0]]:
                super().delete(rule)
        super().delete(key)
