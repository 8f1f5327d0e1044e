"""Folds for out-of-fold prediction: no label is judged by a model that was trained on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datamodules.rows.groups import units_of
from datamodules.rows.sample_table import SampleTable


def assign_folds(table: SampleTable, folds: int) -> np.ndarray:
    """Returns the fold of each row, int64 (N,) in 0 … folds − 1.

    A function of the set of images and labels alone, not of their order: rows with the same pixels, or of the same
    person where the data set tells, share a fold, and each class is spread evenly (duplicates, and people, count as
    the smallest of their labels).

    Raises:
        ValueError: fewer different images, or people, than folds.
    """
    _, first, image = np.unique(units_of(table), return_index=True, return_inverse=True)
    if len(first) < folds:
        what = "different training images" if table.group is None else "people or photographs"
        raise ValueError(f"data.folds={folds}: found {len(first)} {what}, expected at least {folds}")
    label = np.full(len(first), np.iinfo(np.int64).max)
    np.minimum.at(label, image, table.label)
    fold = np.empty(len(first), dtype=np.int64)
    # Hashes are sorted and as good as random; classes follow each other, so that the folds are of one size as well.
    order = np.argsort(label, kind="stable")
    fold[order] = np.arange(len(first)) % folds
    return fold[image]


def hash_numbers(content_hash: Sequence[str] | np.ndarray) -> np.ndarray:
    """Returns content hashes (16 hex digits) as int64 (N,), small enough to travel in a checkpoint.

    Raises:
        ValueError: one is no such number.
    """
    hashes = np.asarray(content_hash)
    if hashes.dtype != "<U16":
        return np.array([int(digits, 16) for digits in content_hash], dtype=np.uint64).view(np.int64)
    numbers = np.zeros(len(hashes), dtype=np.uint64)
    for start in range(0, len(hashes), _AT_ONCE):  # a Python number for each of a million rows would take much memory
        letters = np.ascontiguousarray(hashes[start : start + _AT_ONCE]).view(np.uint32).reshape(-1, 16)
        digits = _DIGITS[np.minimum(letters, 255)]
        if (digits > 15).any():
            wrong = hashes[start + int(np.flatnonzero((digits > 15).any(axis=1))[0])]
            raise ValueError(f"content hash '{wrong}': expected 16 hex digits")
        for place in range(16):
            numbers[start : start + _AT_ONCE] |= digits[:, place].astype(np.uint64) << np.uint64(4 * (15 - place))
    return numbers.view(np.int64)


_AT_ONCE = 65_536
_DIGITS = np.full(256, 255, dtype=np.uint8)
"""Value of a hex digit by its letter's code; 255 = it is none."""
_DIGITS[[ord(digit) for digit in "0123456789abcdef"]] = range(16)
_DIGITS[[ord(digit) for digit in "ABCDEF"]] = range(10, 16)
