"""Draws each training batch with the exact share of synthetic samples, on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from torch.utils.data import Dataset, DistributedSampler

from datamodules.loading.class_order import even_class_order
from datamodules.loading.training_position import TrainingPosition
from synfer.foundation.counter_based_random import keyed_seed
from synfer.foundation.default_ranks import default_ranks
from synfer.foundation.random_streams import Mixing


class _Indices(Dataset):
    """What ``DistributedSampler`` wants to see: something with a length."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length


class MixtureSampler(DistributedSampler):
    """Indices of real rows (0 … num_real − 1) and synthetic slots (num_real …), batch after batch.

    The ratio is exact over the run, whatever the epochs and ranks: once T samples have been drawn, all ranks together,
    floor(r·T) of them were synthetic, and rank p of W has drawn floor((r·T + p) / W) of those (these add up to
    floor(r·T): Hermite's identity). So each batch of each rank holds r·B synthetic samples where that is an integer,
    else the integer below or above it; what is left over goes into the next batch, also over the end of an epoch.
    Within a batch the real rows come first.

    Real rows: one permutation per epoch for all ranks; global batch k is the next W·B_real of it, cut into one piece
    per rank. So one rank with batch 2B sees at each step what two ranks with batch B see::

        permutation   | batch 0         | batch 1         | …
        two ranks     | rank 0 | rank 1 | rank 0 | rank 1 | …
        one rank, 2B  | rank 0          | rank 0          | …

    Everything is a pure function of (seed, position): a resumed run draws what the interrupted one would have. On
    another number of ranks, or with other batches, it goes on at the next real row and with the same remainder of the
    ratio.

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
        class_labels: int64 (N,) labels of the real rows; needed where the classes are not drawn as they are.
        class_balance: b in [0, 1]: class c is drawn with a share proportional to n_c^(1 − b). 0 leaves the classes as
            they are; 1 draws each equally often (counts of two classes differ by one at most, over all ranks and at any
            step). Above 0, rows of rare classes are drawn more often than once per epoch.
        class_shares: share of each class among the real rows drawn, float (K,), above 0 for each class that has rows
            and 0 for the others, sum 1: over all ranks and at any step a class is off by less than one row. None leaves
            it to ``class_balance``, which keeps uneven shares less closely (two rows or so).
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
        class_shares: np.ndarray | None = None,
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
        if class_shares is not None and (class_balance > 0 or class_labels is None):
            raise ValueError(
                f"mixture sampler: found class shares with class_balance={class_balance} and class labels "
                f"{'None' if class_labels is None else class_labels.shape}, expected 0 and one per real row"
            )
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
        self._even_order = class_shares is not None
        if class_labels is not None and class_shares is not None:
            present = np.unique(class_labels)
            if not np.array_equal(np.flatnonzero(class_shares), present) or abs(class_shares.sum() - 1) > 1e-6:
                raise ValueError(
                    f"mixture sampler: found class shares {class_shares.tolist()}, expected one above 0 for each class "
                    f"that has rows ({present.tolist()}) and 0 for others, sum 1"
                )
            self.class_rows = [np.flatnonzero(class_labels == c) for c in present]
            self.class_share = class_shares[present] / class_shares[present].sum()
        self.steps = steps_per_epoch or self._steps_of_one_pass()
        self.num_samples = self.steps * batch_size
        self.total_size = self.num_samples * num_replicas
        self.used_steps = self.steps
        self._start = TrainingPosition(steps=self.steps)

    def limit_to(self, steps: int) -> None:
        """Says that the trainer takes only the first batches of each epoch (``limit_train_batches``)."""
        self.used_steps = max(1, min(steps, self.steps))

    def order_settings(self) -> dict[str, Any]:
        """Returns what beside seed, ranks and batches decides the order of the rows, for a checkpoint; {} = nothing."""
        return {}

    def check_order(self, stored: Mapping[str, Any]) -> None:
        """Compares what :meth:`order_settings` gave with this sampler.

        Raises:
            ValueError: a run that went on would leave rows out.
        """

    def resume_at(self, position: TrainingPosition) -> TrainingPosition:
        """Makes the run go on from where another process has stopped.

        Args:
            position: where that was.

        Returns:
            The same place in batches of this sampler. With the same ranks, batches and ratio it is the position itself.
        """
        step = position.batches
        if (position.world_size, position.batch_size, position.steps) != self._shape:
            # The first of our batches that would draw a real row which is not drawn yet; with no real rows the share
            # of the epoch counts.
            step = position.batches * self.used_steps // position.steps
            if self.ratio < 1:
                step = 0
                while step < self.used_steps and self._real(self._batch * (step + 1), 0) <= position.real_in_epoch:
                    step += 1
        if step >= self.used_steps:
            position, step = position.moved_to(epoch=position.epoch + 1, real_in_epoch=0), 0
        same = Fraction(position.ratio).limit_denominator(1_000_000) == self.ratio
        self._start = position.moved_to(
            batches=step,
            steps=self.used_steps,
            world_size=self.num_replicas,
            batch_size=self.batch_size,
            samples=position.samples if same else 0,  # another ratio starts with nothing left over
            ratio=float(self.ratio),
        )
        return self._start

    def position_at(self, epoch: int, step: int) -> TrainingPosition:
        """Returns where the run stands after the batches before ``step`` of an epoch, on all ranks."""
        samples = self._samples_before(epoch) + (step - self._first(epoch)) * self._batch
        real_in_epoch = self._real_offset(epoch) + self._real(
            samples - self._samples_before(epoch), self._samples_before(epoch)
        )
        new = samples - self._start.samples
        synthetic = self._synthetic_of(samples) - self._synthetic_of(self._start.samples)
        position = TrainingPosition(
            epoch,
            step,
            self.used_steps,
            self.num_replicas,
            self.batch_size,
            real_in_epoch,
            samples,
            float(self.ratio),
            self._start.real + new - synthetic,
            self._start.synthetic + synthetic,
        )
        return position.moved_to(epoch=epoch + 1, batches=0, real_in_epoch=0) if step >= self.used_steps else position

    @property
    def first_batch(self) -> int:
        """The batch at which iteration of the current epoch begins: 0 but for a resumed run."""
        return self._first(self.epoch)

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.num_replicas, self.batch_size, self.used_steps

    @property
    def _batch(self) -> int:
        """Samples of one batch over all ranks."""
        return self.num_replicas * self.batch_size

    def _first(self, epoch: int) -> int:
        return self._start.batches if epoch == self._start.epoch else 0

    def _real_offset(self, epoch: int) -> int:
        return self._start.real_in_epoch if epoch == self._start.epoch else 0

    def _samples_before(self, epoch: int) -> int:
        """Returns how many samples all ranks have drawn before the first batch of an epoch (that is drawn here)."""
        if epoch <= self._start.epoch:
            return self._start.samples if epoch == self._start.epoch else epoch * self.used_steps * self._batch
        rest = self.used_steps - self._start.batches
        return self._start.samples + (rest + (epoch - self._start.epoch - 1) * self.used_steps) * self._batch

    def _synthetic_of(self, samples: int) -> int:
        """Returns how many of the first so many samples of all ranks are synthetic."""
        return int(self.ratio * samples)  # a Fraction ≥ 0: int() is floor()

    def _real(self, count: int, after: int) -> int:
        """Returns how many of ``count`` samples after the first ``after`` ones are real."""
        return count - self._synthetic_of(after + count) + self._synthetic_of(after)

    def _own_synthetic(self, samples: np.ndarray, rank: int) -> np.ndarray:
        """Returns how many synthetic samples a rank has drawn once all ranks together have drawn so many samples."""
        return (self.ratio.numerator * samples + rank * self.ratio.denominator) // (
            self.ratio.denominator * self.num_replicas
        )

    def _steps_of_one_pass(self) -> int:
        if self.ratio == 1:
            return -(-self.num_real // self._batch)

        def fewest_real(steps: int) -> int:  # in the epoch that begins with the largest remainder of the ratio
            samples = steps * self._batch
            return samples + (-self.ratio * samples // 1)

        steps = max(1, int(self.num_real / (self._batch * (1 - self.ratio))) - 1)
        while fewest_real(steps) < self.num_real:
            steps += 1
        return steps

    def _real_stream(self, epoch: int, length: int) -> np.ndarray:
        """Returns the first real rows of one epoch over all ranks in the order they are drawn."""
        if self.class_rows is None:
            return _repeated_permutations(self.num_real, 0, length, self.seed, Mixing.REAL_ROWS, epoch)
        if self._even_order:
            order = even_class_order(self.class_share, length, keyed_seed(self.seed, Mixing.EVEN_CLASS_ORDER, epoch))
            drawn = np.empty(length, dtype=np.int64)
            for c, members in enumerate(self.class_rows):
                places = np.flatnonzero(order == c)
                stream = (self.seed, Mixing.CLASS_ROWS, epoch, c)
                drawn[places] = members[_repeated_permutations(len(members), 0, len(places), *stream)]
            return drawn
        # Class c is due once in every 1/share draws, at a random moment of each such interval: sorted by due time, the
        # classes keep their shares all along the epoch and not only at its end.
        rows, due = [], []
        for c, (members, share) in enumerate(zip(self.class_rows, self.class_share, strict=True)):
            times = int(np.ceil(length * share)) + 1
            moment = np.random.default_rng(keyed_seed(self.seed, Mixing.CLASS_ORDER, epoch, c)).random(times)
            due.append((np.arange(times) + moment) / share)
            rows.append(members[_repeated_permutations(len(members), 0, times, self.seed, Mixing.CLASS_ROWS, epoch, c)])
        return np.concatenate(rows)[np.concatenate(due).argsort(kind="stable")[:length]]

    def _synthetic_stream(self, begin: int, end: int) -> np.ndarray:
        """Returns draws begin … end of the run from the slots of this rank (shared table: of all ranks)."""
        # Counted over the run, so a table larger than one epoch is used whole before any row again.
        owner = 0 if self.synthetic_shared else self.rank
        return _repeated_permutations(
            self.num_synthetic_slots, begin, end - begin, self.seed, Mixing.SYNTHETIC_SLOTS, owner
        )

    def __iter__(self) -> Iterator[int]:
        first, before = self.first_batch, self._samples_before(self.epoch)
        samples = before + np.arange(self.steps - first + 1, dtype=np.int64) * self._batch
        counts = np.stack([np.diff(self._own_synthetic(samples, rank)) for rank in range(self.num_replicas)])
        own, of_ranks_before = counts[self.rank], counts[: self.rank].sum(0)
        in_step = counts.sum(0)
        real_begin = self._real_offset(self.epoch) + np.cumsum(self._batch - in_step) - (self._batch - in_step)
        real_at = real_begin + self.rank * self.batch_size - of_ranks_before
        real = self._real_stream(self.epoch, self._real_offset(self.epoch) + int((self._batch - in_step).sum()))
        if self.synthetic_shared:
            synthetic_at = np.cumsum(in_step) - in_step + of_ranks_before
            begin, length = self._synthetic_of(before), int(in_step.sum())
        else:
            synthetic_at = np.cumsum(own) - own
            begin, length = int(self._own_synthetic(samples[:1], self.rank)[0]), int(own.sum())
        synthetic = self._synthetic_stream(begin, begin + length) + self.num_real if self.ratio > 0 else real[:0]
        for step, number in enumerate(own.tolist()):
            yield from real[real_at[step] :][: self.batch_size - number].tolist()
            yield from synthetic[synthetic_at[step] :][:number].tolist()

    def __len__(self) -> int:
        return self.num_samples


def _repeated_permutations(count: int, begin: int, length: int, *stream: int) -> np.ndarray:
    """Returns entries begin … begin + length of an endless row of fresh permutations of 0 … count − 1."""
    passes = range(begin // count, -(-(begin + length) // count))
    if not passes:
        return np.zeros(0, dtype=np.int64)
    drawn = [np.random.default_rng(keyed_seed(*stream, number)).permutation(count) for number in passes]
    return np.concatenate(drawn)[begin - passes.start * count :][:length]
