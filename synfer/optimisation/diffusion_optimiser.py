"""The optimiser of a diffusion model: AdamW for all, or Muon for what has directions and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from torch import nn
from torch.optim import AdamW, Optimizer

from synfer.foundation.validate import check_setting
from synfer.optimisation.muon import Muon

DiffusionOptimiser = Literal["adamw", "muon"]

_BETAS = (0.9, 0.99)

_AT_THE_ENDS = (
    "conv_in.weight",
    "conv_out.weight",
    "time_embedding.linear_1.weight",
    "image_projection_layers.0.ff.net.0.proj.weight",  # of the action units
    "embedding.weight",  # of tokens and positions
)
"""Ends of the names, in diffusers and transformers, of layers whose rows or columns are pixels, tokens, units or time:
these go with AdamW, as Jordan et al. advise, for their sides are no hidden states."""


def check_optimiser(settings: Mapping[str, Any]) -> None:
    """Refuses an unknown optimiser, rates out of range, and Muon for what is of low rank.

    Args:
        settings: as :func:`diffusion_optimiser`, and ``trained``, what of the model learns.

    Raises:
        ValueError: names the setting.
    """
    name, momentum, rate = settings["optimizer"], settings["momentum"], settings["matrix_rate"]
    check_setting(name in (known := get_args(DiffusionOptimiser)), "optimizer", name, f"one of {', '.join(known)}")
    check_setting(0 <= momentum < 1, "momentum", momentum, "a number in [0, 1)")
    check_setting(rate > 0, "matrix_rate", rate, "a number above 0")
    whole = settings["trained"] in ("all", "unet_only")
    check_setting(
        name == "adamw" or whole,
        "optimizer",
        f"{name} with model.trained '{settings['trained']}'",
        "adamw: Muon is for a UNet that learns as a whole",
    )


def diffusion_optimiser(model: nn.Module, settings: Mapping[str, Any], scaler: Any = None) -> Optimizer:
    """Returns the optimiser over what of a model learns.

    AdamW takes one pass over the many small tensors of a base's LoRA.

    Args:
        model: its names are those of diffusers and transformers.
        settings: ``optimizer``, ``learning_rate``, ``weight_decay``, and whether there is a ``base``; with "muon" also
            its ``momentum`` and ``matrix_rate``.
        scaler: of gradients, where a training has one.
    """
    learned = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    rate, decay = settings["learning_rate"], settings["weight_decay"]
    if settings["optimizer"] == "muon":
        ends = [parameter for name, parameter in learned.items() if name.endswith(_AT_THE_ENDS)]
        inside = [parameter for name, parameter in learned.items() if not name.endswith(_AT_THE_ENDS)]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in inside if p.ndim > 1], "lr": rate * settings["matrix_rate"]},
            {"params": [*ends, *(p for p in inside if p.ndim <= 1)], "use_fallback": True},
        ]
        return Muon(groups, rate, settings["momentum"], _BETAS, decay)
    # A scaler unscales before the trainer clips, which does not go with the fused one.
    one_pass = settings["base"] is not None and scaler is None
    optimiser = AdamW(learned.values(), rate, _BETAS, weight_decay=decay, fused=True if one_pass else None)
    if scaler is None:  # Lightning would refuse to clip, where there is nothing that the fused one could unscale
        optimiser._step_supports_amp_scaling = False
    return optimiser
