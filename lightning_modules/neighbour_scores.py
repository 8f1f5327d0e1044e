"""How well the nearest training faces name the expressions of evaluated ones, over all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.batch import Batch
from datamodules.loading.evaluation_loader import evaluation_loader
from datamodules.rows.row_choice import even_order
from datamodules.rows.sample_table import UNLABELLED, SampleTable
from lightning_modules.confusion_count import ConfusionCount
from synfer.metrics.gathered_rows import GatheredRows
from synfer.representation.neighbours import neighbour_probabilities
from synfer.representation.progress import NeighbourSettings

Features = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) in [0, 1] → features (B, D)."""


class NeighbourScores:
    """A bank of training faces, and the confusion matrix of what it says of others.

    Every rank computes the features of its share of the bank and gets all of them, so that the scores are those of one
    process. Rows without an expression take no part.

    Args:
        settings: of bank and vote.
    """

    def __init__(self, settings: NeighbourSettings) -> None:
        self.settings = settings
        self._bank: dict[str, Tensor] = {}
        self._confusion: ConfusionCount | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a bank: not where no training face has an expression."""
        return bool(self._bank)

    def open(self, data: Any, trainer: Any, features: Features, device: torch.device) -> None:
        """Computes the bank with the network as it is now, and forgets earlier scores. A collective.

        Args:
            data: the run's :class:`datamodules.expression_data_module.ExpressionDataModule`.
            trainer: of the run.
            features: of images.
            device: of the network.
        """
        self._bank, self._confusion = {}, ConfusionCount(data.label_space, device)
        table = data.training_table()
        rows = np.flatnonzero(table.label != UNLABELLED)
        if len(rows):
            chosen = even_order(table.label[rows], table.sample_id[rows], seed=0)[: self.settings.bank]
            self._bank = features_of_rows(table.select(np.sort(rows[chosen])), data, trainer, features, device)

    def update(self, features: Tensor, label: Tensor) -> Tensor:
        """Takes in evaluated faces; returns the bank's probabilities (B, K).

        Args:
            features: (B, D).
            label: int64 (B,); −1 counts nothing.
        """
        assert self._confusion is not None
        k, settings = len(self._confusion.names), self.settings
        bank, truth = self._bank["features"], self._bank["label"]
        found = neighbour_probabilities(features, bank, truth, k, settings.neighbours, settings.temperature)
        self._confusion.update(label, found.argmax(1))
        return found

    def scores(self, trainer: Any) -> dict[str, float]:
        """Returns the scores of all ranks by name; {} of no row. A collective."""
        return {} if self._confusion is None else self._confusion.scores(trainer)


@torch.no_grad()
def features_of_rows(
    table: SampleTable, data: Any, trainer: Any, features: Features, device: torch.device
) -> dict[str, Tensor]:
    """Returns ``features`` (N, D) and ``label`` (N,) of all rows of a table, in its order, on every rank.

    Each rank computes its share. A collective.

    Args:
        table: the rows.
        data: the run's data module, which says how images are read.
        trainer: of the run.
        features: of images.
        device: of the network.
    """
    ranks = (trainer.world_size, trainer.global_rank)
    place = {name: row for row, name in enumerate(table.sample_id.tolist())}
    gathered: GatheredRows | None = None
    for loaded in evaluation_loader(table, data.image_size, data.eval_batch_size, 0, ranks):
        batch: Batch = data.transfer_batch_to_device(loaded, device, 0)
        image = data.on_after_batch_transfer(batch, 0)["image"]
        with trainer.precision_plugin.forward_context():  # as Lightning has steps, but not what comes between them
            found = features(image if len(batch["sample_id"]) else image.new_zeros(1, *image.shape[1:])).float()
        if gathered is None:
            example = {"features": found[:0], "label": torch.zeros(0, dtype=torch.int64)}
            gathered = GatheredRows(example).to(device)
        if len(batch["sample_id"]):
            keys = torch.tensor([place[name] for name in batch["sample_id"]], device=device)
            gathered.update(keys, features=found, label=batch["label"])
    assert gathered is not None  # a rank without a row gets a batch of none
    return gathered.compute()
