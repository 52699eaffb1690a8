"""The backend of our answer to Docker's FORWARD DROP: chain WEFT in iptables' filter table, and the jump to it.

DOCKER-USER is the operator's chain. One rule in it is ours, a jump below everything he wrote and above the RETURN with
which Docker closes it; every other rule stays as it is. Where somebody has flushed FORWARD, so that it drops and leads
nowhere, our jump stands there until Docker has put its own back. All changes go through ``iptables-restore
--noflush``: one transaction per batch and IP version. A chain line (``:WEFT -``) makes or empties that chain and no
other (iptables 1.8.9, both variants).

iptables has two variants that do not see each other: nft, and legacy. The right one is where DOCKER-USER is
(facts/managed-plugin.md), so it is looked for in both; in legacy only if its filter table exists, for asking would make
it.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from drivers.contract import Dirty, Step
from drivers.errors import Conflict, HostFailure, InvalidRequest, Unsupported, WeftError
from drivers.marks import Marks, describe
from drivers.resources import (
    HOST,
    XTABLES_CHAIN,
    XTABLES_PARENT,
    Chain,
    Foreign,
    Jump,
    Key,
    Resource,
    Rule,
    Scope,
    chain_key,
    jump_key,
    program,
    rule_key,
)
from drivers.xtables_text import Line, check, parse, spell

VERSIONS: Final = (4, 6)

_ABSENT: Final = (1, 3)  # exit codes: no such chain; no such table in this kernel. 4 is "busy" or "not allowed"
_PATIENCE: Final = 15  # seconds
_LOOK: Final = 1.0  # seconds between two looks at legacy tables, which send no event (facts/network.md 15)
_MEANWHILE: Final = 5.0  # seconds that dockerd may take to make its chains again, some 0.3 here
_FORWARD: Final = "FORWARD"
_DROPS: Final = "-P FORWARD DROP"
_LEGACY_TABLES: Final = {4: "/proc/thread-self/net/ip_tables_names", 6: "/proc/thread-self/net/ip6_tables_names"}

_Lines = tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class _State:
    """The chains of one IP version: ours, Docker's for the operator, and FORWARD. ``None``: there is no such chain.

    ``home`` is the chain that our jump belongs into.
    """

    chain: _Lines | None = None
    parent: _Lines | None = None
    forward: _Lines | None = None
    home: str = field(default=XTABLES_PARENT, kw_only=True)

    @property
    def parents(self) -> Mapping[str, _Lines]:
        """The chains that our jump may be in."""
        return {XTABLES_PARENT: self.parent or (), _FORWARD: self.forward or ()}


class XtablesBackend:
    """Observes and changes WEFT and its jump by the programs iptables and ip6tables. Thread-safe."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._lock = threading.RLock()
        self._homes: dict[int, str] = {}  # by IP version: the program that showed DOCKER-USER last
        self._last_seen: dict[int, float] = {}  # the same, when: seconds of the monotonic clock
        self._legacy: dict[str, bool] = {}
        self.calls = 0

    def close(self) -> None:
        """Nothing is held."""

    def docker_user(self) -> frozenset[int]:
        """Return the IP versions whose filter table has a chain DOCKER-USER now; none without iptables."""
        return frozenset(version for version in VERSIONS if self._find(version))

    def closed(self, version: int) -> Mapping[str, str]:
        """Return the programs whose FORWARD drops without a DOCKER-USER to answer in, each with its filter table.

        One that was there a moment ago will be back: Docker makes it again after a reload of firewalld.
        """
        found: dict[str, str] = {}
        if time.monotonic() - self._last_seen.get(version, -math.inf) < _MEANWHILE:
            return found
        for name in self._variants(version):
            if _leads_nowhere(self._listing(name, _FORWARD) or "") and self._listing(name, XTABLES_PARENT) is None:
                found[name] = self._run(name, "-w", "5", "-S").stdout
        return found

    # -- what is there ----------------------------------------------------------------------------------------------

    def observe(self, keys: Collection[Key]) -> Mapping[Key, Resource | Foreign]:
        """Return what is at ``keys``: at most three listings of one chain each per IP version, whatever Docker has."""
        found: dict[Key, Resource | Foreign] = {}
        for version in VERSIONS:
            mine = [key for key in keys if key.at[0] == str(version)]
            state = self._state(version, {key.kind for key in mine})
            found |= {key: resource for key in mine if (resource := self._found(state, key)) is not None}
        return found

    def survey(self) -> Mapping[Key, Resource]:
        """Return the chains, the jumps and the endpoints' rules that carry our mark."""
        found: dict[Key, Resource] = {}
        for version in VERSIONS:
            state = self._state(version, {"chain", "jump"})
            for key in (chain_key(version), jump_key(version)):
                resource = self._found(state, key)
                if isinstance(resource, Resource):
                    found[key] = resource
            for line in state.chain or ():
                if self._is_endpoints(line):
                    key = rule_key(version, line.spec)
                    found[key] = Rule(key=key, scope=self._marks.read(line.comment) or HOST)
        return found

    def _found(self, state: _State, key: Key) -> Resource | Foreign | None:
        match key.kind:
            case "chain":
                return self._found_chain(key, state.chain)
            case "jump":
                return self._found_jump(key, state)
            case _:
                spec = spell(key.at[1])
                return self._found_rule(key, [line for line in state.chain or () if line.spec == spec])

    def _found_chain(self, key: Key, lines: _Lines | None) -> Resource | Foreign | None:
        if lines is None:
            return None
        if lines and all(self._marks.read(line.comment) is None for line in lines):
            return Foreign(key, describe(lines[0].comment))
        # An endpoint's rule below the host's is one that does not count: named here, it makes the chain differ.
        ours = [line for line in lines if self._marks.read(line.comment) is not None]
        first = next((at for at, line in enumerate(ours) if not self._is_endpoints(line)), len(ours))
        return Chain(key=key, scope=HOST, rules=tuple(line.spec for line in ours[first:]))

    def _found_jump(self, key: Key, state: _State) -> Resource | Foreign | None:
        jumps = [line for lines in state.parents.values() for line in lines if line.jumps_to(XTABLES_CHAIN)]
        ours = [line for line in jumps if self._is_hosts(line)]
        if ours:
            lines = state.parents[state.home]
            rest = [line for line in lines if line not in ours]
            at = _slot(rest)
            right = [*rest[:at], ours[0], *rest[at:]] == [*lines] and ours[0].spec == f"-j {XTABLES_CHAIN}"
            return Jump(key=key, scope=HOST, placed=right and len(ours) == 1)
        return Foreign(key, describe(jumps[0].comment)) if jumps else None

    def _found_rule(self, key: Key, lines: list[Line]) -> Resource | Foreign | None:
        scopes = [scope for line in lines if (scope := self._marks.read(line.comment)) is not None]
        if scopes:
            return Rule(key=key, scope=scopes[0])
        return Foreign(key, describe(lines[0].comment)) if lines else None

    def _is_hosts(self, line: Line) -> bool:
        return self._marks.read(line.comment) == HOST

    def _is_endpoints(self, line: Line) -> bool:
        return self._marks.read(line.comment) not in (HOST, None)

    # -- what is changed --------------------------------------------------------------------------------------------

    def apply(self, steps: Sequence[Step]) -> Mapping[Key, Exception]:
        """Take the steps of an IP version in one transaction, else one by one. A chain comes first and goes last."""
        failures: dict[Key, Exception] = {}
        with self._lock:
            for version in VERSIONS:
                mine = [step for step in steps if step.key.at[0] == str(version)]
                mine.sort(key=lambda step: (step.key.kind == "chain") == (step.new is None))
                try:
                    self._take(version, mine)
                except WeftError as failure:
                    failures |= self._one_by_one(version, mine) if len(mine) > 1 else {mine[0].key: failure}
        return failures

    def _one_by_one(self, version: int, steps: Sequence[Step]) -> dict[Key, Exception]:
        failures: dict[Key, Exception] = {}
        for step in steps:
            try:
                self._take(version, [step])
            except WeftError as failure:
                failures[step.key] = failure
        return failures

    def _take(self, version: int, steps: Sequence[Step]) -> None:
        state = self._state(version, {step.key.kind for step in steps})
        lines = [line for step in steps for line in self._lines(state, step)]
        if lines:
            text = "\n".join(("*filter", *lines, "COMMIT", ""))
            done = self._run(f"{self._program(version)}-restore", "--noflush", "-w", "5", text=text)
            if done.returncode:
                raise HostFailure(f"{_words(done)}: {' / '.join(lines)}")

    def _lines(self, state: _State, step: Step) -> Iterator[str]:
        """Return what iptables-restore has to read for a step, nothing if there is nothing left to do."""
        found = self._found(state, step.key)
        if found == step.new:
            return
        holder = found.what if isinstance(found, Foreign) else found.scope if found else step.resource.scope
        if holder != step.resource.scope:
            if step.new is not None:
                raise Conflict(f"{step.key} is taken by {holder}")
            return
        yield from self._change(state, step)

    def _change(self, state: _State, step: Step) -> Iterator[str]:
        match step.resource:
            case Chain() as chain if step.new:
                yield from self._write_chain(state.chain or (), chain)
            case Chain():
                self._refuse_to_take_along(state.chain or ())
                yield f"-F {XTABLES_CHAIN}"
                yield f"-X {XTABLES_CHAIN}"
            case Jump() as jump:
                yield from self._move_jump(state, jump, wanted=step.new is not None)
            case Rule() as rule if step.new:
                yield f"-I {XTABLES_CHAIN} 1 {self._marked(rule.version, rule.spec, rule.scope)}"
            case Rule() as rule:
                spec = spell(rule.spec)
                for line in state.chain or ():
                    if line.spec == spec and self._marks.read(line.comment) == rule.scope:
                        yield f"-D {XTABLES_CHAIN} {line.raw}"
            case other:
                raise InvalidRequest(f"{other.key} is not for iptables")

    def _write_chain(self, lines: _Lines, chain: Chain) -> Iterator[str]:
        """Make or empty the chain; whatever is not the host's goes back in, above the host's rules."""
        yield f":{XTABLES_CHAIN} - [0:0]"
        yield from (f"-A {XTABLES_CHAIN} {line.raw}" for line in lines if not self._is_hosts(line))
        yield from (f"-A {XTABLES_CHAIN} {self._marked(chain.version, rule, chain.scope)}" for rule in chain.rules)

    def _move_jump(self, state: _State, jump: Jump, *, wanted: bool) -> Iterator[str]:
        if wanted and state.parent is None:
            raise Unsupported(
                f"{self._program(jump.version)} has no chain {XTABLES_PARENT} to jump from: is Docker running?"
            )
        rest: dict[str, list[Line]] = {}
        for name, lines in state.parents.items():
            ours = [line for line in lines if line.jumps_to(XTABLES_CHAIN) and self._is_hosts(line)]
            rest[name] = [line for line in lines if line not in ours]
            yield from (f"-D {name} {line.raw}" for line in ours)
        if wanted:
            at = _slot(rest[state.home]) + 1
            yield f"-I {state.home} {at} -m comment --comment {self._marks.write(HOST)} -j {XTABLES_CHAIN}"

    def _marked(self, version: int, spec: str, scope: Scope) -> str:
        matches, _, target = check(version, spec).rpartition("-j ")
        return f"{matches}-m comment --comment {self._marks.write(scope)} -j {target}"

    def _refuse_to_take_along(self, lines: _Lines) -> None:
        strangers = {describe(line.comment) for line in lines if self._marks.read(line.comment) is None}
        if strangers:
            raise Conflict(
                f"chain {XTABLES_CHAIN} still holds rules of {', '.join(sorted(strangers))}; "
                f"see iptables -S {XTABLES_CHAIN}, and delete what nothing needs"
            )

    # -- what others change -----------------------------------------------------------------------------------------

    def watch(self, dirty: Dirty) -> Callable[[], None]:
        """Look at legacy tables once a second while they are in use; the nft variant is heard by the nft monitor."""
        stop = threading.Event()
        before = self._look()  # now, so that nothing that happens after this call is missed

        def look() -> None:
            seen = before
            while not stop.wait(_LOOK):
                now = self._look()
                if now != seen:
                    seen = now
                    dirty(HOST)

        thread = threading.Thread(target=look, name="xtables-watch", daemon=True)
        thread.start()

        def end() -> None:
            stop.set()
            thread.join()

        return end

    def _look(self) -> tuple[str | None, ...] | None:
        try:
            return self._legacy_text()
        except HostFailure:  # busy: that differs from every answer, so the host is looked at once it is not
            return None

    def _legacy_text(self) -> tuple[str | None, ...]:
        """Return the chains that concern us in the legacy tables; nothing, for reading a file, where there are none."""
        return tuple(
            self._listing(name, chain)
            for version in VERSIONS
            if _has_legacy_filter(version)
            for name in self._variants(version)
            if self._is_legacy(name) and self._homes.get(version, name) == name
            for chain in (XTABLES_PARENT, XTABLES_CHAIN, _FORWARD)
        )

    # -- the programs -----------------------------------------------------------------------------------------------

    def _state(self, version: int, kinds: AbstractSet[str]) -> _State:
        if not kinds or shutil.which(program(version)) is None:
            return _State()
        name = self._program(version)
        chain = self._listing(name, XTABLES_CHAIN) if kinds - {"jump"} else None
        parent = self._listing(name, XTABLES_PARENT) if "jump" in kinds else None
        forward = self._listing(name, _FORWARD) if "jump" in kinds else None
        found = [parse(text) if text is not None else None for text in (chain, parent, forward)]
        return _State(*found, home=_FORWARD if _leads_nowhere(forward or "") else XTABLES_PARENT)

    def _program(self, version: int) -> str:
        """Return the program whose tables have DOCKER-USER, or had it when last seen; else the host's own choice."""
        return self._homes.get(version) or self._find(version) or program(version)

    def _find(self, version: int) -> str | None:
        for name in self._variants(version):
            if self._listing(name, XTABLES_PARENT) is not None:
                self._homes[version] = name
                self._last_seen[version] = time.monotonic()
                return name
        return None

    def _variants(self, version: int) -> Iterator[str]:
        """Yield the programs to ask: what this machine calls iptables, then its other variant."""
        own = program(version)
        if shutil.which(own) is None:
            return
        yield own
        other = f"{own}-nft" if self._is_legacy(own) else f"{own}-legacy"
        if shutil.which(other) and (self._is_legacy(own) or _has_legacy_filter(version)):
            yield other

    def _is_legacy(self, name: str) -> bool:
        """Tell the variant of a program by its own words: ``iptables v1.8.9 (nf_tables)`` or ``(legacy)``."""
        if name not in self._legacy:
            self._legacy[name] = "nf_tables" not in self._run(name, "-V").stdout
        return self._legacy[name]

    def _listing(self, name: str, chain: str) -> str | None:
        """Return what ``iptables -S CHAIN`` prints, ``None`` if there is no such chain."""
        done = self._run(name, "-w", "5", "-S", chain)
        if done.returncode in _ABSENT:
            return None
        if done.returncode:
            raise HostFailure(_words(done))
        return done.stdout

    def _run(self, name: str, *args: str, text: str = "") -> subprocess.CompletedProcess[str]:
        path = shutil.which(name)
        if path is None:
            raise Unsupported(f"{name} is not installed, and Docker's FORWARD policy can be answered by nothing else")
        self.calls += 1
        try:
            return subprocess.run(  # noqa: S603 - an argument list; the text was checked word by word
                [path, *args], input=text, capture_output=True, text=True, check=False, timeout=_PATIENCE
            )
        except subprocess.TimeoutExpired:
            raise HostFailure(f"{name} did not come back within {_PATIENCE} s: who holds /run/xtables.lock?") from None


def _leads_nowhere(forward: str) -> bool:
    """Tell whether FORWARD, as it is listed, drops what comes to its end and does not ask DOCKER-USER before."""
    asked = any(line.spec == f"-j {XTABLES_PARENT}" for line in parse(forward))
    return _DROPS in forward.splitlines() and not asked


def _slot(lines: Sequence[Line]) -> int:
    """Return where the jump belongs among the rules of others: above the first RETURN for all, else at the end."""
    return next((at for at, line in enumerate(lines) if line.closes), len(lines))


def _has_legacy_filter(version: int) -> bool:
    try:
        return "filter" in Path(_LEGACY_TABLES[version]).read_text().split()
    except FileNotFoundError:  # a kernel without legacy tables
        return False


def _words(done: subprocess.CompletedProcess[str]) -> str:
    """Return what the program complained about, on one line."""
    said = " ".join(line for line in done.stderr.splitlines() if not line.startswith(("#", "Try ")))
    return said or f"{done.args[0]} failed with exit code {done.returncode}"
