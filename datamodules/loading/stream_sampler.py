"""Draws the rows of a streamed set part after part: each rank and lane its own stretch, shuffled within a buffer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from datamodules.captions.streamed_images import StreamSettings
from datamodules.loading.mixture_sampler import MixtureSampler
from datamodules.loading.training_position import TrainingPosition
from synfer.foundation.counter_based_random import keyed_seed
from synfer.foundation.random_streams import Stream


class StreamSampler(MixtureSampler):
    """A :class:`MixtureSampler` whose order of real rows reads each part of the set once, on one rank.

    In each pass the parts (row groups of Parquet, archives) come in a random order and are laid end to end. Of these
    rows each rank has one stretch, cut again into lanes, all of one length within a row; at most the part at a border
    is read by both sides. Within a lane a row is moved by less than ``shuffle_buffer`` places. Batch k of a rank comes
    from lane k modulo the number of lanes, so that as many loader processes have a lane each. Every row is drawn once
    in a pass over all ranks; what fills the last batch up is the beginning of the next pass.

    Like the order of any other rows this one is a function of (seed, epoch, position): a resumed run reads on where the
    interrupted one stopped, without what lies before it. Ranks and batch size are part of the order.

    Args:
        parts: int64 (N,), part in which each row lies.
        settings: buffer and lanes.
        num_synthetic_slots, batch_size, ratio, seed, num_replicas, rank, steps_per_epoch, synthetic_shared: as of
            :class:`MixtureSampler`.
    """

    def __init__(
        self,
        parts: np.ndarray,
        settings: StreamSettings,
        num_synthetic_slots: int,
        batch_size: int,
        ratio: float,
        seed: int,
        num_replicas: int | None = None,
        rank: int | None = None,
        steps_per_epoch: int | None = None,
        synthetic_shared: bool = False,
    ) -> None:
        super().__init__(
            len(parts),
            num_synthetic_slots,
            batch_size,
            ratio,
            seed,
            num_replicas=num_replicas,
            rank=rank,
            steps_per_epoch=steps_per_epoch,
            synthetic_shared=synthetic_shared,
        )
        self._part = np.unique(parts, return_inverse=True)[1]
        self._settings = settings

    def order_settings(self) -> dict[str, Any]:
        """Returns what beside seed, ranks and batches decides the order of the rows."""
        return {"shuffle_buffer": self._settings.shuffle_buffer, "lanes": self._settings.lanes, "rows": self.num_real}

    def check_order(self, stored: Mapping[str, Any]) -> None:
        """Compares the order of a checkpoint with this one.

        Raises:
            ValueError: another buffer, other lanes or another number of rows: some would be left out, others repeated.
        """
        own = self.order_settings()
        other = [name for name, value in own.items() if stored.get(name, value) != value]
        if other:
            raise ValueError(
                f"data.reader.init_args.streaming: found a checkpoint of a stream with {other[0]}={stored[other[0]]}, "
                f"expected {own[other[0]]} as now to go on from it"
            )

    def resume_at(self, position: TrainingPosition) -> TrainingPosition:
        """Makes the run go on from where another process has stopped.

        Raises:
            ValueError: in the middle of an epoch of other ranks or batches.
        """
        found, own = (position.world_size, position.batch_size), (self.num_replicas, self.batch_size)
        if position.batches > 0 and found != own:
            raise ValueError(
                f"data.reader.init_args.streaming: found a checkpoint in the middle of an epoch of {found[0]} ranks "
                f"with batches of {found[1]}, expected {own[0]} with {own[1]} as now: they divide a stream among them"
            )
        return super().resume_at(position)

    def _real_stream(self, epoch: int, length: int) -> np.ndarray:
        passes = range(-(-length // self.num_real))
        return np.concatenate([np.zeros(0, dtype=np.int64), *(self._pass(epoch, n) for n in passes)])[:length]

    def _pass(self, epoch: int, number: int) -> np.ndarray:
        """Returns every row once, in the order in which all ranks together draw them."""
        random = np.random.default_rng(keyed_seed(self.seed, Stream.STREAM_ORDER, epoch, number))
        place = random.permutation(self._part.max() + 1)
        in_parts = np.argsort(place[self._part], kind="stable")
        lanes = self._settings.lanes
        per_batch = max(1, round(self.batch_size * float(1 - self.ratio)))
        border = self.num_real * np.arange(self.num_replicas * lanes + 1) // (self.num_replicas * lanes)
        rows, steps, ranks = [], [], []
        for lane in range(self.num_replicas * lanes):
            some = in_parts[border[lane] : border[lane + 1]]
            moved = np.arange(len(some)) + self._settings.shuffle_buffer * random.random(len(some))
            rows.append(some[np.argsort(moved, kind="stable")])
            steps.append(np.arange(len(some)) // per_batch * lanes + lane % lanes)
            ranks.append(np.full(len(some), lane // lanes))
        order = np.lexsort((np.concatenate(ranks), np.concatenate(steps)))  # stable: rows of a lane keep their order
        return np.concatenate(rows)[order]
