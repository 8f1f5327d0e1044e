"""Made faces as they lie on disk: a synthetic set, the run that wrote it, or folders named by expression."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.readers.image_folder import ImageFolderReader
from datamodules.readers.synthetic_set import SyntheticSetReader
from datamodules.rows.reference_faces import ReferenceFaces
from datamodules.rows.row_choice import even_order
from datamodules.rows.sample_table import SampleTable
from datamodules.synthetic.merged_set import records_of_parts
from datamodules.synthetic.synthetic_manifest import MANIFEST, SET_FOLDER, shard_paths
from datamodules.synthetic.synthetic_shards import read_record, read_shard
from synfer.foundation.counter_based_random import keys_of

_PART = 512  # pictures decoded at a time


@dataclass(frozen=True)
class StoredFaces:
    """The faces that are scored.

    Attributes:
        table: their rows.
        faces: how many there were to choose from.
        source: key of the training face that each was made from, int64 (n,); 0 = none, or not known.
        made_with: records of the sets that it was merged from, or its own; none where there is none.
    """

    table: SampleTable
    faces: int
    source: Tensor
    made_with: tuple[dict[str, Any], ...]

    def images(self, side: int) -> Tensor:
        """Returns all faces, uint8 (n, 3, side, side): their central squares."""
        shown = ReferenceFaces(self.table, side)
        return torch.cat([shown.images(rows) for rows in torch.arange(len(self.table)).split(_PART)])


def stored_faces(path: str, side: int, most: int, seed: int) -> StoredFaces:
    """Reads made faces; what the vote discarded is left out, as in training.

    Args:
        path: synthetic set, run folder with one, or folder with ``<expression>/*.png``.
        side: of the faces in pixels, where pictures of a folder have several sizes.
        most: of more faces so many are drawn by the seed, expressions in the shares that they have.
        seed: of that draw.

    Raises:
        FileNotFoundError: there is no such folder, or no faces in it.
        ValueError: a damaged or unfinished set.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"'{path}': found no folder, expected a synthetic set, a run folder with one, or pictures in folders named "
            "by expression"
        )
    if (folder / SET_FOLDER).is_dir():
        folder = folder / SET_FOLDER
    if not (folder / MANIFEST).exists() and not any(folder.glob("*.parquet")) and not shard_paths(folder):
        table = ImageFolderReader(str(folder), image_size=side).read("train")
        rows = _some(table, most, seed)
        return StoredFaces(table.select(rows), len(table), torch.zeros(len(rows), dtype=torch.int64), ())
    table = SyntheticSetReader(str(folder)).read("train")
    rows = _some(table, most, seed)
    chosen = table.select(rows)
    return StoredFaces(chosen, len(table), _sources(folder, chosen.sample_id.tolist()), _made_with(folder))


def _made_with(folder: Path) -> tuple[dict[str, Any], ...]:
    try:
        return tuple(records_of_parts(read_record(folder)))
    except FileNotFoundError:  # shards of another program
        return ()


def _some(table: SampleTable, most: int, seed: int) -> np.ndarray:
    if len(table) <= most:
        return np.arange(len(table))
    return np.sort(even_order(table.label, table.sample_id, seed)[:most])


def _sources(folder: Path, ids: list[str]) -> Tensor:
    """Returns keys of the sample ids of the training faces that faces were made from, int64 (n,); 0 = none."""
    named: dict[str, str] = {}
    for shard in shard_paths(folder) or sorted(folder.glob("*.parquet")):
        rows = read_shard(shard, ["sample_id", "layout_source"])
        named.update(zip(rows["sample_id"].to_pylist(), rows["layout_source"].to_pylist(), strict=True))
    keys = torch.zeros(len(ids), dtype=torch.int64)
    with_source = [i for i, one in enumerate(ids) if named.get(one)]
    if with_source:
        found = keys_of([named[ids[i]] for i in with_source]).astype(np.int64)
        keys[torch.tensor(with_source)] = torch.from_numpy(found)
    return keys
