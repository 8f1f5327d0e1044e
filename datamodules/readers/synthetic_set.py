"""Synthetic sets: the Parquet shards of contract C6."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from datamodules.readers.reader import BadSamples, OnBadSample, Reader, Split, check_on_bad_sample
from datamodules.rows.images import BadImageError, EncodedImages, check_not_constant, decode_image
from datamodules.rows.provenance import content_hash
from datamodules.rows.sample_table import ReadReport, SampleTable
from datamodules.synthetic.synthetic_manifest import (
    MANIFEST,
    check_complete,
    read_manifest,
    repair_command,
    shard_paths,
)
from datamodules.synthetic.synthetic_shards import DamagedShardError, read_shard
from synfer.faces.action_units import ACTION_UNITS
from synfer.faces.expressions import EXPRESSIONS, canonical_expression, resolve_label_space

COLUMNS = ("image", "label", "soft_label", "caption", "au", "seed", "sample_id", "layout_source", "kept", "votes")
_ROOT = "root of SyntheticSetReader (data.synthetic_reader or data.reader)"
NOT_KEPT = "discarded by the label vote (kept is false)"


class SyntheticSetReader(Reader):
    """Reads the Parquet shards ``<root>/*.parquet`` (or ``<root>/data/*.parquet``) of a synthetic set (contract C6).

    Release: sets written by synfer's own ``predict``, of all versions. Columns: ``image`` (encoded, or the struct of
    ``datasets``), ``label`` (intended name, or the ``ClassLabel`` of ``datasets``), ``soft_label`` and ``au`` (both by
    name: structs or maps), ``caption``, ``seed``, ``sample_id``, ``layout_source``, ``kept``, ``votes``. Rows with
    ``kept`` false are left out and counted in ``table.report.excluded``. ``label`` of the table is the intended
    expression; training uses ``soft_label``, which differs where the vote softened it.

    What the set's ``MANIFEST`` lists must be there, unchanged and complete: as many faces as were planned, each shard
    with the content that was written, and no other file among them. Sets of versions that wrote none are read as they
    are, which one line says.

    Args:
        root: folder of the set.
        label_space: "basic7", "ferplus8" or a list of names; None = the names in ``soft_label``, in canonical order.
            Rows that intend an expression outside it are left out and counted; the others' soft labels are
            renormalised over it.
        on_bad_sample: "error", or "skip" to leave bad samples out (counted and named in ``table.report``).

    Raises:
        FileNotFoundError: ``root`` is missing or holds no shard.
        ValueError: a shard is no Parquet file, or lacks a column; the set is unfinished, or a file in it is foreign.
    """

    def __init__(
        self, root: str, label_space: list[str] | str | None = None, on_bad_sample: OnBadSample = "error"
    ) -> None:
        check_on_bad_sample(on_bad_sample)
        self._root, self._on_bad_sample = Path(root), on_bad_sample
        if not self._root.is_dir():
            raise FileNotFoundError(f"{_ROOT}: found no folder '{root}', expected a synthetic set there")
        beside = sorted(path for path in self._root.glob("*.parquet") if not path.name.startswith("."))
        self._shards = beside or shard_paths(self._root)
        # A user may name the folder of the shards itself.
        within = self._root.name == "data" and not (self._root / MANIFEST).exists()
        self._set = self._root.parent if within else self._root
        self._manifest = read_manifest(self._set)
        if self._manifest is not None:
            check_complete(self._set, self._manifest)
            self._shards = [self._set / "data" / name for name in sorted(self._manifest.shards)]
        if not self._shards:
            raise FileNotFoundError(f"{_ROOT}: found no *.parquet in '{root}', expected shards")
        if self._manifest is None:
            rank_zero_info(f"{self._root}: a set without {MANIFEST}: nothing says whether all its faces are there")
            schemas = [_checked_schema(shard) for shard in self._shards]
        else:
            schemas = [self._table(self._shards[0]).schema]  # the others are read, and compared, in ``read``
        if label_space is not None:
            self.label_space = resolve_label_space(label_space)
        else:
            self.label_space = _names_of_soft_label(schemas[0], self._shards[0])

    def read(self, split: Split) -> SampleTable:
        """Returns the kept rows; the images stay encoded in memory and are decoded when asked for.

        Raises:
            ValueError: a split other than "train", no kept row, a sample id twice, or a bad sample (unless skipped).
        """
        if split != "train":
            raise ValueError(
                f"{self._root}: found a synthetic set where split '{split}' is wanted, expected split 'train'"
            )
        bad = BadSamples(self._on_bad_sample)
        excluded: dict[str, int] = {}
        samples: list[_Sample] = []
        seen: dict[str, str] = {}
        found = 0
        for shard in self._shards:
            for number, row in enumerate(self._table(shard).to_pylist()):
                found += 1
                where = f"{shard} row {number}"
                try:
                    if not _is_kept(row["kept"], where):
                        excluded[NOT_KEPT] = excluded.get(NOT_KEPT, 0) + 1
                        continue
                    sample = self._parse(row, where)
                    if samples and sample.size != samples[0].size:
                        raise BadImageError(
                            f"{where}: found {sample.size[0]}x{sample.size[1]} pixels, expected "
                            f"{samples[0].size[0]}x{samples[0].size[1]} like the images before it"
                        )
                except _OutsideLabelSpace as outside:
                    excluded[str(outside)] = excluded.get(str(outside), 0) + 1
                    continue
                except ValueError as error:
                    bad.add(str(error))
                    continue
                if sample.sample_id in seen:
                    raise ValueError(
                        f"{where}: found sample_id '{sample.sample_id}' twice (also in {seen[sample.sample_id]}), "
                        f"expected unique ids ({repair_command(self._set)} puts doubled shards aside)"
                    )
                seen[sample.sample_id] = where
                samples.append(sample)
        skipped = bad.settle(of=found)
        if not samples:
            raise ValueError(
                f"{self._root}: found no usable row ({found} rows, {len(skipped)} bad, {sum(excluded.values())} left "
                "out by rule), expected at least one"
            )
        return SampleTable(
            images=EncodedImages([s.data for s in samples], [s.where for s in samples]),
            label=np.array([s.label for s in samples], dtype=np.int64),
            soft_label=np.stack([s.soft_label for s in samples]),
            sample_id=np.array([s.sample_id for s in samples]),
            content_hash=np.array([s.content_hash for s in samples]),
            label_space=self.label_space,
            split=split,
            au=np.stack([s.au for s in samples]),
            caption=np.array([s.caption for s in samples]),
            is_synthetic=True,
            report=ReadReport(read=found, skipped=skipped, excluded=excluded),
        )

    def _table(self, shard: Path) -> pa.Table:
        """Returns the rows of one shard, which must be as it was written."""
        try:
            return read_shard(shard, COLUMNS, self._manifest.shards[shard.name] if self._manifest else None)
        except DamagedShardError as error:
            raise ValueError(
                f"synthetic set: {error}, expected a shard as predict has written it ({repair_command(self._set)} puts "
                "it aside, and the predict command that made the set makes its faces again)"
            ) from error

    def _parse(self, row: dict[str, Any], where: str) -> _Sample:
        """Turns one row into a sample; ``ValueError`` says what is bad about it."""
        if not row["sample_id"]:
            raise ValueError(f"{where}: found no sample_id, expected a unique name")
        if not isinstance(row["label"], str):
            raise ValueError(f"{where}: found label {row['label']!r}, expected the name of an expression")
        try:
            name = canonical_expression(row["label"])
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if name not in self.label_space:
            raise _OutsideLabelSpace(f"expression '{name}' is outside the label space")
        data: Any = row["image"].get("bytes") if isinstance(row["image"], dict) else row["image"]
        image = decode_image(data, where)
        check_not_constant(image, where)
        return _Sample(
            data=data,
            where=where,
            size=(image.shape[0], image.shape[1]),
            content_hash=content_hash(image),
            label=self.label_space.index(name),
            soft_label=self._soft_label(row["soft_label"], where),
            au=_action_units(row["au"], where),
            caption=row["caption"] or "",
            sample_id=row["sample_id"],
        )

    def _soft_label(self, cell: Any, where: str) -> np.ndarray:
        """Returns float32 (K,) over the label space, sum 1."""
        if cell is None or not isinstance(cell, dict | list):
            raise ValueError(f"{where}: found no soft_label, expected one probability per expression")
        try:
            by_name = {canonical_expression(name): value for name, value in _pairs(cell)}
        except ValueError as error:
            raise ValueError(f"{where}: soft_label: {error}") from error
        values = np.array([by_name.get(name) or 0.0 for name in self.label_space], dtype=np.float64)
        every = np.array([value or 0.0 for value in by_name.values()], dtype=np.float64)
        if not np.isfinite(every).all() or (every < 0).any() or abs(every.sum() - 1) > 1e-3 or values.sum() <= 0:
            raise ValueError(f"{where}: found soft_label {by_name}, expected probabilities that sum to 1")
        return (values / values.sum()).astype(np.float32)


class _OutsideLabelSpace(Exception):
    """The intended expression has no place in the label space that was asked for."""


@dataclass(frozen=True)
class _Sample:
    """One usable row."""

    data: bytes
    where: str
    size: tuple[int, int]
    content_hash: str
    label: int
    soft_label: np.ndarray
    au: np.ndarray
    caption: str
    sample_id: str


def _is_kept(cell: Any, where: str) -> bool:
    """Returns whether a row was kept; other tools store a truth value as 0 or 1."""
    if isinstance(cell, bool | int | float) and cell in (0, 1):
        return bool(cell)
    what = "no value" if cell is None else repr(cell)
    raise ValueError(f"{where}: found {what} in column 'kept', expected true or false")


def _pairs(cell: Any) -> list[tuple[str, float | None]]:
    """Returns (name, value) pairs of a struct or a map."""
    pairs = list(cell.items()) if isinstance(cell, dict) else cell
    if any(not isinstance(pair, tuple) or len(pair) != 2 for pair in pairs):
        raise ValueError("found a plain list, expected values by name (a struct or a map)")
    return pairs


def _action_units(cell: Any, where: str) -> np.ndarray:
    """Returns float32 (A,), NaN where an action unit is not given."""
    vector = np.full(len(ACTION_UNITS), np.nan, dtype=np.float32)
    if cell is None:
        return vector
    try:
        pairs = _pairs(cell)
    except ValueError as error:
        raise ValueError(f"{where}: au: {error}") from error
    for name, value in pairs:
        if name not in ACTION_UNITS:
            raise ValueError(f"{where}: found action unit '{name}', expected names such as AU12 or AUL12")
        if value is None or np.isnan(value):
            continue
        if not 0 <= value <= 1:
            raise ValueError(f"{where}: found {name} = {value:g}, expected 0 to 1")
        vector[ACTION_UNITS.index(name)] = value
    return vector


def _checked_schema(shard: Path) -> pa.Schema:
    try:
        schema = pq.read_schema(shard)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{shard}: found a file that is not Parquet, expected a shard of a synthetic set") from error
    missing = [name for name in COLUMNS if name not in schema.names]
    if missing:
        raise ValueError(f"{shard}: found no column '{missing[0]}' (found {', '.join(schema.names)}), expected it")
    return schema


def _names_of_soft_label(schema: pa.Schema, shard: Path) -> tuple[str, ...]:
    """Returns the expressions of a struct column; a map has its names in the rows, where the first one shows them."""
    kind = schema.field("soft_label").type
    if pa.types.is_struct(kind):
        names = {canonical_expression(kind.field(index).name) for index in range(kind.num_fields)}
    elif pa.types.is_map(kind):
        first = next(pq.ParquetFile(shard).iter_batches(batch_size=1, columns=["soft_label"]), None)
        cell = first.to_pylist()[0]["soft_label"] if first is not None and len(first) else None
        names = {canonical_expression(name) for name, _ in _pairs(cell or [])}
    else:
        raise ValueError(f"{shard}: found soft_label of type {kind}, expected values by name (a struct or a map)")
    if len(names) < 2:
        raise ValueError(f"{shard}: found {len(names)} expressions in soft_label, expected at least two")
    return tuple(name for name in EXPRESSIONS if name in names)
