"""What a module or a callback asks of the trainer that it is attached to."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer


def data_of(trainer: Trainer | None) -> Any:
    """Returns the trainer's data module; None where it has none, or where there is no trainer.

    Lightning declares neither the attribute nor its type, and any data module may be there: whoever needs more of it
    than Lightning's own interface asks with ``getattr`` or is told so by its documentation.
    """
    return getattr(trainer, "datamodule", None)


def command_name(stage: str) -> str:
    """Returns "fit", "validate", "test" or "predict"; formatted, Lightning's own value would print its enumeration."""
    return str(getattr(stage, "value", stage))
