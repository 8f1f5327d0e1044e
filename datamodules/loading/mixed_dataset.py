"""Real rows and synthetic samples behind one row of indices; a batch is fetched at once, not sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.batch import Batch
from datamodules.rows.grey_or_colour import join_pictures
from datamodules.rows.sample_table import SampleTable
from datamodules.rows.template_captions import captions_of_rows
from datamodules.synthetic.synthetic_pool import SyntheticPool
from synfer.faces.captions import captions_for
from synfer.faces.face_shape import resize_faces
from synfer.foundation.counter_based_random import keys_of


def as_is(batch: Batch) -> Batch:
    """The ``collate_fn`` of batches that are already whole."""
    return batch


class MixedDataset(Dataset):
    """Index i < N is real row i; index N + s is slot s of the pool, or row s of a table of synthetic samples.

    ``DataLoader`` hands all indices of a batch to ``__getitems__``; use ``collate_fn=as_is``.

    Args:
        real: N rows.
        synthetic: pool or table; None for real rows only.
        image_size: side to which pictures of other sizes are cut and resized (uint8, antialiased); None leaves them
            alone.
        with_images: whether the pixels of real rows are read; without them their pictures are (B, 1, 0, 0).
    """

    def __init__(
        self,
        real: SampleTable,
        synthetic: SyntheticPool | SampleTable | None = None,
        image_size: int | None = None,
        with_images: bool = True,
    ) -> None:
        self.real = _TableRows(real, image_size, with_images)
        self.synthetic: _TableRows | _PoolSlots | None = None
        if isinstance(synthetic, SyntheticPool):
            self.synthetic = _PoolSlots(synthetic, real.label_space)
        elif synthetic is not None:
            self.synthetic = _TableRows(synthetic, image_size)

    def __len__(self) -> int:
        return len(self.real) + (0 if self.synthetic is None else len(self.synthetic))

    def __getitem__(self, index: int) -> Batch:
        """Returns a batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Returns the batch of these indices, real rows first; images are uint8, (B, 3, H, W) or, grey, (B, 1, H, W).

        Raises:
            IndexError: an index beyond the real rows, where there is nothing synthetic.
        """
        index = np.asarray(indices, dtype=np.int64)
        index = index[index >= 0]  # as EvaluationSampler says that there is none
        if not len(index):
            one: Any = self.real.batch(np.zeros(1, dtype=np.int64))
            return {name: values[:0] for name, values in one.items()}  # type: ignore[return-value]
        is_real = index < len(self.real)
        parts = []
        if is_real.any():
            parts.append(self.real.batch(index[is_real]))
        if not is_real.all():
            if self.synthetic is None:
                raise IndexError(f"index {index.max()}: found no synthetic samples, only {len(self.real)} real rows")
            parts.append(self.synthetic.batch(index[~is_real] - len(self.real)))
        return parts[0] if len(parts) == 1 else _join(parts)


class _TableRows:
    def __init__(self, table: SampleTable, image_size: int | None, with_images: bool = True) -> None:
        self.table, self.image_size, self.with_images = table, image_size, with_images

    def __len__(self) -> int:
        return len(self.table)

    def batch(self, rows: np.ndarray) -> Batch:
        table, n = self.table, len(rows)
        au = np.full((n, len(table.au_names)), np.nan, dtype=np.float32) if table.au is None else table.au[rows]
        no_image = torch.empty(n, 1, 0, 0, dtype=torch.uint8)
        return {
            "image": _resized(table.images.batch(rows), self.image_size) if self.with_images else no_image,
            "label": torch.from_numpy(table.label[rows]),
            "soft_label": torch.from_numpy(table.soft_label[rows]),
            "au": torch.from_numpy(au),
            "caption": captions_of_rows(table, rows) if table.caption is None else table.caption[rows].tolist(),
            "is_synthetic": torch.full((n,), table.is_synthetic),
            "sample_id": table.sample_id[rows].tolist(),
        }


class _PoolSlots:
    def __init__(self, pool: SyntheticPool, label_space: tuple[str, ...]) -> None:
        self.pool, self.label_space = pool, label_space

    def __len__(self) -> int:
        return self.pool.slots

    def batch(self, slots: np.ndarray) -> Batch:
        read: dict[str, Any] = self.pool.read(slots)
        names = [self.label_space[label] for label in read["label"].tolist()]
        return {
            "image": read["image"],
            "label": read["label"],
            "soft_label": read["soft_label"],
            "au": read["au"],
            "caption": captions_for(names, keys_of(read["sample_id"])),
            "is_synthetic": read["is_synthetic"],
            "sample_id": read["sample_id"],
        }


def _join(parts: list[Batch]) -> Batch:
    return {
        "image": join_pictures([part["image"] for part in parts]),
        "label": torch.cat([part["label"] for part in parts]),
        "soft_label": torch.cat([part["soft_label"] for part in parts]),
        "au": torch.cat([part["au"] for part in parts]),
        "caption": [caption for part in parts for caption in part["caption"]],
        "is_synthetic": torch.cat([part["is_synthetic"] for part in parts]),
        "sample_id": [sample_id for part in parts for sample_id in part["sample_id"]],
    }


def _resized(image: Tensor, size: int | None) -> Tensor:
    return image if size is None else resize_faces(image, size)
