"""The disk of virtual machines: Debian with its own kernel, Docker and Open vSwitch, as an operator has them.

`python -m tests.lab.vm_image` makes it beforehand and says what it does; some minutes and 1 GiB, once per machine. weft
is not on it: each machine gets it, from the working tree, on a second disk (`vm_goods.py`).
"""

import hashlib
import shutil
from pathlib import Path

from tests.lab.base import FILES as SLIM
from tests.lab.debian import KEYRING, cached, install, mirror
from tests.lab.lan import address4, address6
from tests.lab.process import run

SUITE = "bookworm"
"""The machine's own, for the Python on the disk runs what is installed for the machine's."""

KERNEL = "linux-image-amd64"
PACKAGES = (
    *("apparmor", "ca-certificates", "dbus", "ethtool", "iproute2", "iptables", "kmod", "libnftables1", "nftables"),
    *("procps", "docker.io", "openvswitch-switch", "python3", "systemd-sysv", "udev", KERNEL),
)
SIZE = "6G"

AGENT = "usr/local/sbin/weft-lab-agent"
SERVICE = f"""\
[Unit]
Description=What the lab runs programs by

[Service]
ExecStart=/usr/bin/python3 -I /{AGENT}
Restart=always
"""
RULE = """\
SUBSYSTEM=="virtio-ports", ATTR{name}=="weft-lab", TAG+="systemd", ENV{SYSTEMD_WANTS}+="weft-lab-agent.service"
"""
MOUNTS = """\
/dev/vda /         ext4 rw,noatime 0 0
/dev/vdb /opt/weft ext4 ro,noatime 0 0
"""
NETWORK = """\
[Match]
MACAddress={mac}

[Network]
Address={v4}/24
Address={v6}/64
IPv6AcceptRA=no
"""
HOSTS = range(1, 5)
"""The hosts for which the disk has an address: which one a machine is, its MAC tells."""


def mac(number: int) -> str:
    """Return the MAC of a host on the wire."""
    return f"52:54:00:0a:00:{number:02x}"


FILES = {
    **{
        f"etc/systemd/network/{number}.network": NETWORK.format(
            mac=mac(number), v4=address4(number), v6=address6(number)
        )
        for number in HOSTS
    },
    "etc/fstab": MOUNTS,
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/initramfs-tools/initramfs.conf": "MODULES=list\nBUSYBOX=n\nCOMPRESS=zstd\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\ncrc32c_generic\n",
    "etc/modules-load.d/virtio.conf": "virtio_console\nvirtio_net\n",
    "etc/systemd/system/weft-lab-agent.service": SERVICE,
    "etc/udev/rules.d/80-weft-lab.rules": RULE,
    AGENT: Path(__file__).with_name("vm_agent.py").read_text(encoding="utf-8"),
    "usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n",
}
"""What is there before the packages come, beside what makes Debian's own images slim."""
NO_RESOLVER = "# no names on this wire; without the file Docker starts no plugin in the host's network\n"


def _fill(root: Path) -> None:
    """Make the root: debootstrap, then the packages, with no service started in it."""
    keyring = f"--keyring={KEYRING}"
    run(["debootstrap", "--variant=minbase", keyring, SUITE, str(root), mirror()], timeout=1200)
    for name, text in (SLIM | FILES).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    resolver = Path("/etc/resolv.conf")
    if resolver.exists():
        shutil.copy(resolver, root / "etc/resolv.conf")
    quiet = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    apt = ["chroot", str(root), "apt-get", "-q", "-oDPkg::Options::=--force-confold"]
    run([*apt, "update"], timeout=300, env=quiet)
    run([*apt, "install", "-y", "--no-install-recommends", *PACKAGES], timeout=1800, env=quiet)
    run([*apt, "clean"])
    for name in ("usr/sbin/policy-rc.d", "var/lib/dbus/machine-id"):
        (root / name).unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text(NO_RESOLVER, encoding="ascii")
    # each machine makes its own; without the file it would ask at the console who it is to be (systemd-firstboot)
    (root / "etc/machine-id").write_text("", encoding="ascii")
    shutil.rmtree(root / "var/lib/apt/lists")
    (root / "opt/weft").mkdir()
    run(["chroot", str(root), "systemctl", "enable", "systemd-networkd"])


def _make(folder: Path) -> None:
    install("vm")
    root = folder / "root"
    try:
        _fill(root)
    finally:
        if (root / "proc").is_mount():  # debootstrap may leave it there
            run(["umount", str(root / "proc")])
    for name, wanted in (("vmlinuz", "kernel"), ("initrd.img", "initrd")):
        (found,) = (root / "boot").glob(f"{name}-*")
        shutil.copy(found, folder / wanted)
    (modules,) = (root / "usr/lib/modules").iterdir()
    (folder / "version").write_text(modules.name, encoding="ascii")
    disk = folder / "disk"
    # the folder's own files go onto the disk: no mount, no loop device
    run(["mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", str(root), str(disk), SIZE], timeout=600)
    shutil.rmtree(root)


def folder() -> Path:
    """Return the folder with `disk`, `kernel`, `initrd` and the kernel's `version`; another one for another recipe."""
    recipe = repr((SUITE, PACKAGES, SIZE, SLIM | FILES, NO_RESOLVER))
    seal = hashlib.blake2s(recipe.encode(), digest_size=4).hexdigest()
    return cached(f"vm-{SUITE}-{seal}", _make)


if __name__ == "__main__":
    print("A disk for virtual machines, by debootstrap (once per machine, some minutes) ...", flush=True)
    print(f"  {folder()}", flush=True)
