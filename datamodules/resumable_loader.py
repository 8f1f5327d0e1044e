"""A loader that goes on in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from datamodules.mixture_sampler import MixtureSampler


class ResumableLoader(DataLoader):
    """``DataLoader`` over a :class:`MixtureSampler` with the state that Lightning stores and restores.

    The state is (epoch, batches handed out); the sampler is a pure function of it. Iteration starts at the first
    ``next``, not at ``iter``: Lightning calls ``iter`` before ``on_train_start``, and workers that read ahead from
    there would find an empty synthetic pool.
    """

    _handed_out = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        sampler = self.sampler
        self._handed_out = sampler.first_batch if isinstance(sampler, MixtureSampler) else 0
        for batch in super().__iter__():
            self._handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Returns where the epoch stands."""
        return {"epoch": getattr(self.sampler, "epoch", 0), "batches": self._handed_out}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Makes the next iteration of that epoch go on from there."""
        if isinstance(self.sampler, MixtureSampler):
            self.sampler.resume_at(state["epoch"], state["batches"])
