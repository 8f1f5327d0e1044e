"""What a data module knows of how far its training has come, and how it goes on from there."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from datamodules.loading.mixture_sampler import MixtureSampler
from datamodules.loading.resumable_loader import ResumableLoader, sampler_of
from datamodules.loading.training_position import TrainingPosition
from synfer.foundation.default_ranks import default_ranks


class ResumableDataModule(LightningDataModule, ABC):
    """Counts what the training has drawn, and goes on in the middle of an epoch, with other ranks and batches too.

    A subclass makes the sampler (:meth:`training_sampler`) and the loader over it (:meth:`make_training_loader`).

    Attributes:
        resumed_at: where a checkpoint that the fit goes on from has stood; None = from the beginning.
    """

    def __init__(self) -> None:
        super().__init__()
        self.resumed_at: TrainingPosition | None = None
        self._drawn = {"real": 0, "synthetic": 0}
        self._train_loader: ResumableLoader | None = None

    @abstractmethod
    def training_sampler(self) -> MixtureSampler:
        """Returns a new sampler of this rank's training batches, at the beginning.

        Raises:
            RuntimeError: before ``setup("fit")``.
        """

    @abstractmethod
    def make_training_loader(self, sampler: MixtureSampler) -> ResumableLoader:
        """Returns a new loader of the training batches that a sampler draws."""

    def train_dataloader(self) -> DataLoader:
        """Returns this rank's training batches, each with the exact ratio."""
        sampler = self.training_sampler()
        if self.resumed_at is not None:
            sampler.resume_at(self.resumed_at)
        self._train_loader = self.make_training_loader(sampler)
        return self._train_loader

    @property
    def counts(self) -> dict[str, int]:
        """Training samples drawn on this rank so far: {"real": n, "synthetic": n}.

        In a resumed run rank 0 counts what all ranks had drawn before, so that the sum over ranks is that of the run.
        """
        return dict(self._drawn)

    @property
    def effective_ratio(self) -> float:
        """Share of synthetic samples among those drawn so far; NaN before the first."""
        total = sum(self._drawn.values())
        return self._drawn["synthetic"] / total if total else math.nan

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Counts the samples of training batches while the flags are still on the CPU."""
        if self._is_training() and "is_synthetic" in batch:
            synthetic = int(batch["is_synthetic"].sum())
            self._drawn["synthetic"] += synthetic
            self._drawn["real"] += len(batch["is_synthetic"]) - synthetic
        return batch

    def resume_at(self, position: TrainingPosition) -> TrainingPosition:
        """Makes the training go on from where another process has stopped; before its loader is made.

        Returns:
            The same place in batches of this run, which may have other ranks and batches.
        """
        self.resumed_at = position
        here = self.training_sampler().resume_at(position)
        is_first = self._ranks()[1] == 0  # the counts of all ranks are summed at the end
        self._drawn = {"real": here.real, "synthetic": here.synthetic} if is_first else {"real": 0, "synthetic": 0}
        return here

    def position_of(self, epoch: int, batches: int) -> TrainingPosition:
        """Returns where a run with the present settings stands after so many batches of an epoch."""
        return self.training_sampler().position_at(epoch, batches)

    @property
    def position(self) -> TrainingPosition | None:
        """Where the training stands after its last optimiser step; None before the first batch."""
        if self.trainer is None or self._train_loader is None:
            return None
        sampler = sampler_of(self._train_loader)
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        if batches < sampler.used_steps:  # batches whose gradients were accumulated and never used are drawn again
            batches -= batches % self.trainer.accumulate_grad_batches
        return sampler.position_at(sampler.epoch, batches)

    def state_dict(self) -> dict[str, Any]:
        """Returns the position; all ranks hold the same, so rank 0's, the only one stored, serves them all."""
        position = self.position
        if position is None or self._train_loader is None:
            return {}
        order = sampler_of(self._train_loader).order_settings()
        return {"position": position.state_dict(), **({"order": order} if order else {})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Makes a fit go on from the position of a checkpoint.

        Raises:
            ValueError: the rows come in another order now.
        """
        if "order" in state_dict:
            self.training_sampler().check_order(state_dict["order"])
        if "position" in state_dict:
            self.resume_at(TrainingPosition.from_state_dict(state_dict["position"]))
        elif "counts" in state_dict:  # of an older checkpoint, whose position Lightning's loops tell
            self._drawn = {"real": 0, "synthetic": 0, **state_dict["counts"]}

    def _is_training(self) -> bool:
        return self.trainer is not None and self.trainer.training and not self.trainer.sanity_checking

    def _ranks(self) -> tuple[int, int]:
        if self.trainer is not None:
            return self.trainer.world_size, self.trainer.global_rank
        return default_ranks(None, None)
