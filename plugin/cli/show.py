"""What the readers print: tables by default, JSON on demand."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from urllib.parse import quote

from plugin import __version__
from plugin.cli.say import counted, say
from plugin.client import NotRunning, ask
from plugin.config import control_path

Answer = Callable[[argparse.Namespace], int]
View = dict[str, Any]

_SHORT: Final = 12
_READABLE: Final = 10**9


def status(options: argparse.Namespace) -> int:
    """Show weft's health."""
    view = _get("/v1/status")
    if not _json(options, view):
        if "refusing" in view:
            say(f"refusing: {view['refusing']}")
        else:
            say(f"weft {view['version']}, pid {view['pid']}, store {view['store']}")
            say(f"{counted(view['networks'], 'network')}, {counted(view['endpoints'], 'endpoint')}")
            if view["trouble"]:
                say(f"the store cannot be written: {view['trouble']}")
            _findings(view["differs"], none="the host is as wanted")
            for path, found in view["host_settings"].items():
                say(f"host setting changed: {path} was {found}")
            for note in view["notes"]:
                say(f"note: {note}")
    return 0 if view["healthy"] else 1


def version(options: argparse.Namespace) -> int:
    """Show the version of this command and of the running weft."""
    try:
        running = _get("/v1/version")["version"]
    except NotRunning:
        running = None
    if not _json(options, {"command": __version__, "running": running}):
        say(f"weft {__version__} (running: {running or 'no'})")
    return 0


def network_ls(options: argparse.Namespace) -> int:
    """List the networks."""
    views = _get("/v1/networks")
    if not _json(options, views):
        _table(
            ("ID", "NAME", "BRIDGE", "SUBNETS", "ENDPOINTS", "STATE"),
            (
                (
                    view["id"][:_SHORT],
                    view["name"] or "-",
                    view["link"] + (" (adopted)" if view["adopted"] else ""),
                    ", ".join(one["subnet"] for one in view["subnets"]) or "-",
                    str(view["endpoints"]),
                    view["phase"] + (", internal" if view["internal"] else ""),
                )
                for view in views
            ),
        )
    return 0


def network_inspect(options: argparse.Namespace) -> int:
    """Show one network."""
    return _inspect(options, f"/v1/networks/{quote(options.id, safe='')}")


def endpoint_ls(options: argparse.Namespace) -> int:
    """List the endpoints."""
    views = _get("/v1/endpoints")
    if not _json(options, views):
        _table(
            ("ID", "NETWORK", "CONTAINER", "LINK", "IPV4", "IPV6", "MAC", "STATE"),
            (
                (
                    view["id"][:_SHORT],
                    view["network_name"] or view["network"][:_SHORT],
                    view["container"] or "-",
                    view["link"],
                    view["ipv4"] or "-",
                    view["ipv6"] or "-",
                    view["mac"],
                    view["phase"] + (", joined" if view["sandbox"] else ""),
                )
                for view in views
            ),
        )
    return 0


def endpoint_inspect(options: argparse.Namespace) -> int:
    """Show one endpoint."""
    return _inspect(options, f"/v1/endpoints/{quote(options.id, safe='')}")


def pool_ls(options: argparse.Namespace) -> int:
    """List the pools."""
    views = _get("/v1/pools")
    if not _json(options, views):
        _table(
            ("SUBNET", "RANGE", "NAME", "SPACE", "NETWORK", "USED", "OF", "%"),
            (
                (
                    view["subnet"],
                    view["range"] or "-",
                    view["name"] or "-",
                    view["space"],
                    view["network_name"] or (view["network"] or "-")[:_SHORT],
                    str(view["used"]),
                    _number(view["size"]),
                    f"{view['percent']:g}",
                )
                for view in views
            ),
        )
    return 0


def pool_inspect(options: argparse.Namespace) -> int:
    """Show one pool, and who holds its addresses."""
    view = _get(f"/v1/pools/{quote(options.pool, safe='')}")
    if not _json(options, view):
        network = view["network_name"] or (view["network"] or "no network that weft knows")[:_SHORT]
        say(f"{view['id']}: {view['used']} of {_number(view['size'])} addresses held, on {network}")
        _table(
            ("ADDRESS", "KIND", "NAME", "ENDPOINT", "SINCE"),
            (
                (one["address"], one["kind"], one["name"] or "-", (one["endpoint"] or "-")[:_SHORT], one["since"])
                for one in view["held"]
            ),
        )
    return 0


def _number(size: int) -> str:
    """Write a number of addresses, one that nobody can read as a power of two."""
    return str(size) if size < _READABLE else f"2^{size.bit_length()}"


def port_ls(options: argparse.Namespace) -> int:
    """List the published ports."""
    return _ports(options, _get("/v1/ports"))


def port_add(options: argparse.Namespace) -> int:
    """Publish a port of a running container."""
    return _ports(options, _ask("POST", _ports_of(options)))


def port_rm(options: argparse.Namespace) -> int:
    """Publish a port no longer."""
    return _ports(options, _ask("DELETE", _ports_of(options)))


def _ports_of(options: argparse.Namespace) -> str:
    return f"/v1/endpoints/{quote(options.endpoint, safe='')}/ports?port={quote(options.port, safe='')}"


def _ports(options: argparse.Namespace, views: list[View]) -> int:
    if not _json(options, views):
        _table(
            ("ENDPOINT", "CONTAINER", "HOST", "CONTAINER PORTS", "BY"),
            (
                (
                    view["endpoint"][:_SHORT],
                    view["container"] or "-",
                    view["host"] + (" (its own)" if view["routed"] else ""),
                    f"{view['container_ports']}/{view['transport']}",
                    view["by"],
                )
                for view in views
            ),
        )
    return 0


def peer_ls(options: argparse.Namespace) -> int:
    """List the peers."""
    return _peers(options, _get("/v1/peers"))


def peer_add(options: argparse.Namespace) -> int:
    """Let networks go on at another host."""
    return _peers(options, _ask("POST", _peer_of(options)))


def peer_rm(options: argparse.Namespace) -> int:
    """Let them go on there no longer."""
    return _peers(options, _ask("DELETE", _peer_of(options)))


def _peer_of(options: argparse.Namespace) -> str:
    return f"/v1/peers?peer={quote(options.peer, safe='')}&network={quote(options.network, safe='')}"


def _peers(options: argparse.Namespace, views: list[View]) -> int:
    if not _json(options, views):
        _table(
            ("PEER", "NETWORK", "BY", "ROUTE"),
            (
                (
                    view["peer"],
                    view["network_name"] or (view["network"] or "every one")[:_SHORT],
                    view["by"],
                    "this host" if view["own"] else f"{view['link']}, mtu {view['mtu']}" if view["link"] else "none",
                )
                for view in views
            ),
        )
    return 0


def reconcile(options: argparse.Namespace) -> int:
    """Bring the host to what is wanted, or say what that would take."""
    findings = _ask("POST", f"/v1/reconcile?dry_run={int(options.dry_run)}")
    if not _json(options, findings):
        _findings(findings, none="nothing to do: the host is as wanted")
    wrong = any(finding["problems"] for finding in findings)
    return 1 if wrong or (options.dry_run and findings) else 0


def _inspect(options: argparse.Namespace, target: str) -> int:
    view = _get(target)
    if not _json(options, view):
        width = max(map(len, view))
        for key, value in view.items():
            say(f"{key:{width}}  {value if isinstance(value, str) else json.dumps(value)}")
    return 0


def _findings(findings: Iterable[View], *, none: str) -> None:
    said = False
    for finding in findings:
        said = True
        say(f"{finding['scope']}:")
        for step in finding["steps"]:
            say(f"  {step}")
        for problem in finding["problems"]:
            say(f"  problem: {problem}")
    if not said:
        say(none)


def _get(target: str) -> Any:  # noqa: ANN401 - JSON
    return _ask("GET", target)


def _ask(method: str, target: str) -> Any:  # noqa: ANN401 - JSON
    return ask(control_path(os.environ), method, target)


def _json(options: argparse.Namespace, view: object) -> bool:
    if options.json:
        say(json.dumps(view, indent=2))
    return bool(options.json)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        say("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
