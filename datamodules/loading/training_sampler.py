"""Which sampler draws the training batches of a rank, as the settings of the data module say."""

from __future__ import annotations

from typing import Any

from datamodules.captions.streamed_images import StreamedImages
from datamodules.loading.class_sampling import ClassSampling
from datamodules.loading.mixture_sampler import MixtureSampler
from datamodules.loading.repeating_sampler import RepeatingSampler
from datamodules.loading.stream_sampler import StreamSampler
from datamodules.rows.sample_table import UNLABELLED, SampleTable


def build_training_sampler(
    train: SampleTable,
    num_synthetic_slots: int,
    synthetic_shared: bool,
    *,
    batch_size: int,
    ratio: float,
    seed: int,
    ranks: tuple[int, int],
    steps_per_epoch: int | None,
    class_balance: float,
    class_sampling: ClassSampling,
    trainer: Any,
) -> MixtureSampler:
    """Returns a new sampler at its beginning.

    Args:
        train: real rows.
        num_synthetic_slots: synthetic slots to draw from; 0 = none.
        synthetic_shared: whether all ranks draw from one synthetic table.
        batch_size: samples per batch and rank.
        ratio: share of synthetic samples in [0, 1].
        seed: of the run.
        ranks: (number of ranks, this rank).
        steps_per_epoch: None = one pass over the real rows.
        class_balance: b in [0, 1] of shares ∝ n^(1 − b).
        class_sampling: the sampler of real rows, in its place.
        trainer: Lightning's trainer, which may take fewer batches or the same ones in every epoch; None = none.

    Raises:
        ValueError: classes are to be drawn, and some rows have none, or they are a stream.
    """
    overfits = getattr(trainer, "overfit_batches", 0) > 0
    stream = train.images if isinstance(train.images, StreamedImages) and not overfits else None
    if class_balance > 0 or class_sampling.kind != "none":
        key = "class_balance" if class_balance > 0 else "class_sampling.kind"
        if (train.label == UNLABELLED).any():
            raise ValueError(f"data.{key}: found training rows without an expression, expected an expression of each")
        if stream is not None:
            raise ValueError(f"data.{key}: found a stream, whose rows are drawn as they lie, expected 0 or none")
    sampler: MixtureSampler
    if stream is not None:
        sampler = StreamSampler(
            stream.parts,
            stream.settings,
            num_synthetic_slots,
            batch_size,
            ratio,
            seed,
            num_replicas=ranks[0],
            rank=ranks[1],
            steps_per_epoch=steps_per_epoch,
            synthetic_shared=synthetic_shared,
        )
    else:
        sampler = (RepeatingSampler if overfits else MixtureSampler)(
            len(train),
            num_synthetic_slots,
            batch_size,
            ratio,
            seed,
            num_replicas=ranks[0],
            rank=ranks[1],
            steps_per_epoch=steps_per_epoch,
            class_labels=train.label,
            class_balance=class_balance,
            synthetic_shared=synthetic_shared,
            class_shares=None if class_sampling.kind == "none" else class_sampling.shares(train.count_per_class()),
        )
    if trainer is not None:
        limit = trainer.limit_train_batches
        sampler.limit_to(limit if isinstance(limit, int) else int(limit * sampler.steps))
    return sampler
