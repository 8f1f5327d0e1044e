"""What decoding each picture of a data set told, kept on disk: a later start decodes none of them.

Readers decode every picture once, to find the bad ones and to know duplicates by their pixels. Of 100,000 files that
is minutes, on every rank and at every start. The index holds size and content hash of each good picture by its path,
length and time of change. It is a cache: what it says of a file counts while the file has that length and time; a few
pictures are decoded all the same at each start, and where one of them is another than the index says the whole of it is
thrown away. Bad pictures are not in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.rows.images import BadImageError, Box, check_not_constant, cut_out, read_image
from datamodules.rows.provenance import content_hash
from datamodules.rows.read_ahead import in_threads
from synfer.foundation.atomic_file import atomic_write
from synfer.foundation.folder_lock import FolderLock
from synfer.foundation.on_rank_zero import warn_on_rank_zero
from synfer.foundation.paused_collector import paused_collector

FOLDER_VARIABLE = "SYNFER_INDEX_DIR"
"""Environment variable with the folder of the indexes; empty = none are kept."""

_FORMAT = "synfer picture index 1"
_FEWEST = 500
"""Pictures below which none is kept: they are decoded in a moment."""

_TRIED_AGAIN = 16
"""Pictures that are decoded at each start to see whether the index is right."""

SETTLED_S = 2.0
"""Age below which a file is not put into the index: it may change again within the same tick of the clock."""

_PATIENCE_S = 3600.0  # of ranks that wait for the one that decodes


class Inspected(NamedTuple):  # of which a data set has 100,000: it is made faster than a dataclass
    """What decoding a picture tells.

    Attributes:
        height: in pixels, of the face's box where there is one.
        width: in pixels.
        digest: content hash.
    """

    height: int
    width: int
    digest: str


def inspect_pictures(
    paths: Sequence[Path], root: Path, boxes: Sequence[Box | None] | None = None
) -> list[Inspected | BadImageError]:
    """Returns for each picture its size and hash, or why it is bad; decodes those that the index does not know.

    Ranks of one machine that ask at the same time decode once: the others wait and read what it found.

    Args:
        paths: files.
        root: folder of the data set, by which its index is found.
        boxes: of the face in each; None = whole pictures.
    """
    boxes = [None] * len(paths) if boxes is None else boxes
    keys = _keys(paths, boxes)
    file = _index_file(root) if len(paths) >= _FEWEST else None
    known = {} if file is None else _read(file)
    if file is None or all(key is None or key in known for key in keys):
        return _inspect_all(paths, boxes, keys, _trusted(known, paths, boxes, keys, file))
    with only_one(file):
        known = _trusted(_read(file), paths, boxes, keys, file)  # another rank may have been here
        found = _inspect_all(paths, boxes, keys, known)
        fresh = {key: one for key, one in zip(keys, found, strict=True) if key and isinstance(one, Inspected)}
        if not fresh.keys() <= known.keys():
            _write(file, root, {**known, **fresh})
    return found


def _inspect_all(
    paths: Sequence[Path], boxes: Sequence[Box | None], keys: Sequence[str | None], known: dict[str, Inspected]
) -> list[Inspected | BadImageError]:
    found: list[Inspected | BadImageError | None] = [known.get(key) if key else None for key in keys]
    missing = [place for place, one in enumerate(found) if one is None]
    decoded = in_threads(lambda place: _inspect(paths[place], boxes[place]), missing)
    for place, one in zip(missing, decoded, strict=True):
        found[place] = one
    return [one for one in found if one is not None]


def _inspect(path: Path, box: Box | None) -> Inspected | BadImageError:
    try:
        image = read_image(path)
        if box is not None:
            image = cut_out(image, box, str(path))
        check_not_constant(image, str(path))
    except BadImageError as error:
        return error
    return Inspected(image.shape[0], image.shape[1], content_hash(image))


def _trusted(
    known: dict[str, Inspected],
    paths: Sequence[Path],
    boxes: Sequence[Box | None],
    keys: Sequence[str | None],
    file: Path | None,
) -> dict[str, Inspected]:
    """Returns what is known, or nothing where a few pictures, decoded again, are not what it says."""
    places = [place for place, key in enumerate(keys) if key in known]
    step = max(1, len(places) // _TRIED_AGAIN)
    start = time.time_ns() % step  # others at each start
    for place in places[start::step][:_TRIED_AGAIN]:
        if _inspect(paths[place], boxes[place]) != known[str(keys[place])]:
            warn_on_rank_zero(
                f"picture index '{file}': found another picture in '{paths[place]}' than it says, of the same length "
                "and time of change, expected none: all pictures are decoded again"
            )
            return {}
    return known


def _keys(paths: Sequence[Path], boxes: Sequence[Box | None]) -> list[str | None]:
    """Returns what must not have changed since a picture was indexed; None = it is not there, or just being written."""
    keys: list[str | None] = []
    here, settled = f"{Path.cwd()}{os.sep}", time.time_ns() - int(SETTLED_S * 1e9)
    for path, box in zip(paths, boxes, strict=True):
        name = os.fspath(path)
        try:
            status = os.stat(name)  # noqa: PTH116 (a third faster than of a path, and there are 100,000)
        except OSError:
            keys.append(None)
            continue
        when, whole = status.st_mtime_ns, name if name.startswith(os.sep) else here + name
        keys.append(f"{whole}\0{status.st_size}\0{when}\0{box or ''}" if when <= settled else None)
    return keys


def _index_file(root: Path) -> Path | None:
    """Returns the index of a data set, whose folder exists then; None = none can or may be kept."""
    folder = index_folder()
    return (
        None if folder is None else folder / f"{hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:16]}.parquet"
    )


def index_folder() -> Path | None:
    """Returns the folder of the indexes, which exists then; None = none can or may be kept."""
    given = os.environ.get(FOLDER_VARIABLE)
    if given is None:
        cache = os.environ.get("XDG_CACHE_HOME")
        folder = (Path(cache) if cache else Path.home() / ".cache") / "synfer" / "pictures"
    elif given:
        folder = Path(given)
    else:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


@contextlib.contextmanager
def only_one(file: Path) -> Iterator[None]:
    """Holds the lock of an index; where there are no locks each process works for itself."""
    lock = FolderLock(file.with_suffix(".lock"))
    with contextlib.suppress(OSError):
        lock.take(_PATIENCE_S)
    try:
        yield
    finally:
        lock.release()


def _read(file: Path) -> dict[str, Inspected]:
    """Returns what an index holds; nothing where there is none, or one that cannot be read."""
    try:
        table = pq.read_table(file, page_checksum_verification=True)
        if (table.schema.metadata or {}).get(b"format") != _FORMAT.encode():
            return {}
        columns = [table[name].to_pylist() for name in ("key", "height", "width", "digest")]
    except (OSError, KeyError, pa.ArrowException):
        return {}
    keys, *told = columns
    with paused_collector():
        return dict(zip(keys, map(Inspected, *told), strict=True))


def _write(file: Path, root: Path, known: dict[str, Inspected]) -> None:
    """Writes an index; files that have changed or gone leave it at the next writing of their data set's."""
    newest: dict[str, str] = {}
    for key in known:
        path, _, rest = key.partition("\0")
        newest[f"{path}\0{rest.rpartition(chr(0))[2]}"] = key  # one line for a path and a box: the last one
    kept = list(newest.values())
    table = pa.table(
        {
            "key": kept,
            "height": np.array([known[key].height for key in kept], dtype=np.int32),
            "width": np.array([known[key].width for key in kept], dtype=np.int32),
            "digest": [known[key].digest for key in kept],
        }
    ).replace_schema_metadata({"format": _FORMAT, "root": str(root.absolute())})
    with contextlib.suppress(OSError), atomic_write(file) as place:  # a full disk costs time, not the run
        pq.write_table(table, place, compression="zstd", write_page_checksum=True)
