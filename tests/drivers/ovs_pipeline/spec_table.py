"""The flows of one network in letters instead of numbers: what spec/datapath-ovs.md shows, from the planner itself."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple

from drivers.ovs import pipeline
from drivers.ovs.model import Attachment, Gateway, Peer, Segment, Switch, Tunnel
from drivers.ovs.tables import Table
from drivers.resources import Flow, Resource
from tests.lab.names import REPO

PAGE: Final = REPO / "spec" / "datapath-ovs.md"

_GATEWAY: Final = Gateway(
    port="wfgGATEWAY",
    mac="02:00:00:00:00:01",
    addresses=(ip_address("192.0.2.1"), ip_address("2001:db8::1")),
)
_SEGMENT: Final = Segment(
    id="NET",
    number=0xABCDE,
    gateway=_GATEWAY,
    tunnel=Tunnel(port="wftTUNNEL", vni=0xABCDEF, peers=(Peer(address=ip_address("198.51.100.9"), slot=37),)),
)
_HERE: Final = Attachment(
    id="EP",
    port="wfhPORT",
    mac="02:00:00:00:00:aa",
    slot=70,
    addresses=(ip_address("192.0.2.10"), ip_address("2001:db8::10")),
)
_LAYER_2: Final = replace(_HERE, addresses=())

_LETTERS: Final = (
    ('"wfgGATEWAY"', "GATEWAY"),
    ('"wftTUNNEL"', "TUNNEL"),
    ('"wfhPORT"', "PORT"),
    ("02:00:00:00:00:01", "GW-MAC"),
    ("02:00:00:00:00:aa", "MAC"),
    ("192.0.2.10", "IP4"),
    ("192.0.2.1", "GW4"),
    ("2001:db8::10", "IP6"),
    ("2001:db8::1", "GW6"),
    ("fe80::ff:fe00:1", "GW6"),
    ("fe80::ff:fe00:aa", "IP6"),
    ("198.51.100.9", "PEER"),
    ("0xabcdef", "VNI"),
    ("0xabcde", "NET"),
    ("reg3=0x2,reg4=0x6", "reg3=PAGE,reg4=PLACE"),
    ("reg3=0x1,reg4=0x5", "reg3=PAGE,reg4=PLACE"),
    ("reg3=0x2", "reg3=PAGE"),
    ("reg3=0x1", "reg3=PAGE"),
    ("reg5=0x1", "reg5=1"),
    ("reg2=0x1", "reg2=1"),
    ("reg1=0x2", "reg1=2"),
    (":0x1->", ":1->"),
    (":0x2->", ":2->"),
)
_STEP: Final = re.compile(r"set_field:(?:0x[0-9a-f]+|0)->(reg[34]),(resubmit\(,\d+\))")
_ROW: Final = re.compile(
    r"^\| (?P<whose>\w[\w ,]*) \| (?P<tables>[\d, ]+) \| (?P<priority>[\w+]+) \| (?P<match>.*?) \| (?P<actions>.*?) \|"
)
_MEANING: Final = re.compile(r"^(?P<name>[A-Z-]+) = (?P<text>.+)$", re.MULTILINE)


class Row(NamedTuple):
    """A flow, in letters."""

    whose: str
    table: int
    priority: str
    match: str
    actions: str


def planned() -> set[Row]:
    """Return what the planner makes of the example, with and without icc, with and without addresses."""
    switch = Switch()
    closed = replace(_SEGMENT, icc=False)
    open_, judged = (set(pipeline.network(switch, segment)) for segment in (_SEGMENT, closed))
    plans: list[tuple[str, Iterable[Resource]]] = [
        ("host", pipeline.host(switch)),
        ("network", open_ & judged),
        ("network icc", open_ - judged),
        ("network no icc", judged - open_),
        ("port", pipeline.endpoint(switch, _SEGMENT, _HERE)),
        (
            "port without address",
            set(pipeline.endpoint(switch, _SEGMENT, _LAYER_2)) - set(pipeline.endpoint(switch, _SEGMENT, _HERE)),
        ),
    ]
    return {_row(whose, one) for whose, plan in plans for one in plan if isinstance(one, Flow)}


def shown() -> set[Row]:
    """Return what the page shows."""
    return set(_read(PAGE))


def _read(path: Path) -> Iterator[Row]:
    text = path.read_text()
    meanings = {found["name"]: found["text"] for found in _MEANING.finditer(text)}
    for line in text.splitlines():
        found = _ROW.match(line)
        if found:
            match, actions = (found[name].replace("`", "") for name in ("match", "actions"))
            actions = ",".join(_own(found["whose"], meanings.get(part, part)) for part in actions.split(" "))
            for table in found["tables"].split(", "):
                yield Row(found["whose"], int(table), found["priority"], "" if match == "all" else match, actions)


def _own(whose: str, actions: str) -> str:
    """Return named actions with a far endpoint's own letters."""
    if whose == "far endpoint" and "FAR" not in actions:
        actions = re.sub(r"\b(MAC)\b", r"FAR-\1", actions)
        actions = re.sub(r"\bIP([46])\b", r"FAR\1", actions)
    return actions


def _row(whose: str, one: Flow) -> Row:
    priority = "100+PLACE" if one.table == Table.PAGE else f"{one.priority}"
    return Row(whose, one.table, priority, _lettered(one.match), _walk(one.actions) or _lettered(one.actions))


def _walk(actions: str) -> str:
    """Return the steps of a walk in short; nothing if it is none."""
    steps = _STEP.findall(actions)
    if len(steps) < 3:
        return ""
    assert actions == ",".join(
        f"set_field:{n:#x}->{register},{then}" for n, (register, then) in enumerate(steps)
    ).replace("set_field:0x0->", "set_field:0->")
    register, then = steps[0]
    return f"set_field:N->{register},{then} for N = 0 to {len(steps) - 1}"


def _lettered(text: str) -> str:
    for value, letters in _LETTERS:
        text = text.replace(value, letters)
    return re.sub(r"cookie=0x[0-9a-f]+", "cookie=COOKIE", text)
