"""Which rows of a set without splits are held out for validation and test."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from synfer.foundation.counter_based_random import keyed_uniform
from synfer.foundation.random_streams import Stream


def held_out_rows(content_hash: np.ndarray, shares: Mapping[str, float], parts: np.ndarray | None = None) -> np.ndarray:
    """Returns the split that each row goes to, str (N,), "" = it stays in training.

    A function of the rows' hashes alone, of no seed: the same rows in every run. Rows with one hash go together.

    Args:
        content_hash: str (N,), 16 hex digits.
        shares: split → share in (0, 1).
        parts: int64 (N,), the part of a stream in which each row lies: whole parts are held out, at least one for each
            split, so that evaluation does not touch the others. None = row by row.
    """
    split = np.full(len(content_hash), "", dtype=object)
    if parts is None:
        draw = _drawn(content_hash)
        start = 0.0
        for name, share in shares.items():
            split[(draw >= start) & (draw < start + share)] = name
            start += share
        return split.astype(str)
    numbers, first, sizes = np.unique(parts, return_index=True, return_counts=True)
    waiting = np.argsort(_drawn(content_hash[first]), kind="stable").tolist()
    for name, share in shares.items():
        taken = 0
        while waiting and (taken == 0 or taken + sizes[waiting[0]] / 2 < share * len(content_hash)):
            part = waiting.pop(0)
            split[parts == numbers[part]] = name
            taken += sizes[part]
    return split.astype(str)


def _drawn(content_hash: np.ndarray) -> np.ndarray:
    keys = np.array([int(digits, 16) for digits in content_hash.tolist()], dtype=np.uint64)
    return keyed_uniform(keys, 1, Stream.HELD_OUT_ROWS)[:, 0]
