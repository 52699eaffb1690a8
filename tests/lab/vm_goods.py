"""What a virtual machine gets from the working tree: weft, as a service and as the plugin, the image, the tests' code.

It is a file system of its own, which is there after a reboot as well: /opt/weft, read-only, with weft where `python3 -m
venv` and pip would have put it.
"""

import shutil
import sys
from pathlib import Path

from tests.lab import image
from tests.lab.engine import Engine
from tests.lab.names import BIN, DISKS, REPO, unique
from tests.lab.node import Node, remove_disk
from tests.lab.plugin import Workshop
from tests.lab.process import run
from tests.lab.way_out import WayOut

AT = Path("/opt/weft")
PYTHON = AT / "bin/python3"
WEFT = AT / "bin/weft"
IMAGE = AT / "image.tar"
PLUGIN = AT / "plugin"
"""What `docker plugin create` takes."""
LAB = AT / "lab"
"""The folder that has the package `tests` in it."""

DEBIANS_PYTHON = (3, 11)
SCRIPT = f"""\
#!{PYTHON}
import sys
from plugin.cli.main import main
sys.exit(main())
"""


def make(folder: Path) -> Path:
    """Make the disk in a folder, and return it."""
    if sys.version_info[:2] != DEBIANS_PYTHON:
        raise RuntimeError(f"weft's parts are installed by this machine's Python, which must be {DEBIANS_PYTHON}")
    tree, disk = folder / "tree", folder / "goods"
    (tree / "bin").mkdir(parents=True)
    (tree / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n", encoding="ascii")
    (tree / "bin/python3").symlink_to("/usr/bin/python3")
    (tree / "bin/weft").write_text(SCRIPT, encoding="ascii")
    (tree / "bin/weft").chmod(0o755)
    packages = tree / "lib/python3.11/site-packages"
    pip = [str(BIN / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    run([*pip, "--constraint", "constraints.txt", "--target", str(packages), "."], cwd=REPO, timeout=600)
    (tree / "image.tar").write_bytes(image.archive())
    shutil.copytree(REPO / "tests", tree / "lab/tests", ignore=shutil.ignore_patterns("__pycache__"))
    _build_plugin(folder / "workshop", tree / "plugin")
    run(["mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", str(tree), str(disk), "800M"], timeout=300)
    shutil.rmtree(tree)
    return disk


def _build_plugin(folder: Path, to: Path) -> None:
    name = unique("registry")
    folder.mkdir()
    try:
        with Node("workshop") as node, Engine(node) as engine, WayOut(node):
            Workshop(node, engine, DISKS / name, folder).rootfs().rename(to)
    finally:
        remove_disk(name)
        shutil.rmtree(folder)
