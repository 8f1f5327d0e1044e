"""Images that are decoded and resized once, and read from a store of raw pixels after that."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import torch
from torch import Tensor

from datamodules.captions.streamed_images import StreamedImages
from datamodules.rows.decoded_store import KEY_BYTES, DecodedStore
from datamodules.rows.sample_table import ArrayImages, ImageSource, SampleTable
from synfer.foundation.on_rank_zero import warn_on_rank_zero

_FORMAT = "synfer decoded pictures 1"

_STORES: dict[tuple[str, tuple[int, ...]], DecodedStore] = {}
"""One for a folder and shape in each process: what one table reads another does not clear."""


def cached_table(table: SampleTable, folder: Path, most_gb: float, names: Sequence[str] | None = None) -> SampleTable:
    """Returns a table whose pictures come from a store in ``folder``, each put there when it is first asked for.

    They are the same bytes as without it. Tables in memory stay as they are, and so do streams, whose pictures are not
    known before they are read. Without room for all, or without a disk that can be written to, the others are decoded
    each time, which a warning says.

    Args:
        table: rows of one split, whose pictures have one size.
        folder: of the stores; one for each shape.
        most_gb: bound on all of them together, in 10⁹ bytes.
        names: what else than the pixels of its file tells one row's picture from another's (an alignment); None = none.
    """
    if isinstance(table.images, (ArrayImages, StreamedImages)):
        return table
    channels, height, width = table.images.batch(np.array([0])).shape[1:]
    keys = _keys(table.content_hash, (height, width), names)
    place = folder / f"{width}x{height}x{channels}"
    shape = (channels, height, width)
    store = _STORES.setdefault((str(place.absolute()), shape), DecodedStore(place, shape))
    try:
        slots = store.assign(keys, int(most_gb * 1e9))
    except OSError as error:
        warn_on_rank_zero(f"data.decoded_cache '{folder}': cannot be used ({error}): pictures are decoded each time")
        return table
    without = int((slots < 0).sum())
    if without:
        warn_on_rank_zero(
            f"data.decoded_cache '{folder}': found no room for {without} of {len(table)} pictures within "
            f"data.decoded_cache_gb={most_gb:g}: these are decoded each time"
        )
    return replace(table, images=CachedImages(table.images, store, keys, slots, shape))


def _keys(content_hash: np.ndarray, size: tuple[int, int], names: Sequence[str] | None) -> np.ndarray:
    """Returns S32 (N,): the pixels of the file, what was made of them, and who did."""
    made = f"{_FORMAT}\0Pillow {PIL.__version__}\0{size}"
    more = [""] * len(content_hash) if names is None else names
    found = [
        hashlib.sha256(f"{made}\0{digest}\0{name}".encode()).hexdigest()[:KEY_BYTES].encode()
        for digest, name in zip(content_hash.tolist(), more, strict=True)
    ]
    return np.array(found, dtype=f"S{KEY_BYTES}")


class CachedImages:
    """Images of another source, kept decoded.

    Args:
        source: N images of one shape.
        store: where they are kept.
        keys: of what is on each, S32 (N,).
        slots: of each in the store, int64 (N,); −1 = none.
        shape: of each, (C, H, W).
    """

    def __init__(
        self,
        source: ImageSource,
        store: DecodedStore,
        keys: np.ndarray,
        slots: np.ndarray,
        shape: tuple[int, int, int],
    ) -> None:
        self.source, self._store, self._keys, self._slots, self._shape = source, store, keys, slots, shape
        self._checked = np.zeros(len(slots), dtype=bool)
        self._writes = True

    def __len__(self) -> int:
        return len(self._slots)

    def batch(self, rows: np.ndarray) -> Tensor:
        """Returns uint8 (n, C, H, W), as the source does."""
        found = np.empty((len(rows), *self._shape), dtype=np.uint8)
        missing = [place for place, row in enumerate(rows.tolist()) if not self._read(row, found[place])]
        if missing:
            decoded = self.source.batch(rows[missing]).numpy()
            found[missing] = decoded
            for place in missing:
                self._write(int(rows[place]), found[place])
        return torch.from_numpy(found)

    def select(self, rows: np.ndarray) -> CachedImages:
        """Returns the images of these rows, in this order."""
        return CachedImages(self.source.select(rows), self._store, self._keys[rows], self._slots[rows], self._shape)

    def _read(self, row: int, pixels: np.ndarray) -> bool:
        """Fills a picture; its checksum is looked at once in a process."""
        if self._slots[row] < 0:
            return False
        is_there = self._store.read(int(self._slots[row]), bytes(self._keys[row]), pixels, not self._checked[row])
        self._checked[row] = is_there
        return is_there

    def _write(self, row: int, pixels: np.ndarray) -> None:
        if self._slots[row] < 0 or not self._writes:
            return
        try:
            self._store.write(int(self._slots[row]), bytes(self._keys[row]), pixels)
            self._checked[row] = True
        except OSError as error:
            self._writes = False
            warn_on_rank_zero(f"data.decoded_cache: {error.strerror or error}: no more pictures are kept in it")
