"""The mark that says "weft made this, for that scope": link aliases, nft and iptables comments all carry the same text.

``weft:STORE:NETWORK:ENDPOINT``, with the scope's ids (32 characters at most) and empty fields for wider scopes. STORE
is the id of the database that wants the object: what another database wants is reported, never swept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from drivers.resources import Scope

_MARK: Final = re.compile(r"weft:([0-9a-z]{1,16}):([0-9A-Za-z]{0,32}):([0-9A-Za-z]{0,32})")


@dataclass(frozen=True, slots=True)
class Marks:
    """Writes and reads the marks of one store."""

    store: str

    def write(self, scope: Scope) -> str:
        """Return the mark of a scope: at most 87 bytes (nft takes 128, an ifalias 255)."""
        return f"weft:{self.store}:{scope.network}:{scope.endpoint}"

    def read(self, text: str | None) -> Scope | None:
        """Return the scope that ``text`` marks, or ``None`` if it is not this store's mark."""
        found = _MARK.fullmatch(text or "")
        return Scope(found[2], found[3]) if found and found[1] == self.store else None

    def stranger(self, text: str | None) -> str | None:
        """Return the id of another store whose mark ``text`` is, or ``None``."""
        found = _MARK.fullmatch(text or "")
        return found[1] if found and found[1] != self.store else None


def describe(text: str | None) -> str:
    """Tell the operator whose mark this is."""
    found = _MARK.fullmatch(text or "")
    return f"another weft (store {found[1]})" if found else "something that weft did not make"
