"""Which datapath: the kernel's, where it is, or the one in userspace.

``Open_vSwitch.datapath_types`` does not tell: it lists what ovs-vswitchd was built with, on a kernel without the module
too, and a bridge of type ``system`` is taken there without an error and forwards nothing (OVS 3.1, seen). Nor does
/proc/modules, which lacks what is built into the kernel, nor /sys/module, which has such a thing only if it has
parameters. ovs-vswitchd itself asks for the generic netlink family ``ovs_datapath``, and so do we. The kernel loads the
module when it is asked for, if there is one (``genl_family`` alias), and it answers in every network namespace.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from typing import Final, Literal

from drivers.errors import Unsupported
from drivers.kernel.netlink import GENERIC, Netlink

Datapath = Literal["system", "netdev"]

_FAMILY: Final = b"ovs_datapath\0"
_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, _CTRL_ATTR_FAMILY_NAME = 0x10, 3, 2  # <linux/genetlink.h>
_REQUEST: Final = 0x1
_HEADER: Final = struct.Struct("=IHHII")
_GENERIC: Final = struct.Struct("=BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")


def kernel_has_datapath() -> bool:
    """Tell whether the kernel has Open vSwitch's datapath, loaded or to be loaded."""
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(_FAMILY), _CTRL_ATTR_FAMILY_NAME) + _FAMILY
    body = _GENERIC.pack(_CTRL_CMD_GETFAMILY, 1, 0) + attribute + bytes(-len(attribute) % 4)
    netlink = Netlink(GENERIC)
    try:
        netlink.ask(_HEADER.pack(_HEADER.size + len(body), _GENL_ID_CTRL, _REQUEST, 0, 0) + body)
    except OSError:
        return False
    finally:
        netlink.close()
    return True


def choose(wanted: str, offered: Collection[str], probe: Callable[[], bool] = kernel_has_datapath) -> Datapath:
    """Return the datapath type for ``WEFT_OVS_DATAPATH``: ``auto``, ``system`` or ``netdev``.

    ``offered`` are the types that ovs-vswitchd was built with. Raises :class:`Unsupported` for one that is not there.
    """
    kernel = "system" in offered and wanted != "netdev" and probe()
    match wanted:
        case "auto" | "system" if kernel:
            return "system"
        case "auto" | "netdev" if "netdev" in offered:
            return "netdev"
        case _ if wanted != "netdev" and "system" in offered:
            raise Unsupported(
                "this kernel has no Open vSwitch datapath: load its module (modprobe openvswitch), or use the one in "
                "userspace, where Open vSwitch was built with it (WEFT_OVS_DATAPATH=netdev, or auto)"
            )
        case _:
            known = ", ".join(sorted(offered)) or "none"
            raise Unsupported(f"this Open vSwitch was built with the datapaths {known}, and not {wanted}")
