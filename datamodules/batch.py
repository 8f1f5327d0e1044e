"""The batch contract (C1): what every module gets, and the check that it does."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor

from datamodules.rows.sample_table import UNLABELLED


class _Required(TypedDict):
    image: Tensor
    label: Tensor
    soft_label: Tensor
    au: Tensor
    caption: list[str]
    is_synthetic: Tensor
    sample_id: list[str]


class Batch(_Required, total=False):
    """One batch of B samples with K classes and A action units.

    Keys:
        image: after the transfer hook float32 in [0, 1], (B, 3, H, W), RGB; in the loader uint8, grey: (B, 1, H, W).
        label: int64 (B,); −1 where the expression is not known, which only modules with ``uses_unlabelled_rows`` get.
        soft_label: float32 (B, K), rows sum to 1.
        au: float32 (B, A) in [0, 1], NaN = unknown.
        caption: B strings.
        is_synthetic: bool (B,).
        sample_id: B strings.
        affect: float32 (B, 2), valence and arousal in [-1, 1], NaN = unknown; unknown for all where there is no such
            key.
        augmentation: float32 (B, 12) in [0, 1), in training batches without pixels (``image`` is (B, 3, 0, 0)): the
            numbers that would have chosen the view of each face.
        is_uncached: bool (B,), in training batches where ``data.augmentation.uncached_fraction`` > 0: no cached view.
    """

    affect: Tensor
    augmentation: Tensor
    is_uncached: Tensor


def validate_batch(batch: Batch, label_space: tuple[str, ...]) -> None:
    """Checks one transferred batch against the contract.

    Raises:
        ValueError: a missing key, a wrong shape or dtype, NaN or out-of-range pixels, action units outside [0, 1],
            valence or arousal outside [-1, 1] or a soft label that does not sum to 1; the line names the first
            offending sample.
    """
    expected = list(_Required.__annotations__)
    missing = [key for key in expected if key not in batch]
    if missing:
        raise ValueError(f"batch lacks '{missing[0]}': expected the keys {', '.join(expected)}")
    image, n, k = batch["image"], len(batch["label"]), len(label_space)
    if (
        image.ndim != 4
        or image.shape[:2] != (n, 3)
        or image.dtype not in (torch.float32, torch.float16, torch.bfloat16)
    ):
        raise ValueError(f"batch image: found {image.dtype} {tuple(image.shape)}, expected float32 ({n}, 3, H, W)")
    if batch["soft_label"].shape != (n, k):
        raise ValueError(f"batch soft_label: found {tuple(batch['soft_label'].shape)}, expected ({n}, {k})")
    ids = batch["sample_id"]
    flat = image.float().flatten(1)
    _first(~((flat >= 0) & (flat <= 1)).all(1), ids, "image has NaN pixels or pixels outside [0, 1]")
    _first((batch["soft_label"].float().sum(1) - 1).abs() > 1e-3, ids, "soft label does not sum to 1")
    _first((batch["label"] < UNLABELLED) | (batch["label"] >= k), ids, f"label outside 0…{k - 1}")
    au = torch.nan_to_num(batch["au"], nan=0.0, posinf=2.0, neginf=-1.0)
    _first(((au < 0) | (au > 1)).any(1), ids, "action unit outside [0, 1]")
    if "affect" in batch:
        affect = batch["affect"]
        if affect.shape != (n, 2):
            raise ValueError(f"batch affect: found {tuple(affect.shape)}, expected ({n}, 2)")
        _first((affect.nan_to_num(nan=0.0).abs() > 1).any(1), ids, "valence or arousal outside [-1, 1]")


def _first(wrong: Tensor, sample_ids: list[str], what: str) -> None:
    if bool(wrong.any()):
        index = int(wrong.nonzero()[0])
        raise ValueError(f"sample '{sample_ids[index]}': {what} ({int(wrong.sum())} of {len(wrong)} in this batch)")
