"""Two settings of glibc's allocator: how much free memory goes back to the system, and when."""

import contextlib
import ctypes
from typing import Final

# From glibc's malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

LARGE_BLOCK_BYTES: Final = 131_072
KEPT_BYTES: Final = 8 * 1024 * 1024
"""What the heap keeps for the next batch's documents. With glibc's start value (128 kB), which stays
as it is once the other setting is made, each batch gave a megabyte back and took it again, and a fifth
of the time that documents take went into the kernel's page faults."""


def map_large_blocks() -> None:
    """Have blocks of :data:`LARGE_BLOCK_BYTES` and more mapped apart, and so returned when freed.

    That is glibc's own start value, but it raises it with the first large block that is freed (see
    mallopt(3)), and then bodies and large messages leave holes in the heap. With 64 MB of large
    messages in flight this took 50 MB more. Elsewhere than on glibc it does nothing. Call it in the
    process concerned, before there is much to allocate.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
