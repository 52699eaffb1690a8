"""``weft``: the arguments, and which function answers them.

Exit codes: 0 done and well; 1 weft answered, and something is wrong or differs; 2 the command could not be carried out.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NoReturn

from drivers.errors import Unsupported, WeftError
from plugin import __version__
from plugin.cli import show
from plugin.cli.say import complain, say
from plugin.config import TABLE


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; return its exit code."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.answer(options)
    except WeftError as error:
        complain(error)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    return code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    weft = argparse.ArgumentParser(
        prog="weft", description="Docker networks on a Linux bridge or Open vSwitch, that survive."
    )
    weft.add_argument("--version", action="version", version=f"weft {__version__}")
    verbs = weft.add_subparsers(title="commands", required=True, metavar="COMMAND")

    serve = verbs.add_parser("serve", help="run the plugin", description="Run the plugin until SIGTERM.")
    serve.add_argument("--check", action="store_true", help="only check the settings, and show them")
    serve.add_argument("--managed", action="store_true", help="as dockerd's managed plugin: never fail, but answer why")
    for setting in TABLE:
        meaning = f"{setting.meaning} ({setting.name}, default {setting.default})"
        serve.add_argument(setting.flag, dest=setting.attribute, metavar="VALUE", help=meaning)
    serve.set_defaults(answer=_serve)

    _reader(verbs, "status", show.status, "health; exit code 1 if the host differs from what is wanted")
    _reader(verbs, "version", show.version, "of this command and of the running weft")
    for noun, ls, inspect in (
        ("network", show.network_ls, show.network_inspect),
        ("endpoint", show.endpoint_ls, show.endpoint_inspect),
    ):
        group = verbs.add_parser(noun, help=f"the {noun}s that weft holds").add_subparsers(
            title="commands", required=True, metavar="COMMAND"
        )
        _reader(group, "ls", ls, f"list the {noun}s")
        _reader(group, "inspect", inspect, f"show one {noun}").add_argument("id", help="its id, or the beginning of it")

    pool = verbs.add_parser("pool", help="the address pools that weft manages (--ipam-driver weft)")
    pools = pool.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _reader(pools, "ls", show.pool_ls, "list the pools, and how full they are")
    _reader(pools, "inspect", show.pool_inspect, "show who holds the addresses of one pool").add_argument(
        "pool", help="its id, subnet or name, or the beginning of its network's id"
    )

    ports = verbs.add_parser("port", help="published ports, which Docker does not show for weft").add_subparsers(
        title="commands", required=True, metavar="COMMAND"
    )
    _reader(ports, "ls", show.port_ls, "list the published ports")
    for verb, answer, meaning in (
        ("add", show.port_add, "publish a port of a running container, until it stops"),
        ("rm", show.port_rm, "publish a port no longer"),
    ):
        change = _reader(ports, verb, answer, meaning)
        change.add_argument("endpoint", help="the container's name, or its endpoint's id or the beginning of it")
        change.add_argument("port", help="[ADDRESS:][HOSTPORT:]PORT[/tcp|udp|sctp], as for docker run -p")

    peers = verbs.add_parser("peer", help="the other hosts to which networks with a tunnel go on").add_subparsers(
        title="commands", required=True, metavar="COMMAND"
    )
    _reader(peers, "ls", show.peer_ls, "list the peers")
    for verb, answer, meaning in (
        ("add", show.peer_add, "let networks go on at another host, while containers run"),
        ("rm", show.peer_rm, "let them go on there no longer"),
    ):
        change = _reader(peers, verb, answer, meaning)
        change.add_argument("peer", help="its address, IPv4 or IPv6")
        change.add_argument("--network", default="", metavar="NAME|ID", help="one network; without it, every one")

    reconcile = _reader(verbs, "reconcile", show.reconcile, "bring the host to what is wanted, now")
    reconcile.add_argument(
        "--dry-run", action="store_true", help="only say what that would take; exit code 1 if anything"
    )
    stores = verbs.add_parser("store", help="the state on disk: check it, copy it, put a copy back").add_subparsers(
        title="commands", required=True, metavar="COMMAND"
    )
    for verb, meaning in (
        ("check", "say whether the store, or a copy of it, is sound; exit code 1 if not"),
        ("backup", "write a copy of the store to a new file, while weft runs or not"),
        ("restore", "put a copy in the place of the store, while weft does not run; the old one is kept"),
    ):
        act = stores.add_parser(verb, help=meaning, description=f"{meaning[:1].upper()}{meaning[1:]}.")
        act.add_argument("file", metavar="FILE", nargs="?" if verb == "check" else None)
        act.add_argument("--state-dir", metavar="DIR", help="where the store lies (WEFT_STATE_DIR)")
        if verb == "check":
            act.add_argument("--json", action="store_true", help="as JSON")
        act.set_defaults(answer=_store, verb=verb)
    remove = verbs.add_parser(
        "uninstall",
        help="remove what weft left on this host, once it runs no longer",
        description="Remove what carries the marks of this host's weft, give its switches back as they were found, and"
        " leave everything else alone. Refused while a weft runs or running containers have its links.",
    )
    remove.add_argument(
        "--dry-run", action="store_true", help="only say what would be removed; exit code 1 if anything"
    )
    remove.add_argument("--force", action="store_true", help="also while a weft runs, and under running containers")
    remove.add_argument("--purge", action="store_true", help="also remove the state: what was promised is forgotten")
    remove.add_argument("--state-dir", metavar="DIR", help="where the store lies (WEFT_STATE_DIR)")
    remove.add_argument("--store", metavar="ID", help="the id in the marks of a store that is lost: weft:ID:...")
    remove.set_defaults(answer=_uninstall)

    install = verbs.add_parser(
        "install-service",
        help="write systemd units for this weft, and a file by which dockerd finds it",
        description="Write weft.socket and weft.service for this command, and /etc/docker/plugins/weft.json.",
    )
    install.set_defaults(answer=_install_service)
    return weft


def _reader(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, answer: show.Answer, meaning: str
) -> argparse.ArgumentParser:
    reader = verbs.add_parser(name, help=meaning, description=f"{meaning[:1].upper()}{meaning[1:]}.")
    reader.add_argument("--json", action="store_true", help="as JSON")
    reader.set_defaults(answer=answer)
    return reader


def _serve(options: argparse.Namespace) -> int:
    from plugin import config  # noqa: PLC0415 - a command that only reads must not pay for the server

    flags = {setting.attribute: getattr(options, setting.attribute) for setting in TABLE}
    if options.managed and not options.check:
        from plugin.managed import serve_managed  # noqa: PLC0415 - as above

        return serve_managed(os.environ, flags)
    settings = config.read(os.environ, flags)
    if options.check:
        for setting in TABLE:
            say(f"{setting.name}={getattr(settings, setting.attribute)}")
        return 0
    from plugin.start import serve  # noqa: PLC0415 - as above

    _check_whole()
    return serve(settings)


def _check_whole() -> None:
    """Raise :class:`Unsupported` in the zipapp, which has the commands only."""
    if missing := [name for name in ("flask", "gunicorn", "pydantic") if find_spec(name) is None]:
        raise Unsupported(
            f"this weft is the command alone (without {', '.join(missing)}): the server is the managed plugin, or "
            "comes with the wheel (`pipx install`)"
        )


def _store(options: argparse.Namespace) -> int:
    from plugin.cli import store  # noqa: PLC0415 - sqlite3

    return {"check": store.check, "backup": store.backup, "restore": store.restore}[options.verb](options)


def _uninstall(options: argparse.Namespace) -> int:
    from plugin.cli.uninstall import uninstall  # noqa: PLC0415 - drivers/ and pyroute2

    return uninstall(options)


def _install_service(_: argparse.Namespace) -> int:
    from plugin import service  # noqa: PLC0415 - as above

    _check_whole()
    for path in service.install(service.this_program()):
        say(f"wrote {path}")
    say("next: systemctl daemon-reload && systemctl enable --now weft.socket weft.service")
    return 0


def run() -> NoReturn:
    """Carry out one command and exit: what a zipapp calls throws its result away."""
    sys.exit(main())


if __name__ == "__main__":
    run()
