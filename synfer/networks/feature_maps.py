"""Features of a timm network place by place, whatever form it gives them in."""

from __future__ import annotations

from math import isqrt
from typing import Any

from torch import Tensor

from synfer.foundation.validate import check_setting


def feature_maps(network: Any, images: Tensor, setting: str = "alignment.features") -> Tensor:
    """Returns (B, F, s, s) of images (B, C, H, W): maps of a convolutional network, or a transformer's tokens as a map.

    Args:
        network: of timm; its class and register tokens are left out.
        images: as it takes them.
        setting: that named it, for the error.

    Raises:
        ValueError: tokens that are no square.
    """
    found: Tensor = network.forward_features(images)
    if found.ndim == 4:
        channels_last = found.shape[1] != network.num_features == found.shape[-1]  # as Swin has them
        return found.permute(0, 3, 1, 2) if channels_last else found
    tokens = found[:, getattr(network, "num_prefix_tokens", 0) :] if found.ndim == 3 else found[:, None]
    side = isqrt(tokens.shape[1])
    expected = "a network whose features are a map, or tokens of a square"
    check_setting(found.ndim == 3 and side**2 == tokens.shape[1], setting, f"features {tuple(found.shape)}", expected)
    return tokens.transpose(1, 2).unflatten(2, (side, side))
