"""The allocator of a CPU run: freed memory is kept for the next step, not given back to Linux."""

from __future__ import annotations

import ctypes
from functools import cache

_TRIM_THRESHOLD = -1  # M_TRIM_THRESHOLD and M_MMAP_MAX of mallopt(3)
_MMAP_MAX = -4


@cache
def keep_freed_memory() -> bool:
    """Have glibc reuse freed memory, from now on in this process; return whether it does.

    By default glibc maps every tensor above 32 MiB anew, and gives back the top of its heap: each
    training step then pays for its pages again, an eighth of the time of a wide network. What a
    process holds at its peak is the same, but it holds it until it ends. Results do not change.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # not glibc
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
