"""A data set without a validation split, whose training rows give a share for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from datamodules.captions.streamed_images import StreamedImages
from datamodules.readers.reader import Reader, Split
from datamodules.rows.held_out_share import ValidationShare
from datamodules.rows.sample_table import SampleTable


class HeldOutReader(Reader):
    """Reads the training rows of another reader as two splits, so that whoever asks for one never sees the other.

    A validation split of its own is left as it is, and nothing is held out.

    Args:
        reader: the data set.
        share: how the rows are chosen.
    """

    def __init__(self, reader: Reader, share: ValidationShare) -> None:
        self.reader, self.share = reader, share
        self.label_space, self.labels = reader.label_space, reader.labels
        self._waiting: dict[str, SampleTable] = {}

    @property
    def holds_out(self) -> bool:
        """Whether validation rows are taken from training."""
        return not self.reader.has_split("val")

    def source(self) -> dict[str, str | None]:
        """Returns that of the data set behind this one."""
        return self.reader.source()

    def has_split(self, split: Split) -> bool:
        """Whether there are rows of a split; of validation always."""
        return split == "val" or self.reader.has_split(split)

    def fit_size(self, image_size: int) -> None:
        """Tells the data set behind this one."""
        self.reader.fit_size(image_size)

    def want_landmarks(self) -> None:
        """Tells the data set behind this one."""
        self.reader.want_landmarks()

    def read(self, split: Split) -> SampleTable:
        """Returns the rows of one split; the training rows are read once for both of their parts.

        Raises:
            ValueError: the rows cannot be read, or not be divided.
        """
        if split == "test" or not self.holds_out:
            if split == "val":
                rank_zero_info("data.val_fraction: the data set has validation rows of its own, none are held out")
            return self.reader.read(split)
        if split not in self._waiting:
            self._waiting = self._divided(self.reader.read("train"))
        return self._waiting.pop(split)  # not kept: pictures held in memory would be there twice

    def _divided(self, table: SampleTable) -> dict[str, SampleTable]:
        if isinstance(table.images, StreamedImages):
            raise ValueError(
                f"data.val_fraction={self.share.fraction:g}: found a stream, whose pictures are not known before they "
                "are needed, expected data.reader.init_args.held_out={val: a share} there"
            )
        mask = self.share.held_out(table)
        record = {**self.share.state_dict(), "training_rows": len(table)}
        taken = table.select(mask)
        parts = {
            "train": replace(table.select(~mask), held_out=record),
            "val": replace(taken, split="val", held_out=record),
        }
        named = ", ".join(f"{count} {name}" for name, count in parts["val"].class_counts().items() if count)
        rank_zero_info(
            f"data.val_fraction={self.share.fraction:g}: {int(np.count_nonzero(mask))} of {len(table)} training rows "
            f"are held out as validation rows ({named or 'without expressions'}; data.val_seed={self.share.seed})"
        )
        return parts
