"""The switch's refusals in the operator's words, by the numbers of OpenFlow 1.4 (ONF TS-012, 7.5.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from drivers.openflow.messages import Refusal

_TYPES: Final[Mapping[int, str]] = {
    0: "the versions do not meet",
    1: "it does not know the request",
    2: "it does not take an action",
    3: "it does not take an instruction",
    4: "it does not take a match",
    5: "it does not take the flow",
    13: "it does not take the request for a dump",
    17: "it does not take the bundle",
}

_CODES: Final[Mapping[Refusal, str]] = {
    Refusal(1, 5): "not permitted",
    Refusal(2, 4): "an action names an interface that the bridge has not",
    Refusal(2, 5): "an action has a value that is out of range",
    Refusal(4, 6): "a match names a field that this Open vSwitch does not know",
    Refusal(4, 9): "a match lacks the protocol that its fields need",
    Refusal(5, 1): "its table is full",
    Refusal(5, 2): "there is no such table",
    Refusal(17, 2): "there is no such bundle any more",
    Refusal(17, 11): "it took too long to put the bundle together",
    Refusal(17, 14): "the bundle was forgotten: it took too long",
}


def explain(refusal: Refusal) -> str:
    """Return a clause: why the switch refused, with OpenFlow's own numbers."""
    words = _CODES.get(refusal) or _TYPES.get(refusal.type) or "it refused"
    return f"{words} (OpenFlow error {refusal.type}, {refusal.code})"
