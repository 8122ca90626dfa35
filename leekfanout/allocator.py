"""One setting of glibc's allocator, so that memory that is free again goes back to the system."""

import contextlib
import ctypes
from typing import Final

# From glibc's malloc.h.
_M_MMAP_THRESHOLD: Final = -3

LARGE_BLOCK_BYTES: Final = 131_072


def map_large_blocks() -> None:
    """Have blocks of :data:`LARGE_BLOCK_BYTES` and more mapped apart, and so returned when freed.

    That is glibc's own start value, but it raises it with the first large block that is freed (see
    mallopt(3)), and then bodies and large messages leave holes in the heap. With 64 MB of large
    messages in flight this took 50 MB more. Elsewhere than on glibc it does nothing. Call it in the
    process concerned, before there is much to allocate.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
