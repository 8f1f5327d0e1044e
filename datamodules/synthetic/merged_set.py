"""Several synthetic sets made one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datamodules.synthetic.shard_stream import ShardStream
from datamodules.synthetic.synthetic_rows import with_features
from datamodules.synthetic.synthetic_shards import begin_set, write_card, write_record
from datamodules.synthetic.whole_set import PART, WholeSet, open_whole
from synfer.foundation.new_folder import check_new_folder, new_folder

_MERGED = "merged"


def merge_sets(folders: Sequence[Path], out: Path) -> int:
    """Writes all faces of several finished sets as one set, shard after shard; returns their number.

    Parts of one set keep index and id of each face, and all of them together are that set again. Of sets that were made
    with different things the faces are numbered anew, in the order of the sets, and each id gets the name of its set
    in front, 8 hex digits over what it was made with; the record of the result holds the record of each, and which
    numbers are its faces. What a face was asked, its seed, layout source and votes stay as they are.

    Args:
        folders: at least two.
        out: a new or an empty folder.

    Raises:
        ValueError: a set is unfinished or damaged, two hold the same face, or expressions, action units or the size of
            the pictures differ; nothing has been written then.
    """
    if len(folders) < 2:
        raise ValueError(f"sets to merge: found {len(folders)}, expected at least two")
    check_new_folder(out)
    sets = [open_whole(folder) for folder in folders]
    for other in sets[1:]:
        _refuse_unlike(sets[0], other)
    _refuse_same_faces(sets)
    same = len({found.source for found in sets}) == 1
    total = sum(found.faces for found in sets)
    with new_folder(out) as folder:
        write_record(folder, _record_of_parts(sets, total) if same else _record_of_all(sets))
        begin_set(folder, total)
        stream = ShardStream(folder)
        first = 0
        for found in sets:
            for table in found.tables():
                if not same:
                    table = _renamed(table, found.source, first)
                first += len(table)
                stream.add(with_features(table, found.label_space))
        stream.flush()
        begin_set(folder, total)
        write_card(folder)
    return total


def _renamed(table: pa.Table, source: str, first: int) -> pa.Table:
    """Returns rows with new numbers, and ids that name their set."""
    names = [f"{source}-{name}" for name in table["sample_id"].to_pylist()]
    numbers = np.arange(first, first + len(table), dtype=np.int64)
    for name, values in (("sample_id", pa.array(names, pa.string())), ("index", pa.array(numbers))):
        table = table.set_column(table.column_names.index(name), name, values)
    return table


def records_of_parts(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields what faces were made with: the own record of a set, or those of all that were merged, sets of sets too.

    Args:
        record: of any set.
    """
    if _MERGED not in record:
        yield record
    for part in record.get(_MERGED, ()):
        yield from records_of_parts(part["made_with"])


def _record_of_all(sets: Sequence[WholeSet]) -> dict[str, Any]:
    ends = np.cumsum([found.faces for found in sets]).tolist()
    merged = [
        {"name": found.source, "first": end - found.faces, "faces": found.faces, "made_with": found.record}
        for found, end in zip(sets, ends, strict=True)
    ]
    return {_MERGED: merged}


def _record_of_parts(sets: Sequence[WholeSet], total: int) -> dict[str, Any]:
    """Returns the record of the set that these are parts of; without the word where nothing of it is missing."""
    record = {name: value for name, value in sets[0].record.items() if name != PART}
    whole = {found.record[PART]["of"] for found in sets if PART in found.record}
    return record if not whole or whole == {total} else {**record, PART: {"of": max(whole), "faces": total}}


def _refuse_unlike(first: WholeSet, other: WholeSet) -> None:
    if other.label_space != first.label_space:
        raise ValueError(
            f"sets to merge: found the expressions {', '.join(other.label_space)} in '{other.folder}', expected "
            f"{', '.join(first.label_space)} as in '{first.folder}'"
        )
    if other.image_size != first.image_size:
        sizes = ["x".join(map(str, found.image_size)) for found in (other, first)]
        raise ValueError(
            f"sets to merge: found pictures of {sizes[0]} pixels in '{other.folder}', expected {sizes[1]} as in "
            f"'{first.folder}'"
        )
    for field in first.schema:
        place = other.schema.get_field_index(field.name)
        if place < 0 or other.schema.field(place).type != field.type:
            raise ValueError(
                f"sets to merge: found another column '{field.name}' in '{other.folder}' than in '{first.folder}', "
                "expected sets with the same action units, of the same version"
            )


def _refuse_same_faces(sets: Sequence[WholeSet]) -> None:
    for place, found in enumerate(sets):
        alike = [before for before in sets[:place] if before.source == found.source]
        own = found.indices() if alike else np.empty(0, dtype=np.int64)
        for before in alike:
            shared = np.intersect1d(own, before.indices(), assume_unique=True)
            if len(shared):
                seed = json.dumps(found.record.get("seed"))
                raise ValueError(
                    f"sets to merge: found face {shared[0]} and {len(shared) - 1} more of seed {seed} in both "
                    f"'{before.folder}' and '{found.folder}', expected each face once (sets of other seeds)"
                )
