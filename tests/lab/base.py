"""The base image of the plugin's build, made here: no registry is needed for `FROM debian:bookworm-slim`.

What debootstrap makes, with the files by which Debian's slim images stay slim, and with the certificates that this
machine trusts beside Debian's: programs in a `RUN` step trust whom this machine trusts. A minute or two, once per
machine.
"""

import hashlib
import shutil
from functools import partial
from pathlib import Path

from tests.lab.debian import KEYRING, cached, install, mirror
from tests.lab.process import run

SUITE = "bookworm"
NEXT = "trixie"
"""The Debian after it, with Python 3.13: a base as well (`BASE_IMAGE`)."""

CERTIFICATES = Path("/usr/local/share/ca-certificates")
CLEAN = "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"
FILES = {
    "etc/apt/apt.conf.d/docker-clean": (
        f'DPkg::Post-Invoke {{ "{CLEAN}"; }};\nAPT::Update::Post-Invoke {{ "{CLEAN}"; }};\n'
        'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";\n'
    ),
    "etc/apt/apt.conf.d/docker-no-languages": 'Acquire::Languages "none";\n',
    "etc/dpkg/dpkg.cfg.d/docker": "".join(
        f"path-exclude /usr/share/{folder}/*\n" for folder in ("doc", "man", "locale", "info", "lintian")
    ),
}
LEFT_OUT = (
    *("./var/cache/apt/*", "./var/lib/apt/lists/*", "./var/log/*", "./dev/*", "./proc/*", "./sys/*"),
    *(f"./usr/share/{folder}/*" for folder in ("doc", "man", "locale", "info")),
    *("./etc/resolv.conf", "./etc/hostname"),
)


def _certificates() -> list[Path]:
    return sorted(CERTIFICATES.glob("*.crt"))


def _bootstrap(suite: str, folder: Path) -> None:
    install("plugin")
    root = folder / "root"
    run(["debootstrap", "--variant=minbase", f"--keyring={KEYRING}", suite, str(root), mirror()], timeout=1200)
    for name, text in FILES.items():
        (root / name).write_text(text, encoding="utf-8")
    trusted = root / CERTIFICATES.relative_to("/")
    trusted.mkdir(parents=True, exist_ok=True)
    for path in _certificates():
        shutil.copy(path, trusted)
    excluded = [f"--exclude={pattern}" for pattern in LEFT_OUT]
    tar = ["tar", "-C", str(root), "--create", "--numeric-owner", *excluded, f"--file={folder / 'image.tar'}", "."]
    run(tar, timeout=300)
    shutil.rmtree(root)


def image(suite: str = SUITE) -> str:
    """Return the image's name."""
    return f"debian:{suite}-slim"


def archive(suite: str = SUITE) -> Path:
    """Return the image's file system as a tar archive, for `docker import`; another one for other certificates."""
    seal = hashlib.blake2s(b"".join(path.read_bytes() for path in _certificates()), digest_size=4).hexdigest()
    return cached(f"base-{suite}-{seal}", partial(_bootstrap, suite)) / "image.tar"


if __name__ == "__main__":
    print(f"The file system of {image()}, by debootstrap (once per machine, about two minutes) ...", flush=True)
    print(f"  {archive()}", flush=True)
