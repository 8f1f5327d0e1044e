"""What a generator was fine-tuned from, and whether that is enough to hand out a part of it."""

from __future__ import annotations

import re
from pathlib import Path

from synfer.export.exporter import TrainedGenerator


def base_of(generator: TrainedGenerator, what: str) -> str:
    """Returns the folder or Hub id that a part of a generator belongs to.

    Args:
        generator: the generator.
        what: the part, for errors: "lora".

    Raises:
        ValueError: it has none, or its whole UNet was trained, to which no base has the rest.
    """
    base, trained = generator.hparams["base"], generator.hparams["trained"]
    if base is None:
        raise ValueError(
            f"{what}: found a small generator (model.base null), expected one of a base: a part of it fits no other model"
        )
    if trained == "all":
        raise ValueError(
            f"{what}: found model.trained 'all', so the UNet is no longer that of '{base}', expected --what pipeline"
        )
    return str(base)


def hub_id(base: str | None) -> str | None:
    """Returns a base that the Hub knows by this name; None for a folder, or without a base."""
    return base if base and re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not Path(base).exists() else None
