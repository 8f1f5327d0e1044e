"""A reader of one's own is one class in one file: this one, from the class to a batch."""

from __future__ import annotations

import hashlib

import numpy as np

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.readers import Reader
from datamodules.readers.reader import Split
from datamodules.rows.sample_table import ArrayImages, SampleTable, one_hot


class StripesReader(Reader):
    """Grey stripes, which look happy upright and sad lying down."""

    def __init__(self, count: int = 8) -> None:
        self.label_space = ("happy", "sad")
        self.count = count

    def read(self, split: Split) -> SampleTable:
        """Returns ``count`` pictures of one split, each with a brightness of its own."""
        label = np.arange(self.count) % 2
        stripes = np.zeros((self.count, 16, 16), dtype=np.uint8)
        brightness = (np.arange(self.count) + 100 + 40 * ("train", "val", "test").index(split)).astype(np.uint8)
        stripes[:, :, ::2] = brightness[:, None, None]
        stripes[label == 1] = stripes[label == 1].transpose(0, 2, 1)
        return SampleTable(
            images=ArrayImages(stripes),
            label=label,
            soft_label=one_hot(label, 2),
            sample_id=np.array([f"{split}-{row}" for row in range(self.count)]),
            content_hash=np.array([hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in stripes]),
            label_space=self.label_space,
            split=split,
        )


def test_a_reader_of_one_s_own_feeds_the_data_module() -> None:
    data = ExpressionDataModule(StripesReader(), batch_size=4)
    data.setup("fit")
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch["image"].shape == (4, 3, 16, 16) and data.label_space == ("happy", "sad")
    across = batch["image"][:, 0].std(dim=2).mean(dim=1) > 0.1
    assert across.tolist() == (batch["label"] == 0).tolist()


def test_what_a_checkpoint_says_of_its_data() -> None:
    assert StripesReader().source() == {"reader": "StripesReader", "labels": None}
