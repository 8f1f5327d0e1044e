"""The pictures of found rows, each decoded once: which are good, and what tells them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from datamodules.captions.caption_row import CaptionRow
from datamodules.captions.stored_image import read_pixels
from datamodules.readers.reader import BadSamples
from datamodules.rows.images import BadImageError, check_not_constant
from datamodules.rows.provenance import content_hash
from datamodules.rows.read_ahead import in_threads


def decode_rows(
    rows: Sequence[CaptionRow], bad: BadSamples, path: str, image_size: int | None
) -> tuple[list[int], list[str]]:
    """Decodes every picture once; returns the positions of the good ones and their content hashes.

    Args:
        rows: of one split.
        bad: is told of each picture that cannot be used.
        path: of the set, for messages.
        image_size: side in pixels to which pictures are resized; None = all must have the size of the first.
    """
    good: list[int] = []
    hashes: list[str] = []
    expected: tuple[int, int] | None = None
    for index, outcome in enumerate(in_threads(lambda row: _inspected(row, path), rows)):
        if isinstance(outcome, BadImageError):
            bad.add(str(outcome))
            continue
        size, digest = outcome
        expected = expected or size
        if image_size is None and size != expected:
            bad.add(
                f"{path}: {rows[index].place}: found {size[0]}x{size[1]} pixels, expected "
                f"{expected[0]}x{expected[1]} like the pictures before it (or set data.reader.init_args.image_size)"
            )
            continue
        good.append(index)
        hashes.append(digest)
    return good, hashes


def unique_names(rows: Sequence[CaptionRow]) -> list[str]:
    """Returns sample ids: the names of the pictures, with the place where a name comes twice or is missing."""
    times = Counter(row.name for row in rows)
    return [row.name if row.name and times[row.name] == 1 else f"{row.name or ''}@{row.place}" for row in rows]


def _inspected(row: CaptionRow, path: str) -> tuple[tuple[int, int], str] | BadImageError:
    """Returns height, width and content hash of a picture, or why it is bad."""
    where = f"{path}: {row.place}"
    try:
        image = read_pixels(row.image, where)
        check_not_constant(image, where)
    except BadImageError as error:
        return error
    return (image.shape[0], image.shape[1]), content_hash(image)
