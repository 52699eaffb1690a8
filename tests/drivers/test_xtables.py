"""The answer to Docker's FORWARD DROP, by both variants of the real iptables: the operator's rules stay as they are."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from drivers import xtables
from drivers.contract import Step
from drivers.converge import Converger
from drivers.errors import Conflict, HostFailure, InvalidRequest, Unsupported
from drivers.marks import Marks
from drivers.resources import (
    HOST,
    Foreign,
    Rule,
    Scope,
    program,
    rule_key,
)
from drivers.xtables import VERSIONS, XtablesBackend
from drivers.xtables_text import parse
from tests.drivers.steps import create, delete, observed
from tests.drivers.xtables_world import CLOSING, ENDPOINT, every, planned, rules
from tests.lab.wait import await_
from tests.netns import private_netns, sh


@pytest.fixture(params=["nft", "legacy"])
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """Be on a host whose Docker uses this variant of iptables, whatever the machine calls iptables."""
    with private_netns():
        yield request.param


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def backend(variant: str, version: int) -> XtablesBackend:
    """Return a backend beside a Docker 20.10: FORWARD dropped, a chain for the operator, closed by RETURN."""
    run(variant, version, "-N", "DOCKER-USER")
    run(variant, version, "-A", "DOCKER-USER", "-j", "RETURN")
    run(variant, version, "-A", "FORWARD", "-j", "DOCKER-USER")
    run(variant, version, "-P", "FORWARD", "DROP")
    return XtablesBackend(Marks("a"))


def run(variant: str, version: int, *args: str) -> str:
    return sh(f"{program(version)}-{variant}", *args)


def chain_of(variant: str, version: int, name: str) -> list[str]:
    lines = run(variant, version, "-S", name).splitlines()
    return [line.removeprefix(f"-A {name} ") for line in lines if line.startswith("-A")]


def operator_writes(variant: str, version: int, *args: str) -> None:
    source = "198.51.100.0/24" if version == 4 else "2001:db8:51::/48"
    run(variant, version, *args, "-s", source, "-m", "comment", "--comment", 'he said "no"', "-j", "DROP")


@pytest.mark.kernel
def test_first_law(backend: XtablesBackend, version: int) -> None:
    wanted = every(version)
    assert observed(backend, *wanted) == {}
    assert backend.apply(create(*wanted)) == {}
    assert observed(backend, *wanted) == {one.key: one for one in wanted}
    assert backend.survey() == {one.key: one for one in wanted}


@pytest.mark.kernel
def test_a_second_converge_has_no_step(backend: XtablesBackend, version: int, variant: str) -> None:
    before = run(variant, version, "-S")
    converger = Converger({"xtables": backend})
    chain, jump = planned(version)
    for scope, wanted in ((HOST, (replace(chain, needs=frozenset()), jump)), (ENDPOINT, rules(version))):
        assert {step.key for step in converger.converge(scope, wanted).taken} == {one.key for one in wanted}
        assert converger.converge(scope, wanted).taken == ()
    for scope, gone in ((ENDPOINT, rules(version)), (HOST, (chain, jump))):
        converger.converge(scope, (), [one.key for one in gone])
        assert converger.converge(scope, (), [one.key for one in gone]).taken == ()
    assert run(variant, version, "-S") == before


@pytest.mark.kernel
def test_taking_steps_again_is_no_change(backend: XtablesBackend, version: int, variant: str) -> None:
    wanted = every(version)
    backend.apply(create(*wanted))
    before = run(variant, version, "-S")
    assert backend.apply(create(*wanted)) == {}
    assert run(variant, version, "-S") == before
    gone = delete(*wanted)
    for _ in range(2):
        assert backend.apply(gone) == {}
        assert backend.survey() == {}


@pytest.mark.kernel
def test_endpoint_rules_come_first_and_stay_when_the_hosts_change(
    backend: XtablesBackend, version: int, variant: str
) -> None:
    chain, _ = planned(version)
    backend.apply(create(chain, *rules(version)))
    later = replace(chain, rules=chain.rules[1:])
    assert backend.apply([Step(chain, later)]) == {}
    assert observed(backend, later, *rules(version)) == {one.key: one for one in (later, *rules(version))}
    lines = parse(run(variant, version, "-S", "WEFT"))
    assert {line.spec for line in lines[:2]} == {rule.spec for rule in rules(version)}
    assert [line.spec for line in lines[2:]] == list(later.rules)


@pytest.mark.kernel
def test_an_endpoint_rule_below_the_hosts_makes_the_chain_differ(
    backend: XtablesBackend, version: int, variant: str
) -> None:
    chain, _ = planned(version)
    backend.apply(create(chain, *rules(version)))
    moved = chain_of(variant, version, "WEFT")[0]
    sh(
        f"{program(version)}-{variant}-restore",
        "--noflush",
        text=f"*filter\n-D WEFT {moved}\n-A WEFT {moved}\nCOMMIT\n",
    )
    assert Converger({"xtables": backend}).converge(HOST, [replace(chain, needs=frozenset())]).taken
    assert observed(backend, chain) == {chain.key: chain}
    assert {line.spec for line in parse(run(variant, version, "-S", "WEFT"))[:2]} == {r.spec for r in rules(version)}


@pytest.mark.kernel
def test_an_emptied_chain_is_filled_again(backend: XtablesBackend, version: int, variant: str) -> None:
    chain, _ = planned(version)
    backend.apply(create(chain))
    run(variant, version, "-F", "WEFT")
    assert observed(backend, chain) == {chain.key: replace(chain, rules=())}
    assert backend.apply([Step(replace(chain, rules=()), chain)]) == {}
    assert observed(backend, chain) == {chain.key: chain}


@pytest.mark.kernel
@pytest.mark.parametrize("closed", [True, False], ids=["20.10", "28"])
def test_the_jump_is_below_the_operators_rules(
    backend: XtablesBackend, version: int, variant: str, *, closed: bool
) -> None:
    if not closed:
        run(variant, version, "-D", "DOCKER-USER", "-j", "RETURN")
    operator_writes(variant, version, "-I", "DOCKER-USER")
    his = chain_of(variant, version, "DOCKER-USER")
    chain, jump = planned(version)
    backend.apply(create(chain))
    backend.apply(create(jump))
    ours = '-m comment --comment "weft:a::" -j WEFT'
    assert chain_of(variant, version, "DOCKER-USER") == [his[0], ours, *his[1:]]
    assert observed(backend, jump) == {jump.key: jump}
    backend.apply(delete(jump))
    assert chain_of(variant, version, "DOCKER-USER") == his


def append_a_rule(variant: str, version: int) -> None:
    run(variant, version, "-D", "DOCKER-USER", "-j", "RETURN")
    operator_writes(variant, version, "-A", "DOCKER-USER")


def close_it_above(variant: str, version: int) -> None:
    run(variant, version, "-D", "DOCKER-USER", "-j", "RETURN")
    run(variant, version, "-I", "DOCKER-USER", "-j", "RETURN")


def double_it(variant: str, version: int) -> None:
    run(variant, version, "-I", "DOCKER-USER", "-m", "comment", "--comment", "weft:a::", "-j", "WEFT")


def narrow_it(variant: str, version: int) -> None:
    run(
        variant, version, "-R", "DOCKER-USER", "1", "-i", "eth0", "-m", "comment", "--comment", "weft:a::", "-j", "WEFT"
    )


@pytest.mark.kernel
@pytest.mark.parametrize("meddling", [append_a_rule, close_it_above, double_it, narrow_it])
def test_a_jump_that_was_moved_is_put_back(
    backend: XtablesBackend, version: int, variant: str, meddling: Callable[[str, int], None]
) -> None:
    chain, jump = planned(version)
    wanted = [replace(chain, needs=frozenset()), jump]
    converger = Converger({"xtables": backend})
    converger.converge(HOST, wanted)
    meddling(variant, version)
    assert observed(backend, jump) == {jump.key: replace(jump, placed=False)}
    converger.converge(HOST, wanted)
    assert observed(backend, jump) == {jump.key: jump}
    lines = parse(run(variant, version, "-S", "DOCKER-USER"))
    assert [line.spec for line in lines].count("-j WEFT") == 1
    reached = [line.spec for line in lines]
    reached = reached[: reached.index(CLOSING)] if CLOSING in reached else reached
    assert reached[-1] == "-j WEFT"


@pytest.mark.kernel
def test_the_jump_is_in_a_flushed_forward_until_docker_is_back(
    backend: XtablesBackend, version: int, variant: str
) -> None:
    chain, jump = planned(version)
    wanted = [replace(chain, needs=frozenset()), jump]
    converger = Converger({"xtables": backend})
    converger.converge(HOST, wanted)
    ours = '-m comment --comment "weft:a::" -j WEFT'

    def converged() -> tuple[list[str], list[str]]:
        assert observed(backend, jump) == {jump.key: replace(jump, placed=False)}
        assert [step.key for step in converger.converge(HOST, wanted).taken] == [jump.key]
        assert not converger.difference(HOST, wanted)
        return chain_of(variant, version, "FORWARD"), chain_of(variant, version, "DOCKER-USER")

    run(variant, version, "-F", "FORWARD")
    operator_writes(variant, version, "-A", "FORWARD")
    (his,) = chain_of(variant, version, "FORWARD")
    assert converged() == ([his, ours], [CLOSING])
    run(variant, version, "-I", "FORWARD", "-j", "DOCKER-USER")
    assert converged() == (["-j DOCKER-USER", his], [ours, CLOSING])
    run(variant, version, "-F", "FORWARD")
    assert converged() == ([ours], [CLOSING])
    run(variant, version, "-P", "FORWARD", "ACCEPT")  # which drops nothing that is to be answered
    assert converged() == ([], [ours, CLOSING])
    run(variant, version, "-P", "FORWARD", "DROP")
    assert converged() == ([ours], [CLOSING])
    assert backend.apply(delete(jump)) == {}
    assert (chain_of(variant, version, "FORWARD"), chain_of(variant, version, "DOCKER-USER")) == ([], [CLOSING])


@pytest.mark.kernel
def test_a_jump_of_another_weft_in_forward_is_a_stranger(backend: XtablesBackend, version: int, variant: str) -> None:
    run(variant, version, "-F", "FORWARD")
    other = XtablesBackend(Marks("b"))
    chain, jump = planned(version)
    other.apply(create(chain, jump))
    assert observed(backend, jump) == {jump.key: Foreign(jump.key, "another weft (store b)")}
    assert isinstance(backend.apply(create(jump))[jump.key], Conflict)
    assert backend.apply(delete(jump)) == {}
    assert observed(other, jump) == {jump.key: jump}


@pytest.mark.kernel
def test_what_others_made_is_a_stranger_and_stays(backend: XtablesBackend, version: int, variant: str) -> None:
    other = XtablesBackend(Marks("b"))
    chain, jump = planned(version)
    (rule, _) = rules(version)
    other.apply(create(chain))
    other.apply(create(jump, rule))
    before = run(variant, version, "-S")
    for one in (chain, jump, rule):
        assert observed(backend, one) == {one.key: Foreign(one.key, "another weft (store b)")}
        assert isinstance(backend.apply(create(one))[one.key], Conflict)
        assert backend.apply(delete(one)) == {}
    assert backend.survey() == {}
    assert run(variant, version, "-S") == before


@pytest.mark.kernel
def test_a_chain_with_a_strangers_rule_keeps_it(backend: XtablesBackend, version: int, variant: str) -> None:
    chain, _ = planned(version)
    backend.apply(create(chain))
    run(variant, version, "-I", "WEFT", "-i", "eth7", "-j", "DROP")
    later = replace(chain, rules=chain.rules[1:])
    assert backend.apply([Step(chain, later)]) == {}
    assert chain_of(variant, version, "WEFT")[0] == "-i eth7 -j DROP"
    assert isinstance(backend.apply(delete(later))[later.key], Conflict)
    assert observed(backend, later) == {later.key: later}


@pytest.mark.kernel
def test_the_step_at_fault_is_found_and_the_others_are_taken(backend: XtablesBackend, version: int) -> None:
    chain, _ = planned(version)
    good, _ = rules(version)
    bad = Rule(key=rule_key(version, "-i br-lan -j ACCEPT\n-F FORWARD"), scope=ENDPOINT)
    failures = backend.apply(create(bad, good, chain))
    assert {key: type(error) for key, error in failures.items()} == {bad.key: InvalidRequest}
    assert observed(backend, chain, good) == {chain.key: chain, good.key: good}


@pytest.mark.kernel
def test_a_refusal_is_told_in_iptables_own_words(backend: XtablesBackend, version: int) -> None:
    (rule, _) = rules(version)
    failure = backend.apply(create(rule))[rule.key]  # there is no chain
    assert isinstance(failure, HostFailure)
    assert "line 2 failed" in str(failure)


@pytest.mark.kernel
def test_one_batch_is_one_restore(backend: XtablesBackend, version: int) -> None:
    chain, _ = planned(version)
    backend.docker_user()
    calls = backend.calls
    backend.apply(create(chain, *rules(version)))
    assert backend.calls == calls + 2  # look, then change


@pytest.mark.kernel
def test_docker_user_is_told_by_version(backend: XtablesBackend, version: int, variant: str) -> None:
    assert backend.docker_user() == {version}
    run(variant, version, "-F", "FORWARD")
    run(variant, version, "-F", "DOCKER-USER")
    run(variant, version, "-X", "DOCKER-USER")
    assert backend.docker_user() == frozenset()


@pytest.mark.kernel
def test_without_docker_user_nothing_is_there_and_a_jump_is_refused() -> None:
    with private_netns():
        backend = XtablesBackend(Marks("a"))
        assert backend.docker_user() == frozenset()
        assert observed(backend, *every(4), *every(6)) == {}
        _, jump = planned(4)
        failure = backend.apply(create(jump))[jump.key]
        assert isinstance(failure, Unsupported)
        assert "DOCKER-USER" in str(failure)
        assert backend.apply(delete(*every(4))) == {}
        assert not Path("/proc/thread-self/net/ip_tables_names").read_text(), "a look made legacy tables"


def test_without_iptables_nothing_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    backend = XtablesBackend(Marks("a"))
    assert backend.docker_user() == frozenset()
    assert backend.survey() == {}
    chain, jump = planned(4)
    assert backend.apply(delete(chain, jump)) == {}
    assert {type(error) for error in backend.apply(create(chain, jump)).values()} == {Unsupported}
    assert backend.calls == 0


@pytest.mark.kernel
def test_a_program_that_hangs_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with private_netns():
        backend = XtablesBackend(Marks("a"))
        monkeypatch.setattr(xtables, "_PATIENCE", 0)
        with pytest.raises(HostFailure, match="did not come back"):
            backend.docker_user()


@pytest.mark.kernel
@pytest.mark.parametrize("variant", ["legacy"], indirect=True)
def test_legacy_tables_are_looked_at(backend: XtablesBackend, version: int, variant: str) -> None:
    told: list[Scope | None] = []
    backend.apply(create(*planned(version)))
    stop = backend.watch(told.append)
    try:
        operator_writes(variant, version, "-A", "DOCKER-USER")
        await_(lambda: told, 10, "a look at the legacy tables")
    finally:
        stop()
    assert told == [HOST]


@pytest.mark.kernel
@pytest.mark.parametrize("variant", ["nft"], indirect=True)
def test_legacy_tables_of_others_are_left_alone(backend: XtablesBackend, version: int) -> None:
    run("legacy", version, "-N", "OTHERS")
    chain, jump = planned(version)
    assert backend.apply(create(chain)) == {}
    assert backend.apply(create(jump)) == {}
    assert "WEFT" not in run("legacy", version, "-S")
    assert backend._legacy_text() == ()  # and the variants are known from now on
    calls = backend.calls
    assert backend._legacy_text() == ()
    assert backend.calls == calls, "a look once a second is for a Docker in legacy tables only"
