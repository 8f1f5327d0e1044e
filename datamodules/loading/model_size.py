"""The side of the faces that a run's model works on."""

from __future__ import annotations

from typing import Any


def side_of_model(trainer: Any) -> int:
    """Returns the ``image_size`` of the model of a run, in pixels: for ``data.image_size=model``.

    Args:
        trainer: of the run.

    Raises:
        ValueError: there is no model, or one that works on faces of any size.
    """
    model = getattr(trainer, "lightning_module", None)
    side = getattr(model, "image_size", None)
    if not isinstance(side, int):
        found = "no model" if model is None else f"a {type(model).__name__}, which has no size of its own"
        raise ValueError(f"data.image_size=model: found {found}, expected data.image_size=<side in pixels>")
    return side
