"""Pictures with one channel where they are grey and three where they are in colour, from the reader to the device.

Grey ones cost a third: to hold, to move and to augment. Modules get three channels (contract C1): the data module
spreads them once, at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def as_rgb(images: Tensor) -> Tensor:
    """Returns (B, 3, H, W) of grey (B, 1, H, W), without a copy, or of colour pictures, which stay as they are."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def is_grey(images: Tensor) -> bool:
    """Returns whether all pictures (B, 1 or 3, H, W) are grey: of one channel, or of three that are the same."""
    if images.shape[1] == 1:
        return True
    return torch.equal(images[:, 0], images[:, 1]) and torch.equal(images[:, 1], images[:, 2])


def join_pictures(parts: Sequence[Tensor]) -> Tensor:
    """Returns the pictures of several batches as one, (B, 1 or 3, H, W).

    Of one channel where a part has one and nothing is lost by it, which makes augmentation several times cheaper.
    """
    if any(part.shape[1] == 1 for part in parts) and all(is_grey(part) for part in parts):
        return torch.cat([part[:, :1] for part in parts])
    return torch.cat([as_rgb(part) for part in parts])
