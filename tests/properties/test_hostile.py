"""Whatever is sent to either socket: an answer that can be read, and of what was refused no trace, here or on the host.

The calls go through the application to the engine, the store and a fake host: only sockets and the kernel are missing.
"""

import json
from typing import Any
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from plugin import wire
from tests.plugin.samples import endpoint_id, network_id
from tests.properties.hostile import GOOD, KEYS, METHODS, OF_NETWORK, POISON, SAYS_AT_MOST, Weft, places, put

READERS = ("version", "status", "networks", "endpoints", "pools", "ports", "peers")

SHELL = (
    f"; touch {POISON}",
    f"$(touch {POISON})",
    f"`{POISON}`",
    f"' {POISON} '",
    f'" {POISON} "',
    f"a\n{POISON}",
    f"eth0 }} ; {POISON}",
    f"../../{POISON}",
    f"a/{POISON}",
    f"%{POISON}",
    f"10.1.0.2%{{ {POISON} }}/24",
    f"fe80::1%{POISON}",
    f"-{POISON}",
    f"\x00{POISON}",
    f"{POISON}\u202e\U0001f980",
    f"{{{{ {POISON} }}}}",
)
"""Texts that mean something to a shell, to nft, to iptables, to a path or to a terminal."""

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(SHELL)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4)
)


@st.composite
def spoilt(draw: st.DrawFn) -> tuple[str, object]:
    """Return a good body with something else at one or two of its places."""
    path = draw(st.sampled_from(sorted(GOOD)))
    body: Any = GOOD[path]
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.sampled_from([place for place in places(body) if place] or [()]))
        body = put(body, at, draw(ANYTHING))
    return path, body


@st.composite
def optioned(draw: st.DrawFn) -> tuple[str, object]:
    """Return a new network or endpoint with options of any text."""
    texts = st.sampled_from(SHELL) | st.text(max_size=40) | st.sampled_from(("", "true", "1", "10.1.0.2", "eth9"))
    options = draw(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=20), texts, min_size=1, max_size=4))
    ids = OF_NETWORK | {"EndpointID": endpoint_id(3)}
    if draw(st.booleans()):
        interface = {"Address": "10.1.0.30/24", "AddressIPv6": "", "MacAddress": draw(texts)}
        return "/NetworkDriver.CreateEndpoint", ids | {"Interface": interface, "Options": options}
    pool = {"Pool": "10.3.0.0/24", "Gateway": draw(texts) or "10.3.0.1/24"}
    body = {"NetworkID": network_id(3), "Options": {wire.GENERIC: options}, "IPv4Data": [pool]}
    return "/NetworkDriver.CreateNetwork", body


@given(call=spoilt())
def test_a_spoilt_body_is_answered_and_leaves_no_trace(weft: Weft, call: tuple[str, object]) -> None:
    path, body = call
    weft.refused_without_trace(path, body)
    weft.unpoisoned()
    weft.clean()


@given(call=optioned())
def test_no_option_reaches_the_host_unchecked(weft: Weft, call: tuple[str, object]) -> None:
    weft.refused_without_trace(*call)
    weft.unpoisoned()
    weft.clean()


@given(
    path=st.sampled_from(sorted(METHODS)),
    raw=st.binary(max_size=400) | ANYTHING.map(lambda one: json.dumps(one).encode()),
)
def test_any_bytes_are_answered(weft: Weft, path: str, raw: bytes) -> None:
    refused = weft.refused_without_trace(path, raw)
    assert refused or METHODS[path].request is wire.NOTHING or "Discover" in path or "Pool" in path or "Gw" in path


@given(
    verb=st.sampled_from(("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD")),
    path=st.sampled_from(READERS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    ident=st.sampled_from(SHELL) | st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    port=st.sampled_from((*SHELL, "8080:80", "0", "99999999999999", "80/icmp", "1-70000")) | st.text(max_size=30),
)
def test_the_control_socket_answers_anything(weft: Weft, verb: str, path: str, ident: str, port: str) -> None:
    before = weft.state()
    for target in (
        f"/v1/{quote(path)}",
        f"/v1/{quote(path)}/{quote(ident, safe='')}",
        f"/v1/{quote(path)}/{quote(ident)}",
    ):
        for query in ("", f"?port={quote(port)}", f"?peer={quote(port)}&network={quote(ident)}"):
            response = weft.client.open(f"{target}{query}", method=verb)
            assert response.status_code < 500, (target, response.text)
            if verb != "HEAD":
                assert response.is_json, target
                assert response.status_code == 200 or any(map(response.get_json().get, ("error", "Err"))), target
            assert len(response.text) < SAYS_AT_MOST
    for method in (weft.client.post, weft.client.delete):
        response = method(f"/v1/endpoints/{quote(ident, safe='')}/ports?port={quote(port)}")
        assert response.status_code < 500
        assert response.is_json
    weft.unpoisoned()
    assert weft.state() == before
