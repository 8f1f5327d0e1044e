"""What a classifier keeps of how its faces were aligned, so that whoever shows it others aligns them alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from datamodules.rows.alignment import Alignment

AlignmentRecord = dict[str, Any]
"""``{"settings": data.alignment, "image_size": side in pixels or None, "points": five (x, y) as shares of the side}``;
{} = faces were taken as they were."""

_CLOSE = 1e-4
"""Shares of the side by which the points of one template may differ."""


def alignment_record(alignment: Alignment | None, image_size: int | None) -> AlignmentRecord:
    """Returns the record of a training, in plain types.

    Args:
        alignment: ``data.alignment``; None = there is no such setting.
        image_size: ``data.image_size``, in pixels; None = the model's.
    """
    if alignment is None or not alignment.is_on:
        return {}
    points = [[round(float(x), 6), round(float(y), 6)] for x, y in alignment.template_points()]
    return {"settings": asdict(alignment), "image_size": image_size, "points": points}


def settings_in(record: Mapping[str, Any]) -> Alignment:
    """Returns the settings in a record that is not empty.

    Raises:
        ValueError: something else than :func:`alignment_record` gives.
    """
    try:
        return Alignment(**record["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"alignment of a classifier: found {error}, expected what a training has written") from error


def lie_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether faces of two records lie in one place of the picture, by whatever they were found."""
    if not one or not other:
        return not one and not other
    return bool(np.allclose(one["points"], other["points"], rtol=0, atol=_CLOSE))


def in_words(record: Mapping[str, Any]) -> str:
    """Returns how the faces of a record lie: "aligned by landmarks (arcface, margin 0.1)"."""
    if not record:
        return "not aligned"
    settings = record["settings"]
    template = settings["template"] if isinstance(settings["template"], str) else "a template of its own"
    return f"aligned by {settings['kind']} ({template}, margin {settings['margin']:g})"
