"""What a generator was fine-tuned from, what it has of its own, and whether a part of it can be handed out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from synfer.export.exporter import NothingToExportError, TrainedGenerator

WHOLE_UNET = ("all", "unet_only")
"""``model.trained`` under which no layer of the base is left as it was."""


def base_of(generator: TrainedGenerator, what: str) -> str:
    """Returns the folder or Hub id that a part of a generator belongs to.

    Args:
        generator: the generator.
        what: the part, for errors: "lora".

    Raises:
        NothingToExportError: it has none, or its whole UNet was trained, to which no base has the rest.
    """
    base, trained = generator.hparams["base"], generator.hparams["trained"]
    if base is None:
        raise NothingToExportError(
            f"{what}: found a small generator (model.base null), expected one made from a base: a part of it fits no "
            "other model"
        )
    if trained in WHOLE_UNET:
        raise NothingToExportError(
            f"{what}: found model.trained '{trained}', so the UNet is no longer that of '{base}', expected --what "
            "pipeline"
        )
    return str(base)


def hub_id(base: str | None) -> str | None:
    """Returns a base that the Hub knows by this name; None for a folder, or without a base."""
    return base if base and re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not Path(base).exists() else None


def has_lora(unet: Any) -> bool:
    """Whether a UNet has LoRA layers."""
    return bool(getattr(unet, "peft_config", None))


def has_au_adapter(unet: Any) -> bool:
    """Whether a UNet has an AU adapter."""
    return getattr(unet, "encoder_hid_proj", None) is not None
