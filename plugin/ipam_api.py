"""IpamDriver: its handshake is answered; asked for addresses, this version says what to use in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NoReturn

from flask import Blueprint

from drivers.errors import Unsupported
from plugin import wire
from plugin.calls import blueprint, call

NOT_YET: Final = "weft's address management is not in this version; use Docker's default: leave out --ipam-driver weft"


def ipam_api(suspect: Callable[[], None]) -> Blueprint:
    """Return the calls of IpamDriver; for ``suspect`` see :func:`plugin.calls.blueprint`."""
    return blueprint(
        "ipam",
        (
            call(wire.IPAM_CAPABILITIES, lambda _: wire.IpamCapabilities()),
            call(wire.ADDRESS_SPACES, lambda _: wire.AddressSpaces()),
            call(wire.REQUEST_POOL, _refuse),
            call(wire.RELEASE_POOL, _refuse),
            call(wire.REQUEST_ADDRESS, _refuse),
            call(wire.RELEASE_ADDRESS, _refuse),
        ),
        suspect,
    )


def _refuse(_: wire.Request) -> NoReturn:
    raise Unsupported(NOT_YET)
