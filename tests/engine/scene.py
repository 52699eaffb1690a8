"""A network as firewalls meet it: two containers, one with a published port, and the neighbour, on a real engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.lab.engine import Engine
from tests.lab.net import HERE, THERE, Neighbour
from tests.lab.wait import WaitedInVainError, await_
from tests.lab.weft import Weft
from tests.matrix.docker import party, run, serving
from tests.matrix.table import Party
from tests.matrix.traffic import OPEN, SILENT, Knock, Spot, Traffic

SUBNETS = ("--subnet", "10.7.1.0/24", "--ipv6", "--subnet", "fd07:1::/64")
PUBLISHED = 8080
SOON = 40.0
"""Seconds that healing may take on a slow machine, dockerd's own included. Here it takes about one."""


@dataclass(slots=True)
class Scene:
    """Network ``one`` with the containers ann, who has a published port, and bob; and the neighbour."""

    engine: Engine
    weft: Weft
    traffic: Traffic
    lan: Spot
    link: str
    ann: Party
    bob: Party

    def out(self, *versions: int) -> list[Knock]:
        """Return ann's way out."""
        return [Knock(self.ann.spot, THERE[at], "tcp", wanted=f"{OPEN} from {HERE[at]}") for at in versions or (4, 6)]

    def into(self, *versions: int) -> list[Knock]:
        """Return the neighbour's way to ann's published port."""
        wanted = {at: f"{OPEN} from {THERE[at]}" for at in (4, 6)}
        return [Knock(self.lan, HERE[at], "tcp", PUBLISHED, wanted[at]) for at in versions or (4, 6)]

    def all(self, *versions: int) -> list[Knock]:
        """Return all that must go on, and what must stay closed: the way to what is not published."""
        versions = versions or (4, 6)
        beside = [Knock(self.bob.spot, self.ann.addresses[at], "tcp", wanted=OPEN) for at in versions]
        closed = [Knock(self.lan, self.ann.addresses[at], "tcp", wanted=SILENT) for at in versions]
        return [*self.out(*versions), *self.into(*versions), *beside, *closed]

    def check(self, knocks: list[Knock] | None = None) -> None:
        """Try all, or some, now."""
        surprises = self.traffic.surprises(knocks or self.all())
        assert not surprises, "\n".join(surprises)

    def await_whole(self, knocks: list[Knock] | None = None) -> None:
        """Try again until all is as wanted."""
        tried = knocks or self.all()
        try:
            await_(lambda: not self.traffic.surprises(tried), SOON, "everything to go on")
        except WaitedInVainError:
            self.check(tried)
            raise

    def start_again(self) -> None:
        """Start the containers, which a restart of dockerd has stopped."""
        self.engine.docker("start", "ann", "bob")
        self.ann, self.bob = (party(self.engine, self.traffic, name) for name in ("ann", "bob"))

    def warnings(self, since: int = 0) -> list[str]:
        """Return the lines in which weft has told of a firewall."""
        lines = self.weft.log_text()[since:].splitlines()
        return [line for line in lines if 'msg="a firewall stands in the way"' in line]

    def notes(self) -> list[str]:
        """Return what `weft status` notes."""
        said = self.weft.cli("status", check=False).stdout.splitlines()
        return [line.removeprefix("note: ") for line in said if line.startswith("note: ")]


@contextmanager
def scene(engine: Engine, weft: Weft, *options: str) -> Iterator[Scene]:
    """Set the scene on an engine, with options for the network, and clear it after."""
    with Traffic() as traffic, Neighbour(engine.node) as neighbour:
        lan = serving(traffic, neighbour, "lan")
        for at, here in HERE.items():
            neighbour.ip(f"-{at}", "route", "add", "default", "via", here)
        link = f"wfb{engine.docker('network', 'create', '-d', 'weft', *SUBNETS, *options, 'one')[:12]}"
        ann = run(engine, traffic, "ann", "one", "-p", f"{PUBLISHED}:7007")
        bob = run(engine, traffic, "bob", "one")
        yield Scene(engine, weft, traffic, lan, link, ann, bob)
        engine.clean()
