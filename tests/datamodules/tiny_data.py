"""A data set of random pixels, made in a moment, for tests that need rows and not faces."""

from __future__ import annotations

import hashlib

import numpy as np

from datamodules.expressions import LABEL_SPACES
from datamodules.readers.reader import Reader, Split
from datamodules.sample_table import ArrayImages, SampleTable, one_hot

BASIC7 = LABEL_SPACES["basic7"]


def tiny_table(
    count: int,
    split: str = "train",
    side: int = 8,
    grey: bool = True,
    label_space: tuple[str, ...] = BASIC7,
    seed: int = 0,
) -> SampleTable:
    """Returns ``count`` rows of noise; row i has label i modulo K."""
    random = np.random.default_rng([seed, *split.encode()])
    array = random.integers(0, 256, (count, side, side) if grey else (count, side, side, 3), dtype=np.uint8)
    label = np.arange(count) % len(label_space)
    return SampleTable(
        images=ArrayImages(array),
        label=label,
        soft_label=one_hot(label, len(label_space)),
        sample_id=np.array([f"{split}-{i}" for i in range(count)]),
        content_hash=np.array([hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in array]),
        label_space=label_space,
        split=split,
    )


class TinyReader(Reader):
    """Tables by split, as given."""

    def __init__(self, **tables: SampleTable) -> None:
        self.tables = tables
        self.reads: list[str] = []
        self.label_space = next(iter(tables.values())).label_space

    def read(self, split: Split) -> SampleTable:
        """Returns the table of a split."""
        self.reads.append(split)
        return self.tables[split]
