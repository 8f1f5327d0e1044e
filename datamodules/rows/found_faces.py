"""The boxes that a face detector has found, kept beside the indexes: no picture is searched twice."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.rows.picture_index import index_folder, only_one
from datamodules.rows.read_ahead import in_threads
from synfer.faces.face_detector import FaceDetector
from synfer.foundation.atomic_file import atomic_write

_FORMAT = "synfer found faces 1"

Region = tuple[float, float, float, float]


def found_faces(
    names: Sequence[str],
    picture: Callable[[int], np.ndarray],
    near: Sequence[Region | None],
    detector: FaceDetector,
    version: str,
) -> list[Region | None]:
    """Returns the box of the face in each picture: left, top, right and bottom in pixels; None = no face was found.

    Where a data set says about where a face lies, the one whose centre is nearest to that box's is taken, and none
    whose centre lies outside it; elsewhere the largest. Ranks of one machine search once: the others wait.

    Args:
        names: what is on each picture; equal names, equal pictures.
        picture: returns one, uint8 (H, W) or (H, W, 3), by its number.
        near: the box that a data set gives; None = the whole picture.
        detector: what finds faces.
        version: of it, another of which may find others.
    """
    folder = index_folder()
    if folder is None:
        return _search(range(len(names)), picture, near, detector)
    file = folder / f"faces-{version}.parquet"
    known = _read(file)
    if all(name in known for name in names):
        return [known[name] for name in names]
    with only_one(file):
        known = _read(file)  # another rank may have been here
        missing = [place for place, name in enumerate(names) if name not in known]
        fresh = _search(missing, picture, near, detector)
        known |= {names[place]: box for place, box in zip(missing, fresh, strict=True)}
        if missing:
            _write(file, known)
    return [known[name] for name in names]


def _search(
    places: Sequence[int], picture: Callable[[int], np.ndarray], near: Sequence[Region | None], detector: FaceDetector
) -> list[Region | None]:
    def one(place: int) -> Region | None:
        boxes = [(float(box.x0), float(box.y0), float(box.x1), float(box.y1)) for box in detector(picture(place))]
        region = near[place]
        if region is None:
            return boxes[0] if boxes else None
        x, y = (region[0] + region[2]) / 2, (region[1] + region[3]) / 2
        inside = [box for box in boxes if _holds(region, box)]
        return min(inside, key=lambda box: np.hypot(box[0] + box[2] - 2 * x, box[1] + box[3] - 2 * y), default=None)

    return list(in_threads(one, places))


def _holds(region: Region, box: Region) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return region[0] <= x <= region[2] and region[1] <= y <= region[3]


def _read(file: Path) -> dict[str, Region | None]:
    """Returns what is kept; nothing where there is no file, or one that cannot be read."""
    try:
        table = pq.read_table(file, page_checksum_verification=True)
        if (table.schema.metadata or {}).get(b"format") != _FORMAT.encode():
            return {}
        names, boxes = table["name"].to_pylist(), table["box"].to_pylist()
    except (OSError, KeyError, pa.ArrowException):
        return {}
    return {name: None if box is None else tuple(box) for name, box in zip(names, boxes, strict=True)}


def _write(file: Path, known: dict[str, Region | None]) -> None:
    boxes: list[Any] = [None if box is None else list(box) for box in known.values()]
    table = pa.table({"name": list(known), "box": pa.array(boxes, pa.list_(pa.float64()))})
    with contextlib.suppress(OSError), atomic_write(file) as place:  # a full disk costs time, not the run
        pq.write_table(
            table.replace_schema_metadata({"format": _FORMAT}), place, compression="zstd", write_page_checksum=True
        )
