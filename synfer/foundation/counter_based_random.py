"""Random numbers that are a pure function of their keys.

A generator object remembers how often it was called, so what a sample gets depends on batch size, rank and worker. Here
each number depends on (seed, stream, key, column) alone: the same sample gets the same augmentation on one rank or on
eight, and a resumed run goes on as if it had never stopped. Such generators are called counter-based (Salmon et al.,
SC 2011); the streams are listed in :mod:`synfer.foundation.random_streams`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): uint64 → well-mixed uint64."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def key_of(text: str) -> int:
    """Returns a stable 63-bit key of a string, such as a sample id (Python's own hash changes between processes)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def keys_of(texts: Iterable[str]) -> np.ndarray:
    """Returns :func:`key_of` of each string as uint64 (n,)."""
    return np.array([key_of(text) for text in texts], dtype=np.uint64)


def keyed_uniform(keys: np.ndarray | Sequence[int], columns: int, *stream: int) -> np.ndarray:
    """Returns uniform numbers in [0, 1): float64 (n, columns).

    Args:
        keys: n integers, one per sample.
        columns: how many numbers each sample gets.
        stream: any integers that tell this use from others (seed, epoch, step, …).
    """
    state = _mix(np.asarray(keys, dtype=np.uint64).reshape(-1, 1) + _GOLDEN)
    with np.errstate(over="ignore"):
        for value in stream:
            state = _mix(state + _GOLDEN * np.uint64((value + 1) & 0xFFFFFFFFFFFFFFFF))
        bits = _mix(state + _GOLDEN * np.arange(1, columns + 1, dtype=np.uint64))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def keyed_seed(*stream: int) -> int:
    """Returns one 63-bit seed for a ``torch.Generator`` from integers such as (seed, rank, step)."""
    state = np.array([0], dtype=np.uint64)
    with np.errstate(over="ignore"):
        for value in stream:
            state = _mix(state + _GOLDEN * np.uint64((value + 1) & 0xFFFFFFFFFFFFFFFF))
    return int(state[0] >> np.uint64(1))
