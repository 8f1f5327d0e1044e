"""A Stable Diffusion as it comes: a generator that nothing of ours has trained."""

from __future__ import annotations

from pathlib import Path

from torch.random import fork_rng

from lightning_modules.generator import ExpressionGenerator
from synfer.networks.stable_diffusion.base_folder import NETWORKS, find_base
from synfer.networks.stable_diffusion.base_shape import check_parts, check_shape, read_part_config

_SIDE = 64
"""Rows of the latents where a config does not say: those of Stable Diffusion 1.x."""


def is_base(path: str | Path) -> bool:
    """Whether a path is a folder in diffusers' layout, whole or not."""
    return any((Path(path) / name).exists() for name in ("model_index.json", *NETWORKS))


@fork_rng(devices=[])
def generator_of_base(base: str) -> ExpressionGenerator:
    """Returns a generator of all expressions that hears the text alone, in evaluation mode and without gradients.

    Args:
        base: a folder in diffusers' layout, or a Hub id.

    Raises:
        FileNotFoundError: neither, or a part is missing.
        ValueError: a model of another shape than Stable Diffusion 1.x or 2.x.
    """
    folder = find_base(base)
    check_parts(folder)
    check_shape(folder)
    unet, vae = read_part_config(folder, "unet"), read_part_config(folder, "vae")
    downscale = 2 ** (len(vae.get("block_out_channels") or [0]) - 1)
    generator = ExpressionGenerator(
        image_size=int(unet.get("sample_size") or _SIDE) * downscale, base=base, trained="unet_only", ema_decay=None
    )
    return generator.eval().requires_grad_(False)
