"""Which of the pictures that a reader found can be used: each is decoded once, or known to have been."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datamodules.readers.reader import BadSamples
from datamodules.rows.images import BadImageError, Box
from datamodules.rows.picture_index import inspect_pictures


def good_pictures(
    paths: Sequence[Path],
    root: Path,
    image_size: int | None,
    bad: BadSamples,
    boxes: Sequence[Box | None] | None = None,
) -> tuple[list[int], list[str]]:
    """Returns the positions of the good pictures and their content hashes; the others are named to ``bad``.

    Args:
        paths: files.
        root: folder of the data set.
        image_size: side in pixels to which they are resized; None = all must have one size.
        bad: hears of the others.
        boxes: of the face in each; None = whole pictures.
    """
    good: list[int] = []
    hashes: list[str] = []
    expected: tuple[int, int] | None = None
    for place, outcome in enumerate(inspect_pictures(paths, root, boxes)):
        if isinstance(outcome, BadImageError):
            bad.add(str(outcome))
            continue
        size = outcome.height, outcome.width
        expected = expected or size
        if image_size is None and size != expected:
            bad.add(
                f"{paths[place]}: found {size[0]}x{size[1]} pixels, expected {expected[0]}x{expected[1]} like the "
                "images before it (or set data.image_size: a side in pixels, or model for the model's)"
            )
            continue
        good.append(place)
        hashes.append(outcome.digest)
    return good, hashes
