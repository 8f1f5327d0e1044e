"""Means over the samples of a training epoch, on all ranks."""

from __future__ import annotations

from collections.abc import Iterator

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from synfer.metrics.masked_mean import MaskedMean


class TrainingAverages(LightningModule):
    """A module that logs means over each epoch's training samples, whatever the size of its batches.

    Attributes:
        train_metrics: a :class:`synfer.metrics.masked_mean.MaskedMean` by name; set by the class that trains.
    """

    train_metrics: nn.ModuleDict

    def _track(self, name: str, values: Tensor, counted: Tensor | None = None) -> None:
        metric = self.train_metrics[name]
        assert isinstance(metric, MaskedMean)
        metric.update(values, counted)

    def _train_metrics(self) -> Iterator[tuple[str, MaskedMean]]:
        for name, metric in self.train_metrics.items():
            assert isinstance(metric, MaskedMean)
            yield name, metric

    def on_train_epoch_start(self) -> None:
        """Forgets the last epoch's training metrics; not called where a run goes on in the middle of an epoch."""
        for _, metric in self._train_metrics():
            metric.reset()

    def on_train_epoch_end(self) -> None:
        """Logs train/loss, its parts loss_real, loss_synthetic and loss_affect, and train/accuracy over all ranks."""
        # Every rank computes every metric, whatever it saw itself: compute() is a collective.
        values = {name: metric.compute() for name, metric in self.train_metrics.items()}  # type: ignore[operator]
        for name, value in values.items():
            if bool(value.isfinite()):  # NaN where the epoch held no such sample on any rank
                self.log(f"train/{name}", value, sync_dist=True)
