"""When an evaluation is over: how well a classifier does for each kind of face that the data set tells apart."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.rows.sample_table import UNLABELLED, SampleTable
from lightning_modules.trainer_access import data_of
from synfer.foundation.rank_states import states_of_ranks

FEWEST = 30
"""Rows of a value from which on its accuracy counts in the gap: that of a handful of faces is chance."""


class AttributeScores(Callback):
    """Logs the accuracy for each value of each attribute of the evaluated rows, after ``test`` and ``validate``.

    ``test/attribute_accuracy/<attribute>/<value>``, the number of its rows as ``test/attribute_rows/…``, and as
    ``test/attribute_gap/<attribute>`` the largest minus the smallest of these accuracies among values of at least
    :data:`FEWEST` rows (two of them, or there is none). Rows of which an attribute is not known are left out of it.
    Attributes are those of the table (:class:`~datamodules.rows.sample_table.SampleTable`): a data set without any,
    and a module that gives no probabilities, log nothing.

    Each rank counts its own rows; at the end all ranks sum (a collective).
    """

    def __init__(self) -> None:
        self._row: dict[str, int] = {}
        self._table: SampleTable | None = None
        self._counts: Counter[tuple[str, str, bool]] = Counter()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to count in ``validate``; a fit has enough to log."""
        self._begin(trainer, "val" if trainer.state.fn == "validate" else None)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to count."""
        self._begin(trainer, "test")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts the rows of a batch."""
        self._take(outputs, batch)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the scores of all ranks."""
        self._log(pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the scores of all ranks."""
        self._log(pl_module, "test")

    def _begin(self, trainer: Trainer, split: str | None) -> None:
        table = None if split is None else getattr(data_of(trainer), f"{split}_table", None)
        self._table = table if table is not None and table.attributes else None
        ids = [] if self._table is None else self._table.sample_id.tolist()
        self._row = {name: row for row, name in enumerate(ids)}
        self._counts = Counter()

    def _take(self, probabilities: Any, batch: Any) -> None:
        if self._table is None or not isinstance(probabilities, Tensor):
            return
        right = (probabilities.argmax(1) == batch["label"]).tolist()
        labels = batch["label"].tolist()
        for sample_id, label, is_right in zip(batch["sample_id"], labels, right, strict=True):
            if label == UNLABELLED:
                continue
            row = self._row[sample_id]
            for name, values in self._table.attributes.items():
                if values[row]:
                    self._counts[name, str(values[row]), is_right] += 1

    def _log(self, module: LightningModule, stage: str) -> None:
        if self._table is None:
            return
        total: Counter[tuple[str, str, bool]] = Counter()
        for counts in states_of_ranks(self._counts):
            total.update(counts)
        for name, value in attribute_scores(total).items():
            module.log(f"{stage}/{name}", value, rank_zero_only=False, sync_dist=True)
        self._table, self._row = None, {}


def attribute_scores(counts: Counter[tuple[str, str, bool]]) -> dict[str, float]:
    """Returns accuracies, numbers of rows and gaps by the names under which they are logged.

    Args:
        counts: attribute, its value, whether the prediction is right → rows.
    """
    scores: dict[str, float] = {}
    compared: dict[str, list[float]] = {}
    for name, value in sorted({(name, value) for name, value, _ in counts}):
        right, rows = counts[name, value, True], counts[name, value, True] + counts[name, value, False]
        scores[f"attribute_accuracy/{name}/{value}"] = right / rows
        scores[f"attribute_rows/{name}/{value}"] = float(rows)
        if rows >= FEWEST:
            compared.setdefault(name, []).append(right / rows)
    gaps = {f"attribute_gap/{name}": max(found) - min(found) for name, found in compared.items() if len(found) > 1}
    return {**scores, **gaps}
