"""Memory that is used again.

Writing to fresh memory costs a page fault for each 4 KiB of a batch: more than
copying the patches. So buffers of batches are kept, and the C library is told to
keep what was freed.
"""

import collections
import ctypes
import functools
import platform
import weakref

import numpy as np

from pcam_tfdata import schema

# TensorFlow takes an array without a copy if it begins at a multiple of this.
_ALIGNMENT = 64
# glibc's mallopt: names and greatest values from its malloc.h and malloc.c.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER_TRIM, _LARGEST_MMAP_THRESHOLD = 2**31 - 1, 32 << 20
# More come back only where somebody kept batches; those are not pooled.
_POOL_SIZE = 8
_NUM_POOLS = 2


class BufferPool:
    """Arrays of one shape, each given out again once nobody refers to it.

    Args:
        shape: Shape of each; uint8.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._free: collections.deque[np.ndarray] = collections.deque(
            maxlen=_POOL_SIZE
        )

    def take(self) -> np.ndarray:
        """Returns an array that nobody else holds; its contents are anything."""
        try:
            # The last first: it may still be in the processor's cache.
            buffer = self._free.pop()
        except IndexError:
            buffer = _empty_aligned(self._shape)
        # TensorFlow refers to the view as long as it uses the memory.
        view = buffer.view()
        weakref.finalize(view, self._free.append, buffer).atexit = False
        return view


@functools.lru_cache(maxsize=_NUM_POOLS)
def pool_of_batches(batch_size: int) -> BufferPool:
    """Returns the pool of images of a batch, of which a process needs but one.

    Training and validation share it, and it is warm when either begins anew.
    """
    return BufferPool((batch_size, *schema.IMAGE_SHAPE))


@functools.cache
def keep_freed_memory() -> bool:
    """Tells the C library not to return big freed blocks to the system.

    They are used for the next batch. Returns whether it does so: glibc can,
    others (musl, macOS) go on as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        and mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)
    )


def _empty_aligned(shape: tuple[int, ...]) -> np.ndarray:
    num_bytes = int(np.prod(shape))
    memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + num_bytes].reshape(shape)
