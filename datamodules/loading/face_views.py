"""The views of a face that training may show: how many there are, what tells one from another, and its pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from datamodules.loading.augmentation import UNIFORM_COLUMNS, Augmentation, augment, is_flipped
from datamodules.loading.batch_augmentation import cached_numbers
from datamodules.rows.grey_or_colour import as_rgb

_LAST = 1 - 2**-24  # the largest number below 1 in float32


def check_countable(settings: Augmentation, key: str) -> None:
    """Refuses an augmentation whose views have no end.

    Args:
        settings: of the training.
        key: the setting that keeps something of each view, for the error.

    Raises:
        ValueError: a face looks different at each use.
    """
    if not settings.enabled:
        return
    if settings.uncached_fraction > 0:
        raise ValueError(
            f"data.augmentation.uncached_fraction: found {settings.uncached_fraction} with {key}, expected 0"
        )
    if settings.cached_views is None and not _flips_alone(settings):
        raise ValueError(
            f"data.augmentation.cached_views: found null with {key}, expected a number of views of each face, "
            "augmentation.enabled=false, or a flip alone (the other strengths 0)"
        )


def all_views(sample_id: Sequence[str], settings: Augmentation) -> np.ndarray:
    """Returns the numbers of :func:`augment` for each view that :func:`augmentation_numbers` may choose.

    Args:
        sample_id: n ids.
        settings: with views that can be counted.

    Returns:
        float32 (V, n, 12): one view without augmentation, the face and its mirror image of a flip alone, else
        ``cached_views``.
    """
    if not settings.enabled:
        return np.zeros((1, len(sample_id), UNIFORM_COLUMNS), dtype=np.float32)
    if settings.cached_views is None:
        numbers = [0.0] * (settings.flip > 0) + [_LAST] * (settings.flip < 1)  # a number below the share is a flip
        return np.stack([np.full((len(sample_id), UNIFORM_COLUMNS), number, np.float32) for number in numbers])
    views = [cached_numbers(sample_id, [view] * len(sample_id)) for view in range(settings.cached_views)]
    return np.stack(views).astype(np.float32)


def view_keys(content_hash: Sequence[str], settings: Augmentation, numbers: np.ndarray) -> list[bytes]:
    """Returns a 16-byte key of each view by what it shows: equal pictures, changed in the same way, have one key.

    Args:
        content_hash: n hashes of the pixels before.
        settings: of the training.
        numbers: what chose the views, float32 (n, 12); of no account without augmentation.
    """
    if not settings.enabled:
        return [_key(content, b"") for content in content_hash]
    strengths = {name: value for name, value in asdict(settings).items() if name not in _NOT_IN_A_VIEW}
    changed = json.dumps({**strengths, "flips": settings.flip > 0}, sort_keys=True).encode()
    flipped = is_flipped(settings, torch.from_numpy(numbers)).tolist()
    rest = numbers[:, 1:].astype("<f4")
    return [
        _key(content, changed + bytes([flip]) + (b"" if _flips_alone(settings) else row.tobytes()))
        for content, flip, row in zip(content_hash, flipped, rest, strict=True)
    ]


def show_views(images: Tensor, settings: Augmentation, numbers: Tensor) -> Tensor:
    """Returns views as training sees them, float in [0, 1], (n, 3, H, W).

    Args:
        images: uint8, (n, 1 or 3, H, W).
        settings: of the training.
        numbers: what chooses the views, float32 (n, 12).
    """
    return as_rgb(augment(images.float() / 255, settings, numbers))


_NOT_IN_A_VIEW = ("enabled", "flip", "cached_views", "uncached_fraction")


def _flips_alone(settings: Augmentation) -> bool:
    return not any(value for name, value in asdict(settings).items() if name not in _NOT_IN_A_VIEW)


def _key(content: str, changed: bytes) -> bytes:
    return hashlib.blake2b(content.encode() + b"\0" + changed, digest_size=16).digest()
