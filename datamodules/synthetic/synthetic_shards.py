"""Synthetic sets on disk (contract C6): one Parquet shard per batch of finished faces, and what they were made with."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

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
from synfer.foundation.atomic_file import atomic_write
from synfer.foundation.file_reading import plain_reason
from synfer.foundation.json_file import read_json
from synfer.foundation.renamed_settings import with_added

_RECORD = "synthesis.json"
LOCK = ".lock"
"""Name of the lock file in a set (``RanksLock``)."""


@dataclass(frozen=True)
class SyntheticRows:
    """n finished faces.

    Attributes:
        index: int64 (n,), place in the list of what is to be made.
        sample_id: n strings.
        image: uint8 (n, H, W, 3), RGB.
        label: n intended expressions.
        soft_label: float (n, K), rows sum to 1.
        label_space: the K names.
        caption: n captions.
        au: float (n, A) in [0, 1], NaN = not given.
        au_names: the A names.
        seed: of the set; with the index it fixes the noise.
        layout_source: n sample ids of real faces; "" = none.
        kept: bool (n,).
        votes: voter → float (n, K) probabilities.
    """

    index: np.ndarray
    sample_id: Sequence[str]
    image: np.ndarray
    label: Sequence[str]
    soft_label: np.ndarray
    label_space: Sequence[str]
    caption: Sequence[str]
    au: np.ndarray
    au_names: Sequence[str]
    seed: int
    layout_source: Sequence[str]
    kept: np.ndarray
    votes: Mapping[str, np.ndarray] = field(default_factory=dict)


def write_shard(folder: Path, rows: SyntheticRows, text_labels: bool = False) -> Path:
    """Writes ``data/<first index>-<n>.parquet``, whole or not at all, and lists it; returns its path.

    The file says how Hugging Face's ``datasets`` is to open it (images decoded, labels with names), and its pages have
    checksums.

    Args:
        folder: of the set.
        rows: the faces.
        text_labels: labels as text, for a set that was begun so (``has_text_labels``).
    """
    names, n = list(rows.label_space), len(rows.index)
    by_name = pa.struct([(name, pa.float32()) for name in names])
    units = pa.struct([(name, pa.float32()) for name in rows.au_names])
    vote = pa.struct([("voter", pa.string()), ("probabilities", by_name)])
    columns: dict[str, pa.Array] = {
        # The layout of an image in the files of Hugging Face's datasets.
        "image": pa.array(
            [
                {"bytes": png_of(image), "path": f"{name}.png"}
                for image, name in zip(rows.image, rows.sample_id, strict=True)
            ],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        ),
        "label": pa.array(list(rows.label), pa.string())
        if text_labels
        else pa.array([names.index(name) for name in rows.label], pa.int64()),
        "soft_label": pa.array([_named(names, row) for row in rows.soft_label], by_name),
        "caption": pa.array(list(rows.caption), pa.string()),
        "au": pa.array([_named(rows.au_names, row) for row in rows.au], units),
        "seed": pa.array([rows.seed] * n, pa.int64()),
        "sample_id": pa.array(list(rows.sample_id), pa.string()),
        "layout_source": pa.array([source or None for source in rows.layout_source], pa.string()),
        "kept": pa.array(rows.kept.tolist(), pa.bool_()),
        "votes": pa.array(
            [[{"voter": v, "probabilities": _named(names, p[i])} for v, p in rows.votes.items()] for i in range(n)],
            pa.list_(vote),
        ),
        "index": pa.array(rows.index.tolist(), pa.int64()),
    }
    table = pa.table(columns)
    features = {field.name: _feature(field.type) for field in table.schema} | {"image": {"_type": "Image"}}
    if not text_labels:
        features["label"] = {"names": names, "_type": "ClassLabel"}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    data = sink.getvalue().to_pybytes()
    path = folder / "data" / f"{int(rows.index[0]):08d}-{n}.parquet"
    with atomic_write(path) as partial:
        partial.write_bytes(data)
        note_shard(folder, path.name, ShardEntry.of(data, n))
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
        data = path.read_bytes()
    except OSError as error:
        raise DamagedShardError(f"'{path}' cannot be read ({error.strerror or error})") from error
    found = entry.difference(data) if entry else ""
    if found:  # a parser never sees what is known to be damaged
        raise DamagedShardError(f"'{path}' cannot be read ({found})")
    try:
        table = pq.read_table(pa.BufferReader(data), columns=columns and list(columns), page_checksum_verification=True)
        missing = [name for name in columns or () if name not in table.column_names]
        if missing:
            raise KeyError(f"found no column '{missing[0]}'")
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DamagedShardError(f"'{path}' cannot be read ({plain_reason(error, 120)})") from error
    names = label_names(table.schema)
    if names:
        of_code = dict(enumerate(names))
        label = pa.array([of_code.get(code) for code in table["label"].to_pylist()], pa.string())
        table = table.set_column(table.column_names.index("label"), "label", label)
    return table


def label_names(schema: pa.Schema) -> list[str]:
    """Returns the names of labels stored as numbers in the way of ``datasets``; empty where there are none."""
    if "label" not in schema.names or not pa.types.is_integer(schema.field("label").type):
        return []
    try:
        return list(json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]["label"]["names"])
    except (KeyError, TypeError, ValueError):
        return []


def has_text_labels(folder: Path) -> bool:
    """Returns whether the set was begun by a version that wrote labels as text: one set has one kind of labels."""
    first = next(iter(shard_paths(folder)), None)
    return first is not None and pa.types.is_string(pq.read_schema(first).field("label").type)


def finished_indices(folder: Path) -> np.ndarray:
    """Returns the indices of all faces in the set, int64, sorted; every shard is read and compared with the manifest.

    Shards that are listed and not there are no error here: their faces are made again.

    Raises:
        ValueError: a shard is damaged, a file does not belong there, or an index occurs in two shards; the line names
            the files and the command that puts them aside.
    """
    manifest = read_manifest(folder)
    if manifest:
        refuse_foreign(folder, manifest)
    seen: dict[int, Path] = {}
    shards = shard_paths(folder)
    with ThreadPoolExecutor() as threads:  # hashing releases the interpreter lock
        read = threads.map(lambda shard: indices_in(shard, manifest), shards)
        found: list[list[int]] = []
        try:
            found += read
        except DamagedShardError as error:
            raise ValueError(
                f"synthetic set: {error}, expected a shard as predict has written it ({repair_command(folder)} puts it "
                "aside, and then its faces are made again by the same predict command)"
            ) from error
    for shard, indices in zip(shards, found, strict=True):
        for index in indices:
            if index in seen:
                raise ValueError(
                    f"synthetic set '{folder}': found face {index} in two shards, '{seen[index].name}' and "
                    f"'{shard.name}', expected it once ({repair_command(folder)} puts one of them aside)"
                )
            seen[index] = shard
    return np.array(sorted(seen), dtype=np.int64)


def indices_in(shard: Path, manifest: Manifest | None) -> list[int]:
    """Returns the indices of the faces in one shard, which is read and compared with the manifest.

    Raises:
        DamagedShardError: the content is not what was written.
    """
    if manifest:
        return read_shard(shard, ["index"], manifest.shards[shard.name])["index"].to_pylist()
    table = read_shard(shard, None)  # the checksums of the pages are all there is: every page is read
    if "index" not in table.column_names:
        raise DamagedShardError(f"'{shard}' cannot be read (found no column 'index')")
    return table["index"].to_pylist()


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
    return {path.name: ShardEntry.of(path.read_bytes(), pq.read_metadata(path).num_rows) for path in paths}


def check_record(folder: Path, made_with: Mapping[str, Any]) -> None:
    """Compares with what the faces in the set were made with; the first time, that is written down.

    Raises:
        ValueError: something differs: the set would hold faces of two kinds.
    """
    path = folder / _RECORD
    wanted = json.loads(json.dumps(made_with))  # tuples become lists, as in the file
    if path.is_file():
        before = read_record(folder)
        for name in sorted({*before, *wanted}):
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
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(wanted, indent=2, sort_keys=True) + "\n")


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
        for row in read_shard(shard, ["label", "soft_label", "kept"]).to_pylist():
            total[row["label"]] += 1
            kept[row["label"]] += row["kept"]
            changed += row["kept"] and max(row["soft_label"], key=row["soft_label"].get) != row["label"]
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


def read_record(folder: Path) -> dict[str, Any]:
    """Returns what the faces of a set were made with.

    Raises:
        FileNotFoundError, ValueError: no record, or a damaged one.
    """
    return read_json(folder / _RECORD, "record of a synthetic set", "the JSON object that predict wrote (a copy of it)")


def _feature(kind: pa.DataType) -> Any:
    """Returns a column's type in the words of ``datasets``."""
    if pa.types.is_struct(kind):
        return {kind.field(i).name: _feature(kind.field(i).type) for i in range(kind.num_fields)}
    if pa.types.is_list(kind):
        return [_feature(kind.value_type)]
    # pyarrow says float where datasets says float32
    return {"dtype": {"float": "float32"}.get(str(kind), str(kind)), "_type": "Value"}


def png_of(image: np.ndarray) -> bytes:
    """Returns the file of one face, uint8 (H, W, 3)."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _named(names: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    return {name: None if np.isnan(v) else float(v) for name, v in zip(names, values.tolist(), strict=True)}
