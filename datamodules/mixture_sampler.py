"""Draws each training batch with the exact share of synthetic samples, on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import torch.distributed as dist
from torch.utils.data import Dataset, DistributedSampler

from datamodules.keyed_random import keyed_seed

_REAL, _CLASS_ORDER, _CLASS_ROWS, _SYNTHETIC = range(4)  # streams of random numbers


def default_ranks(num_replicas: int | None, rank: int | None) -> tuple[int, int]:
    """Returns (world size, rank): as given, else from ``torch.distributed``, else (1, 0)."""
    in_group = dist.is_available() and dist.is_initialized()
    if num_replicas is None:
        num_replicas = dist.get_world_size() if in_group else 1
    if rank is None:
        rank = dist.get_rank() if in_group else 0
    return num_replicas, rank


class _Indices(Dataset):
    """What ``DistributedSampler`` wants to see: something with a length."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length


class MixtureSampler(DistributedSampler):
    """Indices of real rows (0 … num_real − 1) and synthetic slots (num_real …), batch after batch.

    Batch k of every rank holds floor((k+1)·r·B) − floor(k·r·B) synthetic samples: exactly r·B where that is an integer,
    and never more than one sample off the ratio in all batches so far. Within a batch the real rows come first.

    Real rows: one permutation per epoch for all ranks; global batch k is the next W·B_real of it, cut into one piece
    per rank. So one rank with batch 2B sees at each step what two ranks with batch B see (where r·B is an integer)::

        permutation   | batch 0         | batch 1         | …
        two ranks     | rank 0 | rank 1 | rank 0 | rank 1 | …
        one rank, 2B  | rank 0          | rank 0          | …

    Everything is a pure function of (seed, epoch, position): a resumed run draws what the interrupted one would have.

    Args:
        num_real: rows N of the real table.
        num_synthetic_slots: synthetic slots to draw from; needed where ratio > 0.
        batch_size: samples per batch and rank, B.
        ratio: share r of synthetic samples in [0, 1].
        seed: the same on all ranks.
        num_replicas: ranks W; None asks ``torch.distributed`` and means 1 without a process group.
        rank: this rank; None likewise.
        steps_per_epoch: batches per epoch; None makes an epoch one pass over the real rows, the last batch being
            filled up from the beginning of the permutation (ratio 1: ceil(N / (W·B)) batches).
        class_labels: int64 (N,) labels of the real rows; needed where class_balance > 0.
        class_balance: b in [0, 1]: class c is drawn with a share proportional to n_c^(1 − b). 0 leaves the classes as
            they are; 1 draws each equally often (counts of two classes differ by one at most, over all ranks and at any
            step). Above 0, rows of rare classes are drawn more often than once per epoch.
        synthetic_shared: True when all ranks draw from one synthetic table, whose rows are then split like the real
            ones; False when the slots are each rank's own pool.

    Raises:
        ValueError: a number outside its range.
    """

    def __init__(
        self,
        num_real: int,
        num_synthetic_slots: int,
        batch_size: int,
        ratio: float,
        seed: int,
        num_replicas: int | None = None,
        rank: int | None = None,
        steps_per_epoch: int | None = None,
        class_labels: np.ndarray | None = None,
        class_balance: float = 0.0,
        synthetic_shared: bool = False,
    ) -> None:
        if not 0 <= ratio <= 1:
            raise ValueError(f"data.synthetic_ratio={ratio}: expected a number in [0, 1]")
        if num_real < 1 or batch_size < 1 or (steps_per_epoch is not None and steps_per_epoch < 1):
            raise ValueError(
                f"mixture sampler: found {num_real} real rows, batch size {batch_size}, {steps_per_epoch} steps per "
                "epoch, expected at least 1 of each"
            )
        if ratio > 0 and num_synthetic_slots < 1:
            raise ValueError(f"data.synthetic_ratio={ratio}: found no synthetic slots, expected at least one")
        if not 0 <= class_balance <= 1:
            raise ValueError(f"data.class_balance={class_balance}: expected a number in [0, 1]")
        if class_balance > 0 and class_labels is None:
            raise ValueError(f"data.class_balance={class_balance}: found no class labels, expected one per real row")
        if class_labels is not None and class_labels.shape != (num_real,):
            raise ValueError(f"mixture sampler: found class labels {class_labels.shape}, expected ({num_real},)")
        num_replicas, rank = default_ranks(num_replicas, rank)
        super().__init__(_Indices(num_real), num_replicas=num_replicas, rank=rank, seed=seed)
        self.num_real = num_real
        self.num_synthetic_slots = num_synthetic_slots
        self.batch_size = batch_size
        # The fraction nearest to the number that was typed: 0.1·3·10 must be 3, not 3.0000000000000004 or 2.99….
        self.ratio = Fraction(ratio).limit_denominator(1_000_000)
        self.synthetic_shared = synthetic_shared
        self.class_rows: list[np.ndarray] | None = None
        if class_labels is not None and class_balance > 0:
            self.class_rows = [np.flatnonzero(class_labels == c) for c in np.unique(class_labels)]
            weight = np.array([len(rows) for rows in self.class_rows]) ** (1 - class_balance)
            self.class_share = weight / weight.sum()
        self.steps = steps_per_epoch or self._steps_of_one_pass()
        self.num_samples = self.steps * batch_size
        self.total_size = self.num_samples * num_replicas
        self._resume_at = (-1, 0)

    def synthetic_before(self, step: int) -> int:
        """Returns how many synthetic samples a rank has drawn in the batches before ``step`` of an epoch."""
        return int(self.ratio * self.batch_size * step)  # a Fraction ≥ 0: int() is floor()

    def real_before(self, step: int) -> int:
        """Returns how many real rows a rank has drawn in the batches before ``step`` of an epoch."""
        return step * self.batch_size - self.synthetic_before(step)

    def resume_at(self, epoch: int, step: int) -> None:
        """Makes iteration of one epoch begin at batch ``step``, as a run interrupted there would go on."""
        self._resume_at = (epoch, step) if step < self.steps else (-1, 0)

    @property
    def first_batch(self) -> int:
        """The batch at which iteration of the current epoch begins: 0 but for a resumed run."""
        return self._resume_at[1] if self._resume_at[0] == self.epoch else 0

    def _steps_of_one_pass(self) -> int:
        passes = self.num_replicas * self.batch_size
        if self.ratio == 1:
            return -(-self.num_real // passes)
        steps = max(1, int(self.num_real / (passes * (1 - self.ratio))) - 1)
        while self.num_replicas * self.real_before(steps) < self.num_real:
            steps += 1
        return steps

    def _real_stream(self, epoch: int) -> np.ndarray:
        """Returns the real rows of one epoch over all ranks in the order they are drawn."""
        length = self.num_replicas * self.real_before(self.steps)
        if self.class_rows is None:
            return _repeated_permutations(self.num_real, 0, length, self.seed, _REAL, epoch)
        # Class c is due once in every 1/share draws, at a random moment of each such interval: sorted by due time, the
        # classes keep their shares all along the epoch and not only at its end.
        rows, due = [], []
        for c, (members, share) in enumerate(zip(self.class_rows, self.class_share, strict=True)):
            times = int(np.ceil(length * share)) + 1
            moment = np.random.default_rng(keyed_seed(self.seed, _CLASS_ORDER, epoch, c)).random(times)
            due.append((np.arange(times) + moment) / share)
            rows.append(members[_repeated_permutations(len(members), 0, times, self.seed, _CLASS_ROWS, epoch, c)])
        return np.concatenate(rows)[np.concatenate(due).argsort(kind="stable")[:length]]

    def _synthetic_stream(self, epoch: int) -> np.ndarray:
        """Returns the slots of one epoch of this rank (shared table: of all ranks) in the order they are drawn."""
        ranks = self.num_replicas if self.synthetic_shared else 1
        owner = 0 if self.synthetic_shared else self.rank
        length = ranks * self.synthetic_before(self.steps)
        # Epochs go on where the last one stopped, so a table larger than one epoch is used whole before any row again.
        return _repeated_permutations(self.num_synthetic_slots, epoch * length, length, self.seed, _SYNTHETIC, owner)

    def __iter__(self) -> Iterator[int]:
        real = self._real_stream(self.epoch)
        synthetic = self._synthetic_stream(self.epoch) + self.num_real if self.ratio > 0 else real[:0]
        ranks, rank = (self.num_replicas, self.rank) if self.synthetic_shared else (1, 0)
        for step in range(self.first_batch, self.steps):
            yield from _piece(real, self.real_before(step), self.real_before(step + 1), self.num_replicas, self.rank)
            yield from _piece(synthetic, self.synthetic_before(step), self.synthetic_before(step + 1), ranks, rank)

    def __len__(self) -> int:
        return self.num_samples


def _piece(stream: np.ndarray, begin: int, end: int, ranks: int, rank: int) -> list[int]:
    """Returns this rank's part of the piece begin … end (counted per rank) of a stream over all ranks."""
    first = begin * ranks + rank * (end - begin)
    return stream[first : first + end - begin].tolist()


def _repeated_permutations(count: int, begin: int, length: int, *stream: int) -> np.ndarray:
    """Returns entries begin … begin + length of an endless row of fresh permutations of 0 … count − 1."""
    passes = range(begin // count, -(-(begin + length) // count))
    if not passes:
        return np.zeros(0, dtype=np.int64)
    drawn = [np.random.default_rng(keyed_seed(*stream, number)).permutation(count) for number in passes]
    return np.concatenate(drawn)[begin - passes.start * count :][:length]
