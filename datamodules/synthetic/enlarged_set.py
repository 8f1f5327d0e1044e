"""A synthetic set whose faces another network has made larger: the same rows, other pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from datamodules.readers.synthetic_set import SyntheticSetReader
from datamodules.rows.images import decode_image
from datamodules.synthetic.synthetic_manifest import read_manifest, shard_paths
from datamodules.synthetic.synthetic_rows import png_of
from datamodules.synthetic.synthetic_shards import (
    LOCK,
    begin_set,
    check_record,
    finished_indices,
    read_record,
    read_shard,
    write_card,
    write_table,
)
from synfer.foundation.folder_lock import FolderLock


@dataclass(frozen=True)
class Enlargement:
    """Who has made the faces larger: what the record of the set says.

    Attributes:
        model: fingerprint of the network.
        scale: how many times as large it makes a side.
        image_size: side in pixels of the faces in the new set; None = as the network makes them.
    """

    model: str
    scale: int
    image_size: int | None


def enlarge_set(
    source: Path,
    target: Path,
    enlarge: Callable[[Tensor], Tensor],
    made_by: Enlargement,
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Writes a set with the same rows in the same shards, their faces made larger; returns the number of faces.

    Labels, votes, captions, action units, seeds, ids and layout sources stay; the record says what the faces came from
    and who enlarged them. Started again, it makes the shards that are missing, and refuses faces of another source or
    another network.

    Args:
        source: folder of a finished set.
        target: folder of the new set.
        enlarge: uint8 (n, 3, s, s) → uint8 (n, 3, S, S), a function of each face alone.
        made_by: for the record.
        say: is given a line after each shard.

    Raises:
        FileNotFoundError: no set at ``source``.
        ValueError: the set is unfinished or damaged or has no manifest, both are one folder, or the new set is of
            another kind or another process is at work on it.
    """
    if source.resolve() == target.resolve():
        raise ValueError(f"enlarge: found '{target}' as the set and as --out, expected another folder")
    SyntheticSetReader(str(source))  # refuses what is unfinished or foreign
    manifest = read_manifest(source)
    if manifest is None:
        raise ValueError(
            f"enlarge: found a set without a manifest in '{source}', expected one that predict has written"
        )
    lock = FolderLock(target / LOCK)
    if not lock.take():
        raise ValueError(f"enlarge: found another process at work on '{target}', expected one at a time")
    try:
        check_record(target, {**read_record(source), "super_resolution": asdict(made_by)})
        finished_indices(target)  # refuses what is damaged
        begin_set(target, manifest.planned)
        done = {path.name for path in shard_paths(target)}
        shards = [path for path in shard_paths(source) if path.name in manifest.shards]
        for number, shard in enumerate(shards, 1):
            if shard.name not in done:
                read_shard(shard, ["image"], manifest.shards[shard.name])  # as it was written
                _write(target, shard, enlarge)
                say(f"enlarged set: {number}/{len(shards)} shards")
        begin_set(target, manifest.planned)
        faces = len(finished_indices(target))
        write_card(target, {"Enlarged": f"{made_by.scale} times by a super-resolution network ({made_by.model})"})
        return faces
    finally:
        lock.release()


def _write(target: Path, shard: Path, enlarge: Callable[[Tensor], Tensor]) -> None:
    table = pq.read_table(shard)
    cells: list[dict[str, Any]] = table["image"].to_pylist()
    faces = [decode_image(cell["bytes"], f"{shard} row {row}") for row, cell in enumerate(cells)]
    large = enlarge(torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    made = [{**cell, "bytes": png_of(face)} for cell, face in zip(cells, large, strict=True)]
    place = table.column_names.index("image")
    table = table.set_column(place, table.schema.field("image"), pa.array(made, table.schema.field("image").type))
    write_table(target, table, shard.name)
