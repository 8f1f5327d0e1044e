"""A loader that goes on in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from datamodules.loading.mixture_sampler import MixtureSampler


class ResumableLoader(DataLoader):
    """``DataLoader`` over a :class:`MixtureSampler`, which knows where an interrupted epoch goes on.

    Iteration starts at the first ``next``, not at ``iter``: Lightning calls ``iter`` before ``on_train_start``, and
    workers that read ahead from there would find an empty synthetic pool.

    The place in the data belongs to ``ExpressionDataModule``, which saves and restores it. Lightning's own protocol for
    loaders cannot: a module that asks for the number of training steps in ``configure_optimizers`` has its loader set
    up before the loops are restored, and a state that comes later is dropped without a word. So the state here is for
    checking alone.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()

    def state_dict(self) -> dict[str, int]:
        """Returns the running epoch: with a state, Lightning knows that this loader can go on in the middle of one."""
        return {"epoch": getattr(self.sampler, "epoch", 0)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Does nothing: ``ExpressionDataModule.load_state_dict`` has moved the sampler already."""


def sampler_of(loader: DataLoader) -> MixtureSampler:
    """Returns the sampler of a training loader.

    Raises:
        TypeError: somebody has put another one in its place, which knows neither ratio nor position.
    """
    if not isinstance(loader.sampler, MixtureSampler):
        raise TypeError(f"training loader: found the sampler {type(loader.sampler).__name__}, expected MixtureSampler")
    return loader.sampler
