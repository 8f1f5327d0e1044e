"""Synthetic sets on disk (contract C6): one Parquet shard per batch of finished faces, and what they were made with."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.synthetic.synthetic_manifest import (
    Manifest,
    ShardEntry,
    missing_shards,
    note_shard,
    read_manifest,
    refuse_foreign,
    repair_command,
    shard_paths,
    write_manifest,
)
from datamodules.synthetic.synthetic_rows import SyntheticRows, label_names, table_of
from synfer.foundation.atomic_file import atomic_write
from synfer.foundation.file_reading import plain_reason
from synfer.foundation.json_file import read_json
from synfer.foundation.renamed_settings import with_added

_RECORD = "synthesis.json"

TAUGHT_BY = "taught_by"
"""Entry of a record: fingerprints of the networks that the maker of the faces learned by; sets of before lack it."""
_READERS = 4
"""Shards that are looked through at the same time."""

ROWS_TOGETHER = 512
"""Rows of a row group: so many pictures are read where one of them is wanted."""

_REPEATED = ["label", "caption", "seed", "layout_source", "votes.list.element.voter"]
"""Columns of few different values; to look for equal ones among pictures and ids costs time and finds none."""

LOCK = ".lock"
"""Name of the lock file in a set (``RanksLock``)."""


def write_shard(folder: Path, rows: SyntheticRows, text_labels: bool = False) -> Path:
    """Writes ``data/<first index>-<n>.parquet``, whole or not at all, and lists it; returns its path.

    The file says how Hugging Face's ``datasets`` is to open it (images decoded, labels with names), and its pages have
    checksums.

    Args:
        folder: of the set.
        rows: the faces.
        text_labels: labels as text, for a set that was begun so (``has_text_labels``).
    """
    return write_table(folder, table_of(rows, text_labels))


def write_table(folder: Path, table: pa.Table, name: str | None = None) -> Path:
    """Writes rows of a set, in the form of :func:`~datamodules.synthetic.synthetic_rows.table_of`, as one shard.

    Args:
        folder: of the set.
        table: its rows.
        name: of the file; None = first index and number of the rows.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=ROWS_TOGETHER,
        use_dictionary=_REPEATED,
        write_statistics=["index", "seed"],  # else the smallest pictures stand in heads that have no checksum
        write_page_checksum=True,
    )
    data = sink.getvalue()
    path = folder / "data" / (name or f"{table['index'][0].as_py():08d}-{len(table)}.parquet")
    with atomic_write(path) as partial:
        partial.write_bytes(data)
        note_shard(folder, path.name, ShardEntry.of(memoryview(data), len(table)))
    return path


class DamagedShardError(ValueError):
    """A shard whose content is not what was written: one line with what was found."""


def read_shard(path: Path, columns: Sequence[str] | None, entry: ShardEntry | None = None) -> pa.Table:
    """Reads a shard, its checksums verified; labels that are stored as numbers come as names.

    Args:
        path: the shard.
        columns: to read; None = all.
        entry: what the manifest says of it; None = it is not listed.

    Raises:
        DamagedShardError: the content differs from what was written, or is no Parquet file with these columns.
    """
    try:
        data = None if entry is None else path.read_bytes()
    except OSError as error:
        raise DamagedShardError(f"'{path}' cannot be read ({error.strerror or error})") from error
    found = entry.difference(data) if entry and data is not None else ""
    if found:  # a parser never sees what is known to be damaged
        raise DamagedShardError(f"'{path}' cannot be read ({found})")
    table = _columns(path, path if data is None else pa.BufferReader(data), columns)
    return _with_names(table)


def first_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields the rows of a shard one by one, labels as names; of a large one only those that are asked for are read.

    Raises:
        DamagedShardError: it is no Parquet file.
    """
    try:
        for batch in pq.ParquetFile(path).iter_batches(64, columns=list(columns)):
            yield from _with_names(pa.Table.from_batches([batch])).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DamagedShardError(f"'{path}' cannot be read ({plain_reason(error, 120)})") from error


def _with_names(table: pa.Table) -> pa.Table:
    """Returns the table with labels as names."""
    names = label_names(table.schema)
    if not names:
        return table
    of_code = dict(enumerate(names))
    label = pa.array([of_code.get(code) for code in table["label"].to_pylist()], pa.string())
    return table.set_column(table.column_names.index("label"), "label", label)


def has_text_labels(folder: Path) -> bool:
    """Returns whether the set was begun by a version that wrote labels as text: one set has one kind of labels."""
    first = next(iter(shard_paths(folder)), None)
    return first is not None and pa.types.is_string(pq.read_schema(first).field("label").type)


def finished_indices(folder: Path, compared: bool = True) -> np.ndarray:
    """Returns the indices of all faces in the set, int64, sorted; every shard is read and compared with the manifest.

    Shards that are listed and not there are no error here: their faces are made again.

    Args:
        folder: of the set.
        compared: false reads the indices alone, of shards that were compared or written a moment ago.

    Raises:
        ValueError: a shard is damaged, a file does not belong there, or an index occurs in two shards; the line names
            the files and the command that puts them aside.
    """
    manifest = read_manifest(folder)
    if manifest:
        refuse_foreign(folder, manifest)
    shards = shard_paths(folder)
    found: list[np.ndarray] = []
    with ThreadPoolExecutor(_READERS) as threads:  # hashing releases the interpreter lock
        try:
            found += threads.map(lambda shard: indices_in(shard, manifest, compared), shards)
        except DamagedShardError as error:
            raise ValueError(
                f"synthetic set: {error}, expected a shard as predict has written it ({repair_command(folder)} puts it "
                "aside, and then its faces are made again by the same predict command)"
            ) from error
    every = np.concatenate([*found, np.empty(0, dtype=np.int64)])
    lengths = [len(indices) for indices in found]
    del found
    indices = np.sort(every)
    if (indices[1:] == indices[:-1]).any():
        order = np.argsort(every, kind="stable")
        second = np.min(order[1:][indices[1:] == indices[:-1]])
        ends = np.cumsum(lengths)
        places = [int(np.argmax(every == every[second])), int(second)]
        names = [shards[int(np.searchsorted(ends, place, side="right"))].name for place in places]
        raise ValueError(
            f"synthetic set '{folder}': found face {every[second]} in two shards, '{names[0]}' and '{names[1]}', "
            f"expected it once ({repair_command(folder)} puts one of them aside)"
        )
    return indices


def indices_in(shard: Path, manifest: Manifest | None, compared: bool = True) -> np.ndarray:
    """Returns the indices of the faces in one shard, int64 (n,).

    Args:
        shard: the file.
        manifest: of the set; None = it has none.
        compared: whether all of its content is read and compared with the manifest, or, where there is none, with the
            checksums of its pages; false of a shard that this process has just seen whole.

    Raises:
        DamagedShardError: the content is not what was written.
    """
    if manifest and compared:
        compared_with(shard, manifest.shards[shard.name])
    # Without a manifest the checksums of the pages are all there is: every page is read.
    table = _columns(shard, shard, ["index"] if manifest or not compared else None)
    if "index" not in table.column_names:
        raise DamagedShardError(f"'{shard}' cannot be read (found no column 'index')")
    return table["index"].to_numpy().astype(np.int64)


def compared_with(shard: Path, entry: ShardEntry) -> None:
    """Reads a file, piece by piece, and compares it with what was written.

    Raises:
        DamagedShardError: it cannot be read, or differs.
    """
    try:
        found = entry.difference_of(shard)
    except OSError as error:
        raise DamagedShardError(f"'{shard}' cannot be read ({error.strerror or error})") from error
    if found:
        raise DamagedShardError(f"'{shard}' cannot be read ({found})")


def _columns(path: Path, source: Any, columns: Sequence[str] | None) -> pa.Table:
    """Returns columns of a shard, checksums verified; None = all."""
    try:
        table = pq.read_table(source, columns=columns and list(columns), page_checksum_verification=True)
        missing = [name for name in columns or () if name not in table.column_names]
        if missing:
            raise KeyError(f"found no column '{missing[0]}'")
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DamagedShardError(f"'{path}' cannot be read ({plain_reason(error, 120)})") from error
    return table


def begin_set(folder: Path, planned: int) -> list[str]:
    """Writes the manifest of a set that is about to be made or made longer; for one process, before any shard.

    Args:
        folder: of the set; its shards were found whole (``finished_indices``).
        planned: number of faces that it is to hold.

    Returns:
        The shards that were listed and are not there.
    """
    manifest = read_manifest(folder) or Manifest(planned, list_shards(folder))
    missing = missing_shards(folder, manifest)
    shards = {name: entry for name, entry in manifest.shards.items() if name not in missing}
    write_manifest(folder, Manifest(planned, shards))
    return missing


def list_shards(folder: Path) -> dict[str, ShardEntry]:
    """Returns the entries of all shards as they are, for a set without a manifest."""
    paths = shard_paths(folder)
    return {path.name: ShardEntry.of_file(path, pq.read_metadata(path).num_rows) for path in paths}


def check_record(folder: Path, made_with: Mapping[str, Any]) -> None:
    """Compares with what the faces in the set were made with; the first time, that is written down.

    Raises:
        ValueError: something differs: the set would hold faces of two kinds.
    """
    path = folder / _RECORD
    wanted = json.loads(json.dumps(made_with))  # tuples become lists, as in the file
    if path.is_file():
        before = read_record(folder)
        new = {TAUGHT_BY} - before.keys()  # it follows from the maker's weights, which are compared
        for name in sorted({*before, *wanted} - new):
            if with_added(name, before.get(name), wanted.get(name)) != wanted.get(name):
                raise ValueError(
                    f"synthetic set '{folder}': its faces were made with {name} {before.get(name)}, found "
                    f"{wanted.get(name)}, expected the same (or another folder)"
                )
        return
    if shard_paths(folder):
        raise ValueError(
            f"synthetic set '{folder}': found shards and no {_RECORD}, expected what they were made with: a copy of "
            "that file, or another folder"
        )
    write_record(folder, wanted)


def write_record(folder: Path, made_with: Mapping[str, Any]) -> None:
    """Writes down what the faces of a set are made with."""
    with atomic_write(folder / _RECORD) as partial:
        partial.write_text(json.dumps(made_with, indent=2, sort_keys=True) + "\n")


def write_card(folder: Path, facts: Mapping[str, str] | None = None) -> dict[str, int]:
    """Writes README.md, the card of the set, from its shards and its record; returns faces kept, by expression.

    Args:
        folder: of the set.
        facts: name → one line each of what else was measured on these faces; they stand below the table.
    """
    made_with = read_record(folder)
    total: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    changed = 0
    for shard in shard_paths(folder):
        table = read_shard(shard, ["label", "soft_label", "kept"])
        label, is_kept = np.array(table["label"].to_pylist()), table["kept"].to_numpy().astype(bool)
        total.update(label.tolist())
        kept.update(label[is_kept].tolist())
        changed += int((is_kept & (most_probable(table["soft_label"]) != label)).sum())
    settings = "\n".join(f"- {name}: `{json.dumps(value)}`" for name, value in sorted(made_with.items()))
    rows = "\n".join(f"| {name} | {total[name]} | {kept[name]} |" for name in sorted(total))
    measured = "".join(f"- {name}: {line}\n" for name, line in (facts or {}).items()) + ("\n" if facts else "")
    # The card names no data files: with them, datasets would go on serving the rows of its cache when the set grows.
    text = (
        "---\ntask_categories: [image-classification]\ntags: [synthetic, facial-expression-recognition]\n---\n\n"
        "# Synthetic facial expressions\n\n"
        f"{total.total()} synthetic faces; {kept.total()} of them were kept, {changed} of these show "
        "another expression than the intended one by the vote of the classifiers.\n\n"
        f"| intended expression | made | kept |\n| --- | --- | --- |\n{rows}\n\n{measured}"
        "Columns: `image`, `label` (intended), `soft_label` (what training uses), `caption`, `au` (intensities in "
        "[0, 1]), `seed`, `sample_id`, `layout_source` (the real training face whose layout was taken), `kept`, "
        "`votes`, `index`. `datasets.load_dataset(<this folder>)` opens them, images decoded and labels with names.\n\n"
        f"Made with:\n\n{settings}\n\n"
        "The persons do not exist, but for near copies. The faces inherit what the generator's training data lacks or "
        "overdoes; whether they may be passed on depends on the licences of that data and of the base model.\n"
    )
    with atomic_write(folder / "README.md") as partial:
        partial.write_text(text, encoding="utf-8")
    return dict(kept)


def most_probable(soft_label: pa.ChunkedArray) -> np.ndarray:
    """Returns the name of the largest probability of each row, of a column with a field per name; ties: the first."""
    flat = soft_label.combine_chunks()
    names = [flat.type.field(place).name for place in range(flat.type.num_fields)]
    columns = [flat.field(place).to_numpy(zero_copy_only=False) for place in range(len(names))]
    return np.array(names)[np.nan_to_num(np.stack(columns, axis=1).astype(np.float64)).argmax(1)]


def read_record(folder: Path) -> dict[str, Any]:
    """Returns what the faces of a set were made with.

    Raises:
        FileNotFoundError, ValueError: no record there, or a damaged one.
    """
    return read_json(folder / _RECORD, "record of a synthetic set", "the JSON object that predict wrote (a copy of it)")
