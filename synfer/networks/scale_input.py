"""The guidance scale as an input of a UNet, added to its timestep: what guidance distillation teaches it to hear."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

WIDTH = 256
"""Numbers in which a scale is written, as in latent consistency models."""

_FINENESS = 1000.0  # the largest frequency tells scales apart that differ by a thousandth


def add_scale_input(unet: Any) -> None:
    """Has a UNet take the embedding of a guidance scale as diffusers' ``timestep_cond``, in place.

    Its layer begins at zero, so that nothing changes before it has learned. A UNet that has such an input, as a latent
    consistency model does, keeps it.

    Args:
        unet: ``UNet2DConditionModel``, without an AU adapter yet.

    Raises:
        RuntimeError: it has one: diffusers makes its config anew here, and forgets what the adapter has noted in it.
    """
    if hears_scale(unet):
        return
    if unet.encoder_hid_proj is not None:
        raise RuntimeError("add_scale_input: found a UNet with an AU adapter, expected one that gets it afterwards")
    embedding = unet.time_embedding
    like = embedding.linear_1.weight
    layer = nn.Linear(WIDTH, like.shape[1], bias=False, device=like.device)
    nn.init.zeros_(layer.weight)
    embedding.cond_proj = layer
    unet.register_to_config(time_cond_proj_dim=WIDTH)


def hears_scale(unet: Any) -> bool:
    """Whether a UNet takes the embedding of a guidance scale."""
    return unet.config.time_cond_proj_dim is not None


def scale_layer(unet: Any) -> nn.Linear:
    """Returns the layer that takes it, of a UNet that has one."""
    layer: nn.Linear = unet.time_embedding.cond_proj
    return layer


def embed_scale(scale: Tensor, width: int) -> Tensor:
    """Returns sines and cosines of guidance scales, float32 (B, width); those that diffusers' pipelines give.

    Args:
        scale: float (B,), at least 1.
        width: an even number of columns, ``unet.config.time_cond_proj_dim``.
    """
    half = width // 2
    rates = torch.exp(torch.arange(half, device=scale.device) * (-math.log(10_000) / (half - 1)))
    angles = (scale.float() - 1)[:, None] * _FINENESS * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
