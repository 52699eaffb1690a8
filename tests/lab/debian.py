"""What the lab takes from Debian, besides what `install.sh` installs: packages and whole roots of other suites.

The mirror is always the one that this machine's own apt sources name, so no host's name stands in any file of ours.
"""

import fcntl
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.names import CACHE, REPO
from tests.lab.process import run

SOURCES = Path("/etc/apt")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

ONE_LINE = re.compile(r"^deb\s+(?:\[[^]]*\]\s+)?(?P<uri>\S+)\s+(?P<suites>\S+)", re.MULTILINE)
FIELD = re.compile(r"^(?P<key>[A-Za-z-]+):[ \t]*(?P<value>.*(?:\n[ \t]+.*)*)", re.MULTILINE)


def install(*groups: str) -> None:
    """Install groups of Debian packages on this machine; what they are stands in `install.sh`."""
    run(["bash", str(REPO / "tests/lab/install.sh"), *groups], timeout=900)


def codename() -> str:
    """Return this machine's own suite (os-release(5))."""
    text = Path("/etc/os-release").read_text(encoding="utf-8")
    found = re.search(r'^VERSION_CODENAME="?(\w+)', text, re.MULTILINE)
    if found is None:
        raise RuntimeError("/etc/os-release names no suite: is this Debian?")
    return found[1]


def _entries() -> Iterator[tuple[str, list[str]]]:
    """Yield URI and suites of each source, in both spellings of sources.list(5)."""
    for path in (SOURCES / "sources.list", *sorted(SOURCES.glob("sources.list.d/*.list"))):
        if path.exists():
            for line in ONE_LINE.finditer(path.read_text(encoding="utf-8")):
                yield line["uri"], [line["suites"]]
    for path in sorted(SOURCES.glob("sources.list.d/*.sources")):
        text = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
        for stanza in re.split(r"\n\s*\n", text):
            fields = {field["key"].lower(): field["value"].split() for field in FIELD.finditer(stanza)}
            for uri in fields.get("uris", []):
                yield uri, fields.get("suites", [])


def mirror() -> str:
    """Return the URI from which this machine takes its own suite."""
    own = codename()
    for uri, suites in _entries():
        if own in suites:
            return uri
    raise RuntimeError(f"no source in {SOURCES} gives {own}: the lab does not know where to fetch from")


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Hold the cache for one thing: a second session waits instead of fetching it again."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """Return the cache's `name`; what is not there is made in a folder beside it, then renamed: all or nothing."""
    done = CACHE / name
    with _alone(name):
        if not done.exists():
            for stale in CACHE.glob(f"{name}.partial-*"):
                shutil.rmtree(stale)
            partial = Path(tempfile.mkdtemp(prefix=f"{name}.partial-", dir=CACHE))
            partial.chmod(0o755)
            try:
                make(partial)
                partial.rename(done)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return done


def fetch(package: str, suite: str, into: Path) -> None:
    """Unpack one package of another suite into a folder, with apt's own checks but none of the machine's apt state."""
    state = into / ".apt"
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True)
    (state / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n", encoding="utf-8")
    options = {
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state,
        "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",  # the folder is root's alone
    }
    apt = ["apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items())]
    run([*apt, "update"], timeout=300)
    run([*apt, "download", package], timeout=300, cwd=state)
    (deb,) = state.glob("*.deb")
    run(["dpkg-deb", "-x", str(deb), str(into)])
    shutil.rmtree(state)
