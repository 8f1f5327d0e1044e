"""The mixture of one epoch again in every epoch, for ``trainer.overfit_batches``."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import SequentialSampler

from datamodules.loading.mixture_sampler import MixtureSampler
from datamodules.loading.training_position import TrainingPosition


class RepeatingSampler(MixtureSampler, SequentialSampler):
    """A :class:`MixtureSampler` that draws the same batches in every epoch, with the ratio of any other run.

    To overfit, Lightning puts a ``SequentialSampler`` over the data set in place of any sampler that is none: real rows
    alone, the first ones, which in a sorted set are of one class. This one passes for one, since its order is fixed.
    """

    def __iter__(self) -> Iterator[int]:
        first, running, start = self.first_batch, self.epoch, self._start
        self.epoch, self._start = 0, TrainingPosition(steps=self.steps)
        try:
            drawn = list(super().__iter__())
        finally:
            self.epoch, self._start = running, start
        yield from drawn[first * self.batch_size :]
