"""Any data set with its splits under other names."""

from __future__ import annotations

from typing import get_args

from datamodules.readers.reader import Reader, Split
from datamodules.sample_table import SampleTable


class OtherSplitReader(Reader):
    """Reads a split of another reader where one is asked for, as in scoring the labels of a training split.

    Args:
        reader: the data set.
        splits: asked split → split that is read; those left out stay.

    Raises:
        ValueError: an unknown split.
    """

    def __init__(self, reader: Reader, splits: dict[str, str]) -> None:
        for name in (*splits, *splits.values()):
            if name not in get_args(Split):
                raise ValueError(f"data.reader.init_args.splits: found '{name}', expected train, val or test")
        self.reader, self.splits = reader, splits
        self.label_space = reader.label_space

    def read(self, split: Split) -> SampleTable:
        """Returns the rows of the split that stands for this one."""
        return self.reader.read(self.splits.get(split, split))  # type: ignore[arg-type]
