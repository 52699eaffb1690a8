"""What keeps the process small: pages that the worker shares with its master, and bodies given back to the kernel.

A container with 10,000 published ports is a body of 1.25 MB, decoded three times. Measured here (bench/ports.py,
glibc 2.36, CPython 3.11): without these the worker grows by some 25 MB in its first rounds and keeps them.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Final

LARGE_BODY: Final = 100_000  # bytes
_M_ARENA_MAX: Final = -8  # <malloc.h>


def share_with_worker() -> None:
    """Keep the collector off what exists before the fork: touching it would copy its pages."""
    gc.collect()
    gc.freeze()


def use_one_arena() -> None:
    """Have all threads allocate from one arena, so that what one frees another can use. Nothing on other libcs."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Return what was freed to the kernel. Nothing on other libcs."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
