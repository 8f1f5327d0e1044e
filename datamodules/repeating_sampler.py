"""The mixture of one epoch again in every epoch, for ``trainer.overfit_batches``."""

from __future__ import annotations

from torch.utils.data import SequentialSampler

from datamodules.mixture_sampler import MixtureSampler


class RepeatingSampler(MixtureSampler, SequentialSampler):
    """A :class:`MixtureSampler` that draws the same batches in every epoch, with the ratio of any other run.

    To overfit, Lightning puts a ``SequentialSampler`` over the data set in place of any sampler that is none: real rows
    alone, the first ones, which in a sorted set are of one class. This one passes for one, since its order is fixed.
    """

    def set_epoch(self, epoch: int) -> None:
        """Stays in the first epoch."""

    def resume_at(self, epoch: int, step: int) -> None:
        """Begins anew: every epoch is the first one, and none may begin in its middle."""
