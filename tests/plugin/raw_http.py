"""HTTP as bytes: what Go writes, and what comes back until the server closes."""

import socket
from pathlib import Path


def request(path: str, body: bytes = b"", host: str = "") -> bytes:
    """Return a request as Go writes it (20.10.24: Host is empty)."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {len(body)}\r\n"
        "Accept: application/vnd.docker.plugins.v1.2+json\r\n\r\n"
    ).encode() + body


def exchange(path: Path, raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send raw bytes and read until the server closes: status, headers, body."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(raw)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return (
        int(status.split()[1]),
        {name: value.strip() for name, _, value in (line.partition(":") for line in lines)},
        body,
    )
