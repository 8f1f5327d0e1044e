"""One synthetic set cut into several, by number or by expression."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datamodules.synthetic.shard_stream import SHARD_BYTES, ShardStream
from datamodules.synthetic.synthetic_rows import with_features
from datamodules.synthetic.synthetic_shards import begin_set, write_card, write_record
from datamodules.synthetic.whole_set import PART, WholeSet, open_whole
from synfer.foundation.new_folder import check_new_folder, new_folder


def split_by_count(folder: Path, counts: Sequence[int], out: Path) -> dict[str, int]:
    """Writes the first faces of a set as the set ``part-0``, the next ones as ``part-1``, and so on.

    In the order of their numbers, in which ``predict`` spreads the expressions evenly, whatever shards they lie in.

    Args:
        folder: a finished set.
        counts: faces of each part, ≥ 1; what is left over is one part more.
        out: a new or an empty folder.

    Returns:
        Part → faces.

    Raises:
        ValueError: a set that is unfinished or damaged, or counts that it has not; nothing has been written then.
    """
    found = open_whole(folder)
    if not counts or min(counts) < 1 or sum(counts) > found.faces:
        raise ValueError(
            f"--counts {' '.join(map(str, counts))}: found {sum(counts)} faces wanted of the {found.faces} in "
            f"'{folder}', expected numbers of at least 1 that it has"
        )
    left = found.faces - sum(counts)
    sizes = [*counts, left] if left else list(counts)
    indices, ends = found.indices(), np.cumsum(sizes)
    names = [f"part-{place}" for place in range(len(sizes))]
    starts = (ends - sizes).tolist()
    parts = {
        name: {"first": int(indices[start]), "last": int(indices[end - 1])}
        for name, start, end in zip(names, starts, ends.tolist(), strict=True)
    }

    def part_of(table: pa.Table) -> np.ndarray:
        places = np.searchsorted(indices, table["index"].to_numpy())
        return np.searchsorted(ends, places, side="right")

    return _split(found, parts, dict(zip(names, sizes, strict=True)), part_of, out)


def split_by_expression(folder: Path, out: Path) -> dict[str, int]:
    """Writes the faces of each intended expression as a set of that name.

    Args:
        folder: a finished set.
        out: a new or an empty folder.

    Returns:
        Expression → faces, of those that there are.

    Raises:
        ValueError: a set that is unfinished or damaged; nothing has been written then.
    """
    found = open_whole(folder)
    counts = np.zeros(len(found.label_space), dtype=np.int64)
    for table in found.tables():
        counts += np.bincount(table["label"].to_numpy(), minlength=len(counts))
    sizes = {name: int(n) for name, n in zip(found.label_space, counts, strict=True) if n}
    place = np.cumsum(counts > 0) - 1

    def part_of(table: pa.Table) -> np.ndarray:
        return place[table["label"].to_numpy()]

    return _split(found, {name: {"expression": name} for name in sizes}, sizes, part_of, out)


def _split(
    found: WholeSet,
    parts: Mapping[str, Mapping[str, Any]],
    sizes: Mapping[str, int],
    part_of: Callable[[pa.Table], np.ndarray],
    out: Path,
) -> dict[str, int]:
    check_new_folder(out)
    with new_folder(out) as folder:
        of = found.record.get(PART, {}).get("of", found.faces)
        for name, which in parts.items():
            write_record(folder / name, {**found.record, PART: {"of": of, "faces": sizes[name], **which}})
            begin_set(folder / name, sizes[name])
        # All are open at once: together they hold no more than one set does while it is written.
        streams = [ShardStream(folder / name, size=SHARD_BYTES // len(parts)) for name in parts]
        for table in found.tables():
            place = part_of(table)
            for number in np.unique(place).tolist():
                rows = table.filter(pa.array(place == number))
                streams[number].add(with_features(rows, found.label_space))
        for stream, name in zip(streams, parts, strict=True):
            stream.flush()
            begin_set(folder / name, sizes[name])
            write_card(folder / name)
    return dict(sizes)
