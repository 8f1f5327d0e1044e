"""The noise schedule of a stored scheduler: of whatever class it is, the noise levels are what a model has learnt."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
import torch
from diffusers import DDIMScheduler

from synfer.foundation.file_reading import FileError

_KEYS = {"beta_start", "beta_end", "beta_schedule", "num_train_timesteps"}
_BETAS = "expected one whose noise levels come from betas (PNDM, DDIM, Euler, UniPC, DPMSolverMultistep, …)"


def noise_schedule(base: str, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config of a ``DDIMScheduler`` with the noise levels of a stored scheduler.

    What the class of the stored scheduler has as defaults counts where its file says nothing. Latents are never
    clipped: older files lack ``clip_sample``, whose default in diffusers' DDIM and DDPM is to clip to [−1, 1], which
    fits pixels.

    Args:
        base: of which model, for errors.
        stored: content of ``scheduler_config.json``.

    Raises:
        ValueError: flow matching, or another scheduler without betas.
    """
    name = str(stored.get("_class_name", "DDIMScheduler"))
    flow = "FlowMatch" in name or stored.get("use_flow_sigmas") or "flow" in str(stored.get("prediction_type"))
    if flow:
        raise FileError(
            f"model.base '{base}': found the scheduler {name} of flow matching, as in Stable Diffusion 3 and Flux, "
            f"{_BETAS}"
        )
    kind = getattr(diffusers, name, None)
    if kind is None or hasattr(kind, "_backends"):  # of another version, or in need of a package that is not there
        if not set(stored) >= _KEYS:
            raise FileError(f"model.base '{base}': found the scheduler {name}, which cannot be made here, {_BETAS}")
        kind = DDIMScheduler
    its = kind.from_config(_known_to(kind, stored))
    levels = getattr(its, "alphas_cumprod", None)
    if levels is None:
        raise FileError(f"model.base '{base}': found the scheduler {name}, {_BETAS}")
    config = {**_known_to(DDIMScheduler, its.config), **_known_to(DDIMScheduler, stored)}
    config |= {"clip_sample": False, "thresholding": False}
    if not _has_levels(config, levels):
        config |= {"trained_betas": its.betas.tolist(), "rescale_betas_zero_snr": False}
        if not _has_levels(config, levels):
            raise FileError(f"model.base '{base}': found the scheduler {name} with noise levels of its own, {_BETAS}")
    return config


def _has_levels(config: Mapping[str, Any], levels: torch.Tensor) -> bool:
    try:
        ours = DDIMScheduler.from_config(dict(config)).alphas_cumprod
    except NotImplementedError:  # a form of betas that another class has and DDIM has not
        return False
    # Where DDIM ends in pure noise, others stop at 2⁻²⁴.
    return ours.shape == levels.shape and torch.allclose(ours, levels.float(), rtol=0, atol=1e-6)


def _known_to(kind: type, config: Mapping[str, Any]) -> dict[str, Any]:
    known = inspect.signature(kind.__init__).parameters
    return {key: value for key, value in config.items() if key in known and not key.startswith("_")}
