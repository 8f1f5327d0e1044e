"""Augmentation of a training batch by numbers of each sample's own, and of its action units with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from datamodules.batch import Batch
from datamodules.loading.augmentation import UNIFORM_COLUMNS, Augmentation, augment, is_flipped
from synfer.foundation.counter_based_random import keyed_uniform, keys_of
from synfer.foundation.random_streams import Stream


def augment_batch(
    batch: Batch, settings: Augmentation, mirrored_order: Sequence[int], seed: int, epoch: int, step: int
) -> None:
    """Augments images and action units of a batch in place, on the device of its images.

    Args:
        batch: images float in [0, 1], (B, 1 or 3, H, W); gets ``is_uncached`` where some uses draw no cached view, and
            ``augmentation`` where it comes without pixels.
        settings: strengths.
        mirrored_order: columns of the action units of a mirrored face.
        seed: of the run.
        epoch: of the training.
        step: optimiser steps so far.
    """
    device = batch["image"].device
    numbers, uncached = augmentation_numbers(batch["sample_id"], settings, (seed, Stream.AUGMENTATION, epoch, step))
    uniform = numbers.to(device, non_blocking=True)
    if settings.uncached_fraction > 0:
        batch["is_uncached"] = uncached.to(device, non_blocking=True)
    if batch["image"].numel():
        batch["image"] = augment(batch["image"], settings, uniform)
    else:
        batch["augmentation"] = uniform
    # A flipped face has its one-sided action units on the other side.
    mirrored = batch["au"][:, list(mirrored_order)]
    batch["au"] = torch.where(is_flipped(settings, uniform)[:, None], mirrored, batch["au"])


def augmentation_numbers(
    sample_id: Sequence[str], settings: Augmentation, stream: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Returns random numbers for :func:`augment`, the same for the same sample and stream, whatever its batch.

    Args:
        sample_id: B ids.
        settings: its cached views are of no seed: the same in every run.
        stream: what else the numbers depend on.

    Returns:
        Numbers in [0, 1), float32 (B, 12); and which of them belong to no cached view, bool (B,).
    """
    keys, views = keys_of(sample_id), settings.cached_views
    if views is None:
        uniform, uncached = keyed_uniform(keys, UNIFORM_COLUMNS, *stream), np.ones(len(keys), dtype=bool)
    else:
        draw = keyed_uniform(keys, 2 + UNIFORM_COLUMNS, *stream)  # which view, whether a new one, and that one
        chosen = (draw[:, 0] * views).astype(int)
        stored = cached_numbers(sample_id, chosen.tolist())
        uncached = draw[:, 1] < settings.uncached_fraction
        uniform = np.where(uncached[:, None], draw[:, 2:], stored)
    return torch.from_numpy(uniform.astype(np.float32)), torch.from_numpy(uncached)


def cached_numbers(sample_id: Sequence[str], view: Sequence[int]) -> np.ndarray:
    """Returns the numbers of one cached view of each sample, float64 (n, 12): of no seed, the same in every run."""
    names = [f"{name}, version {number}" for name, number in zip(sample_id, view, strict=True)]
    return keyed_uniform(keys_of(names), UNIFORM_COLUMNS, Stream.AUGMENTATION)
