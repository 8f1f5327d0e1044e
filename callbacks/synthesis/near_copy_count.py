"""How many of the faces that were made and kept are near copies of training faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from datamodules.rows.images import decode_image
from datamodules.rows.near_copies import NEAR_COPY, NearCopies

MOST_CHECKED = 10_000
"""Faces of a set that are decoded again to be checked; of more, as many at even distances."""
_OF_A_GROUP = 50


class NearCopyCount:
    """Counts faces, and those of them that are near copies of training faces (``datamodules/rows/near_copies.py``)."""

    def __init__(self) -> None:
        self.checked = 0
        self.near_copies = 0

    def add(self, search: NearCopies, images: Tensor) -> None:
        """Counts n faces, uint8 (n, 3, H, W)."""
        self.checked += len(images)
        self.near_copies += int(search.find(images).sum())

    def add_set(self, search: NearCopies, shards: list[Path]) -> None:
        """Counts the kept faces of a synthetic set, at most ``MOST_CHECKED``, evenly over its row groups."""
        kept: list[tuple[Path, int, np.ndarray]] = []
        for shard in shards:
            file = pq.ParquetFile(shard)
            for group in range(file.num_row_groups):
                found = np.flatnonzero(file.read_row_group(group, ["kept"])["kept"].to_numpy().astype(bool))
                kept.append((shard, group, found.astype(np.int32)))
        kept = [place for place in kept if len(place[2])]
        # All pictures of a group are read where one is wanted: of a large set many of few groups, not few of all.
        groups = max(1, MOST_CHECKED // _OF_A_GROUP)
        chosen = list(range(len(kept)))
        if sum(len(rows) for _, _, rows in kept) > MOST_CHECKED:
            chosen = np.unique(np.linspace(0, len(kept) - 1, min(groups, len(kept))).astype(int)).tolist()
        share = min(1.0, MOST_CHECKED / max(1, sum(len(kept[place][2]) for place in chosen)))
        for place in chosen:
            shard, group, rows = kept[place]
            taken = rows[np.linspace(0, len(rows) - 1, max(1, int(share * len(rows)))).astype(int)]
            pictures = pq.ParquetFile(shard).read_row_group(group, ["image"])["image"].take(taken)
            faces = [decode_image(picture["bytes"], str(shard)) for picture in pictures.to_pylist()]
            self.add(search, torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2))

    @property
    def counts(self) -> dict[str, int]:
        """For summary.json."""
        return {"checked": self.checked, "near_copies": self.near_copies}

    @property
    def share(self) -> float:
        """Share of near copies; NaN before the first face."""
        return self.near_copies / self.checked if self.checked else float("nan")

    def sentence(self, search: NearCopies) -> str:
        """Returns what a card says."""
        if not self.checked:
            return "no face was kept"
        return (
            f"{self.near_copies} of {self.checked} kept faces ({self.share:.1%}): their grey pixels correlate by more "
            f"than {NEAR_COPY} with those of one of {len(search.rows)} training faces (real validation faces: "
            f"{search.held_out_share():.1%})"
        )
