"""Which rows of a table of pictures can be used: those whose picture decodes and has the size of the others."""

from __future__ import annotations

import numpy as np

from datamodules.picture_tables.found_table import FoundTable
from datamodules.picture_tables.table_index import inspect_cells
from datamodules.readers.reader import BadSamples


def good_cells(
    found: FoundTable, wanted: np.ndarray, image_size: int | None, path: str, bad: BadSamples
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the good rows, int64 (n,), and their content hashes, str (n,); the others are named to ``bad``.

    Args:
        found: the table.
        wanted: bool (N,), which rows have a label that is used.
        image_size: side in pixels to which pictures are resized; None = all must have the size of the first.
        path: of the set, for messages.
        bad: hears of the others.
    """
    told = inspect_cells(found.cells, found.parts, path)
    for row, error in sorted(told.bad.items()):
        if wanted[row]:
            bad.add(str(error))
    good = np.flatnonzero(wanted & (told.height > 0))
    if image_size is None and len(good):
        height, width = told.height[good[0]], told.width[good[0]]
        other = (told.height[good] != height) | (told.width[good] != width)
        for row in good[other].tolist():
            bad.add(
                f"{path}: {found.cells.place(row)}: found {told.height[row]}x{told.width[row]} pixels, expected "
                f"{height}x{width} like the pictures before it (or set data.reader.init_args.image_size)"
            )
        good = good[~other]
    return good, told.hashes(good)
