"""A network namespace of a test's own, in this process: the thread that enters it is in it, and no other.

Sockets stay in the namespace they were made in, and programs started by the thread run in it, so one thread can hold a
whole small internet: see `Netns.entered`.
"""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Self

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def sh(*args: str, text: str = "") -> str:
    """Run a program in this thread's namespace; return what it prints, raise with what it complains about."""
    done = subprocess.run(args, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(args)}: {done.stderr or done.stdout}")
    return done.stdout


def sysctl(path: str, value: str) -> None:
    """Set a switch under /proc/sys/net of this thread's namespace."""
    Path("/proc/sys/net", path).write_text(value)


class Netns:
    """A network namespace without a name: it goes with its last socket, link to another, and this object."""

    def __init__(self) -> None:
        here = _current()
        try:
            _ok(_libc.unshare(_CLONE_NEWNET))
            self._fd = _current()
            _prepare()
        finally:
            _enter(here)
            os.close(here)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    @property
    def path(self) -> str:
        """What `ip link set LINK netns PATH` takes, in a program that this process starts."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def entered(self) -> AbstractContextManager[None]:
        """Be in the namespace with this thread, and come back after."""
        return entered(self._fd)


@contextmanager
def entered(fd: int) -> Iterator[None]:
    """Be in the namespace that a file descriptor is of with this thread, and come back after."""
    here = _current()
    try:
        _enter(fd)
        yield
    finally:
        _enter(here)
        os.close(here)


@contextmanager
def inside(path: Path) -> Iterator[None]:
    """Be in the namespace at `path` with this thread (/run/netns/NAME), and come back after."""
    there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with entered(there):
            yield
    finally:
        os.close(there)


@contextmanager
def private_netns() -> Iterator[Netns]:
    """Put this thread into a new network namespace, with lo up and no forwarding, and bring it back after."""
    with Netns() as netns, netns.entered():
        yield netns


def _prepare() -> None:
    sh("ip", "link", "set", "lo", "up")
    for path in (
        "ipv4/ip_forward",
        "ipv6/conf/all/forwarding",
    ):  # inherited from the machine's own (facts/network.md 3)
        sysctl(path, "0")


def _current() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _enter(fd: int) -> None:
    _ok(_libc.setns(fd, _CLONE_NEWNET))


def _ok(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
