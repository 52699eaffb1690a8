"""A container's whole life on two networks, with published ports, in which weft may die at any effect.

What Docker knows at a moment says what the host has to be: nothing else is compared with. A life without a fault is
lived once, and what the host is at each of its stations is kept.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.crash import census
from tests.crash.docker import Docker, DockerDied, listing
from tests.crash.host import CrashHost, Died, Seen, crash_host
from tests.crash.tally import Tally
from tests.lab.wait import WaitedInVainError, await_
from tests.libnetwork import CallRefusedError, Container

PUBLISHED = ("8080:80", "5353:53/udp")
HELD = (("tcp", "0.0.0.0", 8080), ("tcp", "::", 8080), ("udp", "0.0.0.0", 5353), ("udp", "::", 5353))  # noqa: S104
MOOR, GLEN = "moor", "glen"  # the gateway is the first by name: it moves to glen, and back
WISHES = {MOOR: {"ip": "10.77.0.5", "ip6": "fd00:77::5"}, GLEN: {"ip": "10.78.0.5"}}
SWEEP_SECONDS = 200  # longer than two looks at Docker's list have to be apart
LOSES_ITS_BODY = "NetworkDriver.Leave"

Act = Callable[["Life"], None]

Station = tuple[frozenset[str], frozenset[str], frozenset[str]]
"""What Docker knows: the networks, those that the container is on, and the one that its ports are published on.

A Program that it got no answer to when the way out moved back Docker lets be: it was carried out, or it was not.
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """A command of the operator's, and the one that takes it back."""

    name: str
    act: Act
    back: Act


class Life:
    """A host, an engine on it, and what is compared."""

    def __init__(self, host: CrashHost, engine: str) -> None:
        self.host = host
        self.docker = Docker(host.socket, netns=host.net.netns, engine=engine, recover=self._recover)
        self.container: Container | None = None
        self.stations: dict[Station, Seen] = {}
        self.tally = Tally()
        self._later = 0

    # -- what the operator does

    def create(self, name: str) -> None:
        """``docker network create``."""
        options = {"weft.backend": "ovs"} if self.host.ovs else {}
        if name == MOOR:
            subnets = {"subnet": "10.77.0.0/24", "subnet6": "fd00:77::/64"}
            self.docker.create(name, **subnets, ipam="weft", options=options)
        else:
            self.docker.create(name, subnet="10.78.0.0/24", options=options)

    def remove(self, name: str) -> None:
        """``docker network rm``."""
        self.docker.remove(name)

    def run(self) -> None:
        """``docker run``."""
        self.container = None
        moor = self.docker.named(MOOR)
        self.container = self.docker.start_container(moor, publish=PUBLISHED, **WISHES[MOOR])  # type: ignore[arg-type]

    def stop(self) -> None:
        """``docker rm -f``."""
        assert self.container is not None
        self.container.stop()

    def connect(self) -> None:
        """``docker network connect``."""
        assert self.container is not None
        self.container.connect(self.docker.named(GLEN), **WISHES[GLEN])  # type: ignore[arg-type]

    def disconnect(self) -> None:
        """``docker network disconnect``."""
        assert self.container is not None
        self.container.disconnect(self.docker.named(GLEN))

    # -- what is compared

    def station(self) -> Station:
        """Return where this life is, by what Docker knows."""
        names = {network.name for network in self.docker.networks.values()}
        on = {ident: endpoint.network.name for ident, endpoint in self.docker.joined.items()}
        published = {name for ident, name in on.items() if ident in self.docker.programmed}
        return frozenset(names), frozenset(on.values()), frozenset(published)

    def seen(self) -> Seen:
        """Look at the host and the store, with names for all that Docker knows."""
        docker, host = self.docker, self.host
        names = {ident: network.name for ident, network in docker.networks.items()}
        names |= {ident: f"container on {one.network.name}" for ident, one in docker.joined.items()}
        macs = {one.mac: names[ident] for ident, one in docker.joined.items()}
        found = host.seen()
        held = [f"held {' '.join(map(str, port))}" for port in HELD if host.held(*port)]
        text = "\n".join([*found.host.elements(), *held, "", *found.store.elements()])
        there, _, stored = census.named(text, names, macs).partition("\n\n")
        return Seen(Counter(there.splitlines()), Counter(stored.splitlines()))

    def keep(self) -> None:
        """Keep what the host is here; a station that was passed before must look the same."""
        self.settle()
        if self.station() in self.stations:
            self.compare("without a fault")
        else:
            self.stations[self.station()] = self.seen()

    def keep_unpublished(self) -> None:
        """Keep what the host is when the container's way out is taken from it, and give it back."""
        assert self.container is not None
        (endpoint,) = self.container.endpoints
        self.docker.tell("NetworkDriver.RevokeExternalConnectivity", endpoint.ids)
        self.keep()
        self.container._program(endpoint, must=True)
        self.keep()

    def compare(self, when: str) -> None:
        """Fail unless the host is what it has to be here, once Docker's list was compared if it is not at once."""
        networks, on, published = self.station()
        perhaps = {one.network.name for ident, one in self.docker.joined.items() if ident in self.docker.unanswered}
        wanted = [self.stations[networks, on, published]]
        wanted += [self.stations[networks, on, published | perhaps]] if perhaps else []
        self.tally.states += 1
        self.settle()
        if self.seen() not in wanted:
            self.sweep()
        try:
            await_(lambda: self.seen() in wanted, 10, "the host to be as wanted")
        except WaitedInVainError:
            difference = wanted[0].difference(self.seen())
            self.tally.leaks += bool(difference)
            assert not difference, f"{when}, at {self.station()}:\n{difference}"

    def sweep(self) -> None:
        """Have Docker's list compared, some minutes apart by weft's clock.

        Two looks take an endpoint away that Docker forgot, and two more its lease, which is nobody's from then on.
        """
        for _ in range(4):
            before = self.host.looks()
            try:
                self.docker.call(LOSES_ITS_BODY)
            except CallRefusedError as said:
                assert "without its body" in said.said  # noqa: PT017 - it always is refused
            await_(lambda before=before: self.host.looks() > before, 20, "a look at Docker's list")  # type: ignore[misc]
            self._later += SWEEP_SECONDS
            (self.host.folder / "later").write_text(str(self._later), encoding="ascii")
        self.settle()

    def settle(self) -> None:
        """Wait until all that was put off is done; raises :class:`Died`."""
        self.host.await_healthy()

    # -- faults

    def effects(self, act: Act) -> list[str]:
        """Do something without a fault, and return its effects in their order."""
        before = len(self.host.journal())
        act(self)
        self.keep()
        return [what for _, what in self.host.journal()[before:] if is_effect(what)]

    def dies_in(self, act: Act, point: "Point") -> None:
        """Do something in which weft dies, and let Docker do what it does then.

        After this weft runs, Docker runs, and the containers that Docker starts by itself run again.
        """
        docker = self.docker
        was_on = self.station()[1]
        docker.dies_too = point.dies_too
        self.host.arm(point.effects, before_next=point.before_next)
        try:
            act(self)
        except (CallRefusedError, DockerDied):
            pass  # the operator is told so
        else:
            was_on = self.station()[1]
        try:
            if not docker.dead:
                self.settle()
        except Died:  # at what was put off
            self._recover()
            docker.dead = docker.dies_too
        else:
            if docker.dead:
                self._recover()
        self.host.disarm()
        if docker.dead:
            docker.revive()
            self._restart(was_on)

    def _restart(self, was_on: frozenset[str]) -> None:
        """Start what has ``--restart always``, with the networks that Docker has written down for it."""
        if MOOR in was_on:
            self.run()
        if GLEN in was_on:
            self.connect()

    def _recover(self) -> None:
        self.host.await_death()
        self.host.disarm()
        self.tally.points += 1
        self.host.start()


STAGES = (
    Stage("create the first network", lambda life: life.create(MOOR), lambda life: life.remove(MOOR)),
    Stage("create the second network", lambda life: life.create(GLEN), lambda life: life.remove(GLEN)),
    Stage("run", Life.run, Life.stop),
    Stage("connect", Life.connect, Life.disconnect),
)


@dataclass(frozen=True, slots=True)
class Point:
    """When weft dies: ``effects`` are let through, and it dies after the last of them, or ``before_next``.

    ``dies_too``: and so does dockerd.
    """

    effects: int
    before_next: bool = False
    dies_too: bool = False

    def __str__(self) -> str:
        who = "weft and dockerd were" if self.dies_too else "weft was"
        return f"{who} killed {'before the next one after' if self.before_next else 'after'} {self.effects} effects"


Choose = Callable[[list[str]], list[Point]]
"""Chooses among the points of a command, of which the effects are known."""


def is_effect(what: str) -> bool:
    """Tell whether a line of the journal is an effect, which weft may die after, and not a look."""
    looks = ("netlink dump", "netlink get", "nft list", "xtables look", "store read", "docker look")
    return not what.startswith(looks)


def walk(one: Life, choose: Choose) -> None:
    """Live the life, there and back; then live it again, and die in each command at the points that are chosen."""
    one.keep()
    there = [one.effects(stage.act) for stage in STAGES[:3]]
    one.keep_unpublished()
    there += [one.effects(stage.act) for stage in STAGES[3:]]
    back = [one.effects(stage.back) for stage in reversed(STAGES)][::-1]
    for stage, effects in zip(STAGES, there, strict=True):
        _die(one, stage.name, stage.act, stage.back, choose(effects))
    one.sweep()
    one.compare("nothing that is in use is swept")
    for stage, effects in reversed(list(zip(STAGES, back, strict=True))):
        _die(one, f"{stage.name}, back", stage.back, stage.act, choose(effects))


def _die(one: Life, name: str, act: Act, undo: Act, points: list[Point]) -> None:
    """Die in a command at each point, and do it once without dying."""
    start = one.station()
    for point in points:
        one.dies_in(act, point)
        one.compare(f"{name}: {point}")
        if one.station() != start:
            undo(one)
            one.settle()
        assert one.station() == start
    act(one)
    one.compare(f"{name}: nobody was killed")


@contextmanager
def life(folder: Path, *, ovs: bool, engine: str) -> Iterator[Life]:
    """Begin a life on a host of its own, with weft and Docker running and nothing made."""
    with crash_host(folder, "life", ovs=ovs) as host:
        one = Life(host, engine)
        with listing(one.docker, folder / "docker.sock"), one.docker:
            host.start()
            yield one
