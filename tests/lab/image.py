"""The test image, built without pulling anything: Debian's static busybox and a file system around it.

The busybox is trixie's (1.37): bookworm's 1.35 crashes on `wget -T`, and a test would read that as silence.
"""

import functools
import io
import shutil
import tarfile
from pathlib import Path

from tests.lab.debian import cached, fetch
from tests.lab.process import run

NAME = "weft-lab:latest"
SUITE = "trixie"

COMMAND = ["/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait; done"]
"""What a container does if it is told nothing else: nothing, and it ends at once on SIGTERM.

`sleep` alone as PID 1 has no handler for SIGTERM, so the kernel drops it and each `docker stop` takes ten seconds.
"""

FOLDERS = ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "usr/bin", "var", "www")
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
    "www/index.html": "weft-lab\n",
}


def _take_busybox(folder: Path) -> None:
    unpacked = folder / "package"
    unpacked.mkdir()
    fetch("busybox-static", SUITE, unpacked)
    (binary,) = (path for path in unpacked.rglob("bin/busybox") if path.is_file())
    binary.rename(folder / "busybox")
    shutil.rmtree(unpacked)


def busybox() -> Path:
    """Return the static busybox, fetched once per machine."""
    return cached(f"busybox-{SUITE}", _take_busybox) / "busybox"


@functools.cache
def archive() -> bytes:
    """Return the image's file system as a tar archive."""
    binary = busybox()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in FOLDERS:
            entry = tarfile.TarInfo(folder)
            entry.type = tarfile.DIRTYPE
            entry.mode = 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        for name, text in FILES.items():
            _add(tar, name, text.encode(), 0o644)
        _add(tar, "bin/busybox", binary.read_bytes(), 0o755)
        for applet in run([str(binary), "--list"]).stdout.split():
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type = tarfile.SYMTYPE
                entry.linkname = "busybox"
                tar.addfile(entry)
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = mode
    tar.addfile(entry, io.BytesIO(content))
