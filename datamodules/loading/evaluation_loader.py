"""Loaders: what all of them share, and the one that shows every row once."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from datamodules.loading.evaluation_sampler import EvaluationSampler
from datamodules.loading.mixed_dataset import MixedDataset, as_is
from datamodules.loading.worker_signals import outlive_signals
from datamodules.rows.row_choice import even_order
from datamodules.rows.sample_table import SampleTable


def evaluation_loader(
    table: SampleTable,
    image_size: int | None,
    batch_size: int,
    num_workers: int,
    ranks: tuple[int, int],
    limit: float = 1.0,
) -> DataLoader:
    """Returns one rank's batches of a table, every row once over all ranks.

    Args:
        table: the rows.
        image_size: side in pixels to which pictures of other sizes are cut and resized; None = as they are.
        batch_size: samples per batch and rank.
        num_workers: loader processes.
        ranks: number of ranks, and this one.
        limit: what Lightning takes of the batches, a share (float) or a number (int).
    """
    dataset = MixedDataset(table, image_size=image_size)
    # Where Lightning is to take the first batches only, they hold all classes, and the same rows in every run.
    order = None if limit == 1.0 and isinstance(limit, float) else even_order(table.label, table.sample_id, seed=0)
    sampler = EvaluationSampler(dataset, *ranks, order)
    return DataLoader(dataset, batch_size=batch_size, sampler=sampler, **loader_settings(num_workers))


def loader_settings(num_workers: int) -> dict[str, Any]:
    """Returns what all loaders of whole batches are given."""
    return {
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "pin_memory": torch.cuda.is_available(),
        "collate_fn": as_is,
        "worker_init_fn": outlive_signals,
    }
