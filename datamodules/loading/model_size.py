"""The side of the faces that a run's model works on."""

from __future__ import annotations

from typing import Any


def side_of_model(trainer: Any) -> int | None:
    """Returns the ``image_size`` of the model of a run, in pixels; None of a model that takes faces of any size.

    Args:
        trainer: of the run; None = there is no model.
    """
    side = getattr(getattr(trainer, "lightning_module", None), "image_size", None)
    return side if isinstance(side, int) else None
