"""Whatever real engines were seen to send is understood, and so is what the next one may add to it."""

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import BaseModel

from plugin import wire
from plugin.app import create_app
from tests.plugin.fake_driver import FakeDriver

RECORDINGS: Final = Path(__file__).parents[2] / "spec" / "recordings"
METHODS: Final = {method.path: method for method in vars(wire).values() if isinstance(method, wire.Method)}
ENGINES: Final = ("20.10.24", "28.5.2")

LOST_BODIES: Final = frozenset(
    (
        ("20.10.24", "/NetworkDriver.CreateEndpoint", "b08-drop-connection"),
        ("20.10.24", "/NetworkDriver.ProgramExternalConnectivity", "b17-connection-close"),
        ("28.5.2", "/NetworkDriver.CreateEndpoint", "b08-drop-connection"),
        ("28.5.2", "/NetworkDriver.Leave", "b17-connection-close"),
    )
)
"""Calls that came without a body, because the recorder broke the connection."""

BARE_KEYS: Final = {
    ("/IpamDriver.RequestPool", "a12-ipam-plain"): {"pool", "vrf"},
    ("/IpamDriver.RequestPool", "a13-ipam-subnet-range-aux"): {"pool"},
    ("/IpamDriver.RequestPool", "a16-ipam-rec-on-bridge"): {"pool"},
    ("/IpamDriver.RequestPool", "b14-ipam-caps-mac-replay"): {"a"},
    ("/IpamDriver.RequestPool", "d02-managed-global-ipam"): {"p"},
    ("/NetworkDriver.AllocateNetwork", "d05-manager-and-worker-restart"): {"k"},
    ("/NetworkDriver.CreateEndpoint", "a26-run-driver-opt"): {"qos"},
    ("/NetworkDriver.CreateEndpoint", "a31-connect-disconnect"): {"sg", "x"},
    ("/NetworkDriver.CreateEndpoint", "d01-managed-global"): {"a", "foo"},
    ("/NetworkDriver.CreateNetwork", "a08-create-driver-opts"): {"Num", "bool", "dup", "empty", "k", "novalue"},
    ("/NetworkDriver.CreateNetwork", "a10-create-attachable-configonly"): {"x"},
    ("/NetworkDriver.CreateNetwork", "b15-gwallocchecker"): {"x"},
    ("/NetworkDriver.CreateNetwork", "c01-sigterm-restart"): {"a"},
    ("/NetworkDriver.CreateNetwork", "d05-manager-and-worker-restart"): {"k"},
    ("/NetworkDriver.CreateNetwork", "d10-managed-local-connglobal"): {"a"},
    ("/NetworkDriver.GwAllocCheck", "b15-gwallocchecker"): {"x"},
}
"""Options without a dot, which scenarios gave to the recorder to see how they arrive: no options of weft's."""


DOCKERS: Final = {"RequestAddressType"}
"""Docker's own, without a dot."""


@dataclass(frozen=True)
class Recorded:
    """One request as an engine sent it."""

    engine: str
    scenarios: tuple[str, ...]
    path: str
    headers: dict[str, str]
    request: Any

    def __str__(self) -> str:
        return f"{self.engine}-{self.path[1:]}-{self.scenarios[0]}"


def recorded() -> Iterator[Recorded]:
    """Return all that is recorded."""
    for engine in ENGINES:
        for file in sorted((RECORDINGS / engine).glob("*.jsonl")):
            for line in file.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                yield Recorded(engine, tuple(row["scenarios"]), row["path"], row["headers"], row["request"])


ALL: Final = list(recorded())


def options(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the maps of a request that hold options an operator can give."""
    top = request.get("Options")
    if top is None:
        return []
    return [top, top[wire.GENERIC]] if wire.GENERIC in top else [top]


def with_invention(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request as an engine to come may send it: with another field, and with another option of Docker's."""
    changed = copy.deepcopy(request)
    for given in options(changed):
        given["com.docker.network.invented"] = "1"
    return {"Invented": {"depth": [1, None]}, **changed}


def expected_error(row: Recorded) -> str | None:
    """Return the error that must be answered, up to the advice at its end; ``None`` where there must be none."""
    if row.request == "":
        lost = any((row.engine, row.path, scenario) in LOST_BODIES for scenario in row.scenarios)
        return f"{METHODS[row.path].name} came without its body: " if lost else None
    keys = BARE_KEYS.get((row.path, row.scenarios[0]), set())
    bare = sorted(key for given in options(row.request) for key in given if key in keys)
    of = "IPAM" if row.path.startswith("/Ipam") else "endpoint" if row.path.endswith("Endpoint") else "network"
    return f"unknown {of} option {bare[0]!r}: " if bare else None


def answer(driver: FakeDriver, row: Recorded, body: bytes) -> dict[str, Any]:
    """Send a request with the headers it had, and return the answer."""
    response = create_app(driver).test_client().post(row.path, data=body, headers=row.headers)
    assert response.status_code == 200
    assert response.content_type == "application/json"
    found = response.get_json()
    assert isinstance(found, dict)
    return found


def check(row: Recorded, found: dict[str, Any], driver: FakeDriver) -> None:
    """Fail unless an answer is what this request must get."""
    error = expected_error(row)
    if error is None:
        reply: BaseModel = METHODS[row.path].reply.model_validate(found)
        assert reply.model_dump(mode="json") == found
    else:
        assert found.keys() == {"Err", "Error"}
        assert found["Err"] == found["Error"]
        assert found["Err"].startswith(error)
        assert driver.asked == []


@pytest.mark.parametrize("row", ALL, ids=str)
def test_every_recorded_request_is_answered(row: Recorded) -> None:
    driver = FakeDriver()
    body = json.dumps(row.request).encode() + b"\n" if row.request else b""
    check(row, answer(driver, row, body), driver)


@pytest.mark.parametrize("row", [row for row in ALL if row.request], ids=str)
def test_and_so_is_what_the_next_engine_may_add(row: Recorded) -> None:
    driver, added = FakeDriver(), FakeDriver()
    found = answer(driver, row, json.dumps(row.request).encode())
    if "Options" in found:  # AllocateNetwork's, which says all of them again
        found["Options"] |= {key: "1" for key in with_invention(row.request)["Options"] if key.endswith(".invented")}
    assert answer(added, row, json.dumps(with_invention(row.request)).encode()) == found
    assert added.asked == driver.asked


def test_the_exceptions_are_all_there() -> None:
    lost = {
        (row.engine, row.path, scenario)
        for row in ALL
        if row.request == "" and METHODS[row.path].request is not wire.NOTHING
        for scenario in row.scenarios
    }
    assert lost == LOST_BODIES
    bare = {
        (row.path, row.scenarios[0])
        for row in ALL
        if row.request
        and row.path != "/IpamDriver.RequestAddress"  # where a swarm's manager repeats what RequestPool was given
        and any(re.fullmatch(r"[^.]+", key) for given in options(row.request) for key in given.keys() - DOCKERS)
    }
    assert bare == BARE_KEYS.keys()


@pytest.mark.parametrize("engine", ENGINES)
def test_every_method_was_recorded(engine: str) -> None:
    only_28 = {"/NetworkDriver.GwAllocCheck"} if engine == "20.10.24" else set()
    assert {row.path for row in ALL if row.engine == engine} == METHODS.keys() - only_28
