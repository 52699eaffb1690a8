"""Another Debian suite's Docker Engine in a folder, for a `Node(root=...)`.

`python -m tests.lab.root` makes it beforehand and says what it does; a minute or two and 0.7 GiB, once per machine.
"""

from pathlib import Path

from tests.lab.debian import KEYRING, cached, install, mirror
from tests.lab.process import run

FORKY = "forky"
"""Docker Engine 28.5.2 (docker.io 28.5.2+dfsg4)."""

PACKAGES = ("docker.io", "docker-cli", "containerd", "runc", "iptables", "nftables", "iproute2")
SCRIPTS = Path("/usr/share/debootstrap/scripts")


def _bootstrap(suite: str, folder: Path) -> None:
    """Make the folder: debootstrap, then the engine, with no service started in it."""
    install("root")
    # bookworm's debootstrap knows no forky; sid's script makes every current suite
    script = SCRIPTS / (suite if (SCRIPTS / suite).exists() else "sid")
    include = "--include=ca-certificates"
    bootstrap = ["debootstrap", "--variant=minbase", include, f"--keyring={KEYRING}", suite, str(folder), mirror()]
    run([*bootstrap, str(script)], timeout=1200)
    policy = folder / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    policy.chmod(0o755)
    resolver = Path("/etc/resolv.conf")
    if resolver.exists():
        (folder / "etc/resolv.conf").write_text(resolver.read_text(encoding="utf-8"), encoding="utf-8")
    # a testing suite's Release is sometimes past its Valid-Until; its signature is checked all the same
    apt = ["chroot", str(folder), "apt-get", "-q", "-oAcquire::Check-Valid-Until=false"]
    quiet = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    run([*apt, "update"], timeout=300, env=quiet)
    run([*apt, "install", "-y", "--no-install-recommends", *PACKAGES], timeout=900, env=quiet)
    run([*apt, "clean"])


def root(suite: str = FORKY) -> Path:
    """Return the folder with that suite's engine in it, making it if it is not there yet."""
    return cached(suite, lambda folder: _bootstrap(suite, folder))


if __name__ == "__main__":
    print(
        f"Docker Engine of Debian {FORKY}, in a folder of its own (once per machine, about two minutes) ...", flush=True
    )
    print(f"  {root()}", flush=True)
