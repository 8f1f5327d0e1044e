"""Real faces that generated ones are compared with: those of the test split, and those of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from datamodules.loading.mixed_dataset import MixedDataset
from datamodules.rows.grey_or_colour import as_rgb
from datamodules.rows.row_choice import even_order
from datamodules.rows.sample_table import SampleTable
from synfer.foundation.counter_based_random import keyed_uniform, keys_of
from synfer.foundation.random_streams import Stream


class ReferenceFaces:
    """Rows of real faces, and their pictures at the size of the generated ones.

    Args:
        table: the rows.
        image_size: side in pixels.
    """

    def __init__(self, table: SampleTable, image_size: int) -> None:
        self.table, self.image_size = table, image_size
        self._faces = MixedDataset(table, image_size=image_size)

    def __len__(self) -> int:
        return len(self.table)

    def images(self, rows: Tensor) -> Tensor:
        """Returns uint8 (n, 3, H, W)."""
        return as_rgb(self._faces.__getitems__(rows.tolist())["image"])

    def examples(self, code: int, count: int) -> Tensor:
        """Returns up to ``count`` faces of one class, uint8 (n, 3, H, W)."""
        table = self.table
        mixed = even_order(table.label, table.sample_id, seed=0)  # the first rows may all show one person
        few = torch.from_numpy(mixed[table.label[mixed] == code])[:count]
        return self.images(few) if len(few) else torch.empty(0, 3, *(self.image_size,) * 2, dtype=torch.uint8)


def real_test_faces(datamodule: Any, names: Sequence[str], image_size: int) -> ReferenceFaces:
    """Returns the faces of the data's test split.

    Args:
        datamodule: a data module that has read its test split.
        names: expressions of the test; one that no face shows is warned of.
        image_size: side in pixels.

    Raises:
        ValueError: no test split, or fewer than two faces of these expressions in it.
    """
    table: SampleTable | None = getattr(datamodule, "test_table", None)
    if table is None:
        raise ValueError("generator test: found no data module with a test split, expected one (--data)")
    counts = table.class_counts()
    missing = [name for name in names if not counts.get(name)]
    found = sum(counts.get(name, 0) for name in names)
    if found < 2:
        raise ValueError(
            f"generator test: found {found} real {table.split} faces of {', '.join(names)}, expected at least "
            "2 to compare with"
        )
    if missing:
        rank_zero_warn(
            f"the {table.split} split has no face of {', '.join(missing)}: these expressions are left out of "
            "Fréchet distance, KID, precision and recall"
        )
    return ReferenceFaces(table, image_size)


def some_training_faces(datamodule: Any, wanted: int | None, seed: int, image_size: int) -> ReferenceFaces:
    """Returns faces that a fit with this configuration learns from.

    Args:
        datamodule: the data module.
        wanted: so many, drawn by the seed; None = all.
        seed: of the draw.
        image_size: side in pixels.

    Raises:
        ValueError: the training split cannot be read.
    """
    try:
        datamodule.setup("fit")  # the rows that a fit with this configuration learns from
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise ValueError(
            f"test.nearest_training: the training split cannot be read ({error}), expected one "
            "(or --test.nearest_training=0)"
        ) from error
    table: SampleTable = datamodule.train_table
    if wanted is not None and wanted < len(table):
        draw = keyed_uniform(keys_of(table.sample_id.tolist()), 1, seed, Stream.NEAREST_TRAINING)[:, 0]
        table = table.select(np.sort(draw.argsort()[:wanted]))
    return ReferenceFaces(table, image_size)
