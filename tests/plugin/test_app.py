"""Every call gets an answer that Docker can read, whatever it says and whatever goes wrong behind it."""

import json
import logging
import sqlite3
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from flask import Blueprint

from drivers.errors import (
    Conflict,
    DeadlineExceeded,
    HostFailure,
    InvalidRequest,
    NotFound,
    Refusing,
    Unsupported,
    WeftError,
)
from plugin import calls, errors, wire
from plugin.app import create_app
from plugin.requests import AddressRequest, EndpointRequest, Joined, NetworkRequest, PoolRequest
from tests.plugin.bodies import BODIES, ENDPOINT, METHODS, NEED_A_BODY, NEED_NO_BODY, NETWORK, NO_ADDRESSES, OF_ENDPOINT
from tests.plugin.fake_driver import MAC, FakeDriver

ASKED = {
    "/NetworkDriver.CreateNetwork": ("create_network", NetworkRequest(id=NETWORK)),
    "/NetworkDriver.DeleteNetwork": ("delete_network", NETWORK),
    "/NetworkDriver.DeleteEndpoint": ("delete_endpoint", NETWORK, ENDPOINT),
    "/NetworkDriver.Join": ("join", NETWORK, ENDPOINT, "/var/run/docker/netns/0123456789ab"),
    "/NetworkDriver.Leave": ("leave", NETWORK, ENDPOINT),
    "/NetworkDriver.ProgramExternalConnectivity": ("program_external", NETWORK, ENDPOINT),
    "/NetworkDriver.RevokeExternalConnectivity": ("revoke_external", NETWORK, ENDPOINT),
}


def post(driver: FakeDriver, path: str, body: object = b"") -> Any:  # noqa: ANN401 - JSON is anything
    """Send a call as Docker does: POST, no Content-Type, an empty Host."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode() + b"\n"
    response = create_app(driver).test_client().post(path, data=raw, headers={"Host": ""})
    assert (response.status_code, response.content_type) == (200, "application/json")
    return response.get_json()


def failure(driver: FakeDriver, path: str, body: object = b"") -> str:
    """Send a call that must fail, and return what is said of it."""
    found = post(driver, path, body)
    assert found.keys() == {"Err", "Error"}
    assert found["Err"] == found["Error"] != ""
    return str(found["Err"])


@pytest.mark.parametrize("path", sorted(ASKED))
def test_the_engine_is_asked(path: str) -> None:
    driver = FakeDriver()
    assert "Err" not in post(driver, path, BODIES[path])
    assert driver.asked == [ASKED[path]]


def test_an_endpoint_s_mac_is_answered_if_docker_named_none() -> None:
    driver = FakeDriver()
    given = BODIES["/NetworkDriver.CreateEndpoint"] | {"Interface": {"MacAddress": "02:00:00:00:00:07"}}
    assert post(driver, "/NetworkDriver.CreateEndpoint", BODIES["/NetworkDriver.CreateEndpoint"]) == {
        "Interface": NO_ADDRESSES | {"MacAddress": MAC}
    }
    assert post(driver, "/NetworkDriver.CreateEndpoint", given) == {"Interface": NO_ADDRESSES | {"MacAddress": ""}}
    requests = [asked[1] for asked in driver.asked]
    assert [request.mac for request in requests if isinstance(request, EndpointRequest)] == [None, "02:00:00:00:00:07"]


def test_joining_answers_what_the_engine_says() -> None:
    driver = FakeDriver(joined=Joined(link="wfc0", prefix="eth", gateway4=ip_address("10.9.0.1")))
    assert post(driver, "/NetworkDriver.Join", BODIES["/NetworkDriver.Join"]) == {
        "InterfaceName": {"SrcName": "wfc0", "DstPrefix": "eth", "DstName": ""},
        "Gateway": "10.9.0.1",
        "GatewayIPv6": "",
        "StaticRoutes": [],
        "DisableGatewayService": True,
    }


@pytest.mark.parametrize("body", [b"", b"{}\n", b"\x00garbage", b"[" * 100_000])
@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/Plugin.Activate", {"Implements": ["NetworkDriver", "IpamDriver"]}),
        (
            "/NetworkDriver.GetCapabilities",
            {"Scope": "local", "ConnectivityScope": "local", "GwAllocChecker": True},
        ),
        ("/NetworkDriver.EndpointOperInfo", {"Value": {}}),
        ("/NetworkDriver.FreeNetwork", {}),
        ("/IpamDriver.GetCapabilities", {"RequiresMACAddress": False, "RequiresRequestReplay": False}),
        (
            "/IpamDriver.GetDefaultAddressSpaces",
            {"LocalDefaultAddressSpace": "weft-local", "GlobalDefaultAddressSpace": "weft-global"},
        ),
    ],
)
def test_what_must_never_fail_never_does(path: str, body: bytes, answer: dict[str, object]) -> None:
    assert path in NEED_NO_BODY
    driver = FakeDriver(fails=Refusing("the store cannot be read"))
    assert post(driver, path, body) == answer
    assert (driver.asked, driver.suspicions) == ([], 0)


def test_the_table_above_is_complete() -> None:
    assert set(NEED_NO_BODY) == {
        "/Plugin.Activate",
        "/NetworkDriver.GetCapabilities",
        "/NetworkDriver.EndpointOperInfo",
        "/NetworkDriver.FreeNetwork",
        "/IpamDriver.GetCapabilities",
        "/IpamDriver.GetDefaultAddressSpaces",
    }
    assert BODIES.keys() == {path for path in NEED_A_BODY if path.startswith("/NetworkDriver.")}


@pytest.mark.parametrize("path", NEED_A_BODY)
def test_a_lost_body_is_an_error_that_is_looked_into(path: str) -> None:
    driver = FakeDriver()
    said = failure(driver, path)
    assert said.startswith(f"{METHODS[path].name} came without its body")
    assert "again" in said
    assert (driver.asked, driver.suspicions) == ([], 1)


@pytest.mark.parametrize("path", NEED_A_BODY)
@pytest.mark.parametrize("body", [b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_cannot_be_read_changes_nothing(path: str, body: bytes) -> None:
    driver = FakeDriver()
    said = failure(driver, path, body)
    assert said.startswith(f"{METHODS[path].name}: weft cannot read this request, and changed nothing: ")
    assert len(said) < 800
    assert (driver.asked, driver.suspicions) == ([], 0)


def test_an_unreadable_field_is_named() -> None:
    body = OF_ENDPOINT | {"Interface": {"Address": "10.9.0.300/24"}}
    assert "Interface.Address: " in failure(FakeDriver(), "/NetworkDriver.CreateEndpoint", body)


def test_a_body_of_any_size_up_to_the_limit_is_read() -> None:
    rows = [
        {"Proto": 6, "IP": "", "Port": port, "HostIP": "", "HostPort": port, "HostPortEnd": port}
        for port in range(1, 10_001)
    ]
    body = OF_ENDPOINT | {"Options": {"com.docker.network.portmap": rows}}
    driver = FakeDriver()
    assert "Err" not in post(driver, "/NetworkDriver.CreateEndpoint", body)
    request = driver.asked[0][1]
    assert isinstance(request, EndpointRequest)
    assert [(run.host_first, run.count) for run in request.ports] == [(1, 10_000)]


def test_a_larger_one_is_not() -> None:
    driver = FakeDriver()
    said = failure(driver, "/NetworkDriver.CreateEndpoint", b" " * (wire.BODY_LIMIT + 1))
    assert said.startswith("NetworkDriver.CreateEndpoint: the body is larger than 16 MiB")
    assert driver.asked == []


def test_options_are_judged_wherever_they_come() -> None:
    bad = {"com.docker.network.driver.mtu": "1"}
    driver = FakeDriver()
    for path, body in (
        ("/NetworkDriver.CreateNetwork", {"NetworkID": NETWORK, "Options": {wire.GENERIC: bad}}),
        ("/NetworkDriver.GwAllocCheck", {"Options": {wire.GENERIC: bad}}),
        ("/NetworkDriver.AllocateNetwork", {"NetworkID": NETWORK, "Options": bad}),
    ):
        assert failure(driver, path, body).startswith("com.docker.network.driver.mtu='1' cannot be: allowed is 68 to")
    assert driver.asked == []
    assert post(driver, "/NetworkDriver.GwAllocCheck", {"Options": {}}) == {"SkipIPv4": False, "SkipIPv6": False}
    given = {"Options": {"weft.tunnel": "none"}}
    assert post(driver, "/NetworkDriver.AllocateNetwork", {"NetworkID": NETWORK} | given) == given


@pytest.mark.parametrize(
    ("path", "body", "asked", "answer"),
    [
        (
            "/IpamDriver.RequestPool",
            {"AddressSpace": "weft-local", "Pool": "", "SubPool": "", "Options": None, "V6": True},
            ("request_pool", PoolRequest(space="weft-local", version=6)),
            {"PoolID": "weft-local/fd09::/64", "Pool": "fd09::/64", "Data": {}},
        ),
        (
            "/IpamDriver.RequestPool",
            {"Pool": "10.9.0.7/16", "SubPool": "10.9.5.0/24", "Options": {"weft.pool": "blue"}, "V6": False},
            (
                "request_pool",
                PoolRequest(
                    space="weft-local",
                    version=4,
                    subnet=ip_network("10.9.0.0/16"),
                    within=ip_network("10.9.5.0/24"),
                    name="blue",
                ),
            ),
            {"PoolID": "weft-local/10.9.0.0/16?within=10.9.5.0/24&pool=blue", "Pool": "10.9.0.0/16", "Data": {}},
        ),
        (
            "/IpamDriver.RequestAddress",
            {"PoolID": "p", "Address": "", "Options": {"RequestAddressType": "com.docker.network.gateway"}},
            ("request_address", AddressRequest(pool="p", gateway=True)),
            {"Address": "10.9.0.2/24", "Data": {}},
        ),
        (
            "/IpamDriver.RequestAddress",
            {"PoolID": "p", "Address": "10.9.0.7", "Options": None},
            ("request_address", AddressRequest(pool="p", address=ip_address("10.9.0.7"))),
            {"Address": "10.9.0.7/24", "Data": {}},
        ),
        (
            "/IpamDriver.ReleaseAddress",
            {"PoolID": "p", "Address": "10.9.0.2"},
            ("release_address", "p", ip_address("10.9.0.2")),
            {},
        ),
        ("/IpamDriver.ReleasePool", {"PoolID": "p"}, ("release_pool", "p"), {}),
    ],
)
def test_addresses_are_managed(
    path: str, body: dict[str, object], asked: tuple[object, ...], answer: dict[str, object]
) -> None:
    driver = FakeDriver()
    assert post(driver, path, body) == answer
    assert driver.asked == [asked]


def test_a_dockerd_that_starts_is_noticed() -> None:
    driver = FakeDriver()
    post(driver, "/Plugin.Activate")  # of a plugin by its socket
    post(driver, "/IpamDriver.GetCapabilities")  # and of a managed one
    assert driver.greetings == 2


@pytest.mark.parametrize(
    "path", sorted(BODIES.keys() - {"/NetworkDriver.GwAllocCheck", "/NetworkDriver.AllocateNetwork"})
)
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InvalidRequest("one\ntwo"), "one\ntwo"),
        (
            Refusing("the state cannot be read: disk image is malformed"),
            "the state cannot be read: disk image is malformed",
        ),
        (DeadlineExceeded("waited 20 s for the lock of network 5f5f"), "waited 20 s for the lock of network 5f5f"),
        (
            ExceptionGroup("g", [HostFailure("a"), ExceptionGroup("h", [NotFound("b"), HostFailure("a")])]),
            "a\nb",
        ),
    ],
)
def test_what_weft_raises_is_told_as_it_is(
    path: str, error: Exception, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    driver = FakeDriver(fails=error)
    assert failure(driver, path, BODIES[path]) == said
    assert driver.suspicions == 0
    assert [(record.levelno, record.getMessage(), record.exc_info) for record in caplog.records] == [
        (logging.WARNING, calls.REFUSED, None)
    ]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            sqlite3.OperationalError("disk I/O error"),
            r"weft's store failed \(OperationalError: disk I/O error\); look at the disk",
        ),
        (
            OSError(28, "No space left on device"),
            r"the host failed weft \(OSError: \[Errno 28\] No space left on device\)",
        ),
        (KeyError("x"), r"weft failed in a way it did not foresee \(KeyError: 'x'\); its log has the traceback"),
        (
            ExceptionGroup("g", [Conflict("a"), ValueError("b")]),
            r"^a\nweft failed in a way it did not foresee \(ValueError: b\)",
        ),
    ],
)
def test_what_nobody_foresaw_is_told_and_logged_with_its_traceback(
    error: Exception, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    driver = FakeDriver(fails=error)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(failure(driver, "/NetworkDriver.Join", BODIES["/NetworkDriver.Join"]))
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, calls.FAILED)
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert record.__dict__["method"] == "/NetworkDriver.Join"


@pytest.mark.parametrize("error", [Conflict("10.9.0.2 is held"), ExceptionGroup("g", [NotFound("x"), Conflict("y")])])
def test_a_conflict_is_looked_into(error: Exception) -> None:
    driver = FakeDriver(fails=error)
    failure(driver, "/NetworkDriver.CreateNetwork", BODIES["/NetworkDriver.CreateNetwork"])
    assert driver.suspicions == 1


@pytest.mark.parametrize("path", ["/NetworkDriver.Invented", "/", "/NetworkDriver", "/x/NetworkDriver.Join"])
def test_an_unknown_method_is_404_with_both_keys(path: str) -> None:
    response = create_app(FakeDriver()).test_client().post(path, data=b"{}")
    assert (response.status_code, response.content_type) == (404, "application/json")
    assert response.get_json().keys() == {"Err", "Error"}


def test_docker_always_posts() -> None:
    response = create_app(FakeDriver()).test_client().get("/Plugin.Activate")
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert response.get_json().keys() == {"Err", "Error"}


def test_there_is_room_for_another_blueprint() -> None:
    control = Blueprint("control", __name__)
    control.add_url_rule("/status", view_func=lambda: "up")
    client = create_app(FakeDriver(), control).test_client()
    assert client.get("/status").text == "up"
    assert client.post("/Plugin.Activate").status_code == 200


def test_every_error_has_a_status_for_the_commands() -> None:
    leaves = [one for one in WeftError.__subclasses__() if one.__module__ == WeftError.__module__]
    assert set(errors.HTTP_STATUS) == set(leaves)
    assert len(set(errors.HTTP_STATUS.values())) == len(leaves)
    assert errors.status(errors.LostBody("x")) == 400
    assert errors.status(ExceptionGroup("g", [Conflict("a"), ExceptionGroup("h", [Conflict("b")])])) == 409
    assert errors.status(ExceptionGroup("g", [Conflict("a"), Unsupported("b")])) == 500
    assert errors.status(ValueError("x")) == 500
