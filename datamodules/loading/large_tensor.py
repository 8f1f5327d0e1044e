"""New memory for a large batch on a CPU, in large pages."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_PAGE = 2**21
"""Length of a large page on x86 and most ARM machines, in bytes."""

_FEWEST = 4 * _PAGE


def large_empty(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns an uninitialised tensor on the CPU.

    The allocator takes a large batch from the system each time and gives it back, and to be handed over page by page of
    4 KB takes as long as half of the work on it. Where the system has large pages for those who ask (Linux), they are
    asked for; elsewhere this is ``torch.empty``.
    """
    count = int(np.prod(shape))
    length = count * dtype.itemsize
    if length < _FEWEST or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(*shape, dtype=dtype)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # shared memory, Python's default, has small pages as a rule
    buffer = mmap.mmap(-1, length + _PAGE, flags=flags)  # lives as long as the tensor
    try:
        buffer.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel without them
        return torch.empty(*shape, dtype=dtype)
    begin = -torch.frombuffer(buffer, dtype=torch.uint8).data_ptr() % _PAGE
    return torch.frombuffer(buffer, dtype=dtype, count=count, offset=begin).view(*shape)
