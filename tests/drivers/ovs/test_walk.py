"""A random walk on a real Open vSwitch: whatever is wanted and whatever others do, a converge makes it so."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from drivers.converge import Converger
from drivers.ovsdb import OvsdbBackend
from drivers.resources import HOST, Key, OvsPort, Resource, scope_of
from tests.drivers.ovs.world import BRIDGE, FLOW, SOON, backend_of, device, ip, port, tunnel, veth
from tests.lab.net import RUN_NETNS
from tests.lab.ovs import Ovs
from tests.lab.process import CommandFailedError
from tests.lab.wait import await_
from tests.netns import inside

pytestmark = pytest.mark.kernel

COUNT = itertools.count()
SCOPES = {HOST, scope_of("n1"), scope_of("n1", "e1"), scope_of("n1", "e2")}
BESIDE_ITS_BRIDGE = port("wfg1", scope=HOST, needs=frozenset({BRIDGE.key}))
WANTED: dict[Key, tuple[Resource, ...]] = {
    one.key: (one, *others)
    for one, *others in (
        (BRIDGE, replace(BRIDGE, mac="02:00:00:00:00:02"), replace(BRIDGE, mac="")),
        (tunnel(), tunnel(options=(*FLOW, ("dst_port", "4790"))), tunnel(type="geneve")),
        (port("wfg1"), port("wfg1", mtu=1400), port("wfg1", mac="02:00:00:00:00:09"), BESIDE_ITS_BRIDGE),
        (device("wfh1"), device("wfh1", mtu=1300), device("wfh1", scope=scope_of("n1", "e2"))),
        (device("wfh2", scope=scope_of("n1", "e2")),),
    )
}


def meddling(*args: str) -> Callable[[Ovs], None]:
    def meddle(ovs: Ovs) -> None:
        with suppress(CommandFailedError):  # what is not there cannot be meddled with
            ovs.vsctl("--no-wait", *args)

    return meddle


def relink(name: str) -> Callable[[Ovs], None]:
    def meddle(_: Ovs) -> None:
        ip("link", "del", name)
        veth(name)

    return meddle


MEDDLING = {
    **{f"relink {name}": relink(name) for name in ("wfh1", "wfh2")},
    **{
        " ".join(args): meddling(*args)
        for args in (
            ("del-br", "br-int"),
            ("del-port", "wfh1"),
            ("del-port", "wfg1"),
            ("set", "Bridge", "br-int", "fail_mode=standalone"),
            ("set", "Bridge", "br-int", "datapath_type=dummy"),
            ("set", "Interface", "wfg1", "mtu_request=1234"),
            ("set", "Interface", "wfh1", "type=internal"),
            ("set", "Interface", "wftvxlan", "options:key=7"),
            ("remove", "Port", "wfh2", "external_ids", "weft-ifindex"),
        )
    },
}


@pytest.fixture(scope="module")
def world(shared: Ovs) -> Iterator[tuple[Ovs, OvsdbBackend]]:
    with inside(RUN_NETNS / shared.netns), backend_of(shared) as backend:
        shared.vsctl("add-br", "br-theirs", "--", "set", "Bridge", "br-theirs", "datapath_type=netdev")
        veth("wfh1")
        veth("wfh2")
        yield shared, backend


def steps() -> st.SearchStrategy[str | Resource | Key]:
    """Return what may come next: somebody meddles, something is wanted (otherwise), or is not any more."""
    every = [one for variants in WANTED.values() for one in variants]
    return st.one_of(st.sampled_from(every), st.sampled_from(sorted(WANTED)), st.sampled_from(sorted(MEDDLING)))


@settings(max_examples=15, deadline=None, phases=(Phase.generate,))  # on a real switch, so no shrinking
@given(st.lists(steps(), min_size=1, max_size=12))
def test_whatever_happens_it_is_as_it_is_wanted(
    world: tuple[Ovs, OvsdbBackend], walk: list[str | Resource | Key]
) -> None:
    ovs, backend = world
    with inside(RUN_NETNS / ovs.netns):
        theirs = _theirs(ovs)
        wanted: dict[Key, Resource] = {}
        for step in walk:
            match step:
                case str():
                    MEDDLING[step](ovs)
                case Key():
                    wanted.pop(step, None)
                case Resource():
                    wanted[step.key] = step
            _settle(ovs, backend, wanted)
        _settle(ovs, backend, {})
        assert backend.survey() == {}
        assert _theirs(ovs) == theirs


def _settle(ovs: Ovs, backend: OvsdbBackend, wanted: dict[Key, Resource]) -> None:
    """Converge every scope, those that lose something first, and look at it as a person would."""
    if BRIDGE.key not in wanted:  # nothing else can be
        wanted = {}
    _hear(ovs, backend)
    converger = Converger({"ovsdb": backend})
    plans = {scope: [one for one in wanted.values() if one.scope == scope] for scope in SCOPES}
    seen = backend.survey()
    for scope in sorted(SCOPES, reverse=True):
        kept = [one for key, one in seen.items() if one.scope == scope and key in wanted and wanted[key].scope == scope]
        converger.converge(scope, kept, WANTED)
    for scope in sorted(SCOPES):
        converger.converge(scope, plans[scope], WANTED)
    assert backend.survey() == wanted
    assert all(converger.converge(scope, plans[scope], WANTED).taken == () for scope in SCOPES)
    ports = {one.name for one in wanted.values() if isinstance(one, OvsPort)}
    assert set(ovs.vsctl("list-ports", "br-int", check=False).split()) == ports
    assert backend.ofports(ports).keys() == ports or not ports


def _theirs(ovs: Ovs) -> str:
    return ovs.vsctl("--columns=_uuid,name,ports,fail_mode,datapath_type,external_ids", "list", "Bridge", "br-theirs")


def _hear(ovs: Ovs, backend: OvsdbBackend) -> None:
    """Wait until the backend knows what was done up to now: it hears of changes in their order."""
    word = f"{next(COUNT)}"
    ovs.vsctl("--no-wait", "set", "Bridge", "br-theirs", f"other_config:word={word}")
    bridges = backend._client().reader.rows.bridges
    await_(lambda: "br-theirs" in bridges and bridges["br-theirs"].other_config.get("word") == word, SOON, "the word")
