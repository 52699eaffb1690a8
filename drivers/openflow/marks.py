"""The cookie: 64 bits that say whose a flow is, and that this store wrote it so.

The upper half is a hash of the store's id and the scope, the lower half one of the store's id and the flow itself. A
hash cannot be read backwards, so the store is asked for its scopes. A flow whose upper half is none of theirs is still
ours if the lower half is right: then it belongs to an orphan, which is called by its hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Final

from drivers.errors import Conflict
from drivers.openflow.messages import Place
from drivers.resources import HOST, Scope

Scopes = Callable[[], Iterable[Scope]]
"""Lists the scopes that the store has now."""

ORPHANS: Final = "orphan-flows"
"""The network of scopes that only their hash is known of; no id of a network has a dash."""

_HALF: Final = 32


class Cookies:
    """Writes and reads the marks of one store. Not thread-safe."""

    def __init__(self, store: str, scopes: Scopes) -> None:
        self._store = store
        self._scopes = scopes
        self._known: dict[int, Scope] = {}

    def refresh(self) -> None:
        """Ask the store for its scopes anew."""
        self._known = {self._upper(scope): scope for scope in (HOST, *self._scopes())}

    def write(self, scope: Scope, place: Place, instructions: bytes) -> int:
        """Return the cookie of a flow. Raises Conflict if another scope has the same hash, which is one in 2^32."""
        upper = self._upper(scope)
        other = self._known.setdefault(upper, scope)
        if other != scope:
            raise Conflict(f"the flows of {scope} cannot be told from those of {other}; remove one and make it again")
        return upper << _HALF | self._lower(place, instructions)

    def read(self, cookie: int, place: Place, instructions: bytes) -> Scope | None:
        """Return the scope that a flow belongs to, ``None`` if it is not this store's."""
        upper, lower = cookie >> _HALF, cookie & ((1 << _HALF) - 1)
        if upper in self._known:
            return self._known[upper]
        return Scope(ORPHANS, f"{upper:08x}") if lower == self._lower(place, instructions) else None

    def known(self, cookie: int) -> Scope | None:
        """Return the scope of the upper half alone, ``None`` if it is none of the store's."""
        return self._known.get(cookie >> _HALF)

    def _upper(self, scope: Scope) -> int:
        if scope.network == ORPHANS:
            return int(scope.endpoint, 16)
        return _hash(f"{self._store}/{scope.network}/{scope.endpoint}".encode())

    def _lower(self, place: Place, instructions: bytes) -> int:
        head = f"{self._store}/{place.table}/{place.priority}/{len(place.match)}/".encode()
        return _hash(head + place.match + instructions)


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2s(data, digest_size=_HALF // 8).digest(), "big")
