"""Pictures of a table by row number, read and decoded when asked for: eight bytes a row."""

from __future__ import annotations

from functools import partial

import numpy as np
from torch import Tensor

from datamodules.captions.stored_image import read_and_decode, stacked
from datamodules.picture_tables.found_table import Cells


def decoded_cell(cells: Cells, row: int, path: str) -> np.ndarray:
    """Returns uint8 (H, W) or (H, W, 3) of a row's picture.

    Args:
        cells: the pictures.
        row: which.
        path: of the set, for the error.

    Raises:
        BadImageError: it cannot be read or decoded.
    """
    return read_and_decode(partial(cells.read, row), f"{path}: {cells.place(row)}")


class CellImages:
    """An image source of some rows of a table.

    Args:
        cells: its pictures.
        rows: int64 (N,), which of them, in which order.
        path: of the set, for errors.
        image_size: side in pixels to which pictures are cut and resized; None = all have one size.
    """

    def __init__(self, cells: Cells, rows: np.ndarray, path: str, image_size: int | None = None) -> None:
        self._cells, self._rows, self._path, self._image_size = cells, rows, path, image_size

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, rows: np.ndarray) -> Tensor:
        """Returns uint8 (n, 3, H, W), RGB, also of grey pictures: a set may hold both."""
        pixels = [decoded_cell(self._cells, row, self._path) for row in self._rows[rows].tolist()]
        return stacked(pixels, self._image_size)

    def select(self, rows: np.ndarray) -> CellImages:
        """Returns the images of these rows, in this order."""
        return CellImages(self._cells, self._rows[rows], self._path, self._image_size)
