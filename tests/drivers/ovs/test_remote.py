"""Where the database is, and what is said about a place where it cannot be."""

import socket
from pathlib import Path

import pytest

from drivers.errors import InvalidRequest
from drivers.ovsdb import Remote, find, parse


@pytest.mark.parametrize(
    ("environment", "remote"),
    [
        ({}, Remote("unix:/run/openvswitch/db.sock", Path("/run/openvswitch"))),
        ({"WEFT_OVSDB": "", "OVS_RUNDIR": ""}, Remote("unix:/run/openvswitch/db.sock", Path("/run/openvswitch"))),
        ({"OVS_RUNDIR": "/var/run/ovs"}, Remote("unix:/var/run/ovs/db.sock", Path("/var/run/ovs"))),
        ({"WEFT_OVSDB": "unix:/x/db.sock"}, Remote("unix:/x/db.sock", Path("/run/openvswitch"))),
        ({"WEFT_OVSDB": "unix:/x/db.sock", "OVS_RUNDIR": "/x"}, Remote("unix:/x/db.sock", Path("/x"))),
        ({"WEFT_OVSDB": "tcp:192.0.2.1:6640"}, Remote("tcp:192.0.2.1:6640", None)),
        ({"WEFT_OVSDB": "tcp:192.0.2.1"}, Remote("tcp:192.0.2.1:6640", None)),
        ({"WEFT_OVSDB": "tcp:192.0.2.1:1"}, Remote("tcp:192.0.2.1:1", None)),
        ({"WEFT_OVSDB": "tcp:[2001:db8::1]:65535"}, Remote("tcp:[2001:db8::1]:65535", None)),
        ({"WEFT_OVSDB": "tcp:[2001:DB8:0::1]"}, Remote("tcp:[2001:db8::1]:6640", None)),
    ],
)  # fmt: skip
def test_the_database_is_found(environment: dict[str, str], remote: Remote) -> None:
    assert find(environment) == remote


@pytest.mark.parametrize(
    "text",
    [
        "/run/openvswitch/db.sock",
        "unix:",
        "unix:db.sock",
        "unix:/" + "x" * 107,
        "unix:/x\0y",
        "UNIX:/x",
        "tcp:",
        "tcp:localhost:6640",
        "tcp:192.0.2.1:",
        "tcp:192.0.2.1:0",
        "tcp:192.0.2.1:65536",
        "tcp:192.0.2.1:66x",
        "tcp:192.0.2.1:-1",
        "tcp:192.0.2.1:\u0661",
        "tcp:192.0.2:6640",
        "tcp:2001:db8::1:6640",
        "tcp:[2001:db8::1:6640",
        "tcp:[2001:db8::1]6640",
        "tcp:[192.0.2.1]:6640",
        "tcp:[fe80::1%lo]:6640",
        "ssl:192.0.2.1:6640",
        "ptcp:6640",
        "punix:/x",
        "tcp:192.0.2.1:6640,tcp:192.0.2.2:6640",
    ],
)
def test_what_is_no_database_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match=r"unix: and an absolute path of at most 107 bytes, or tcp:ADDRESS:PORT"):
        parse(text)
    with pytest.raises(InvalidRequest, match=r"^WEFT_OVSDB=.*: allowed is unix: and an absolute path"):
        find({"WEFT_OVSDB": text})


def test_a_run_directory_is_absolute() -> None:
    with pytest.raises(InvalidRequest, match="OVS_RUNDIR='run': allowed is an absolute path"):
        find({"OVS_RUNDIR": "run"})
    with pytest.raises(InvalidRequest, match=r"WEFT_OVSDB='unix:/x+/db\.sock': allowed is"):
        find({"OVS_RUNDIR": "/" + "x" * 107})


def test_a_refusal_is_told_in_the_kernels_words(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert parse(f"unix:{path}").refusal() == "No such file or directory"
    for family, place, address in (
        (socket.AF_UNIX, str(path), f"unix:{path}"),
        (socket.AF_INET, ("127.0.0.1", 0), "tcp:127.0.0.1:{}"),
        (socket.AF_INET6, ("::1", 0), "tcp:[::1]:{}"),
    ):
        with socket.socket(family) as sock:
            sock.bind(place)
            name = sock.getsockname()
            remote = parse(address.format(name[1]))
            assert remote.refusal() == "Connection refused"
            sock.listen()
            assert remote.refusal() == ""
